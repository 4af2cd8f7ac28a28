"""Handlers of functions of torch: float layers that stay, and the moving about of any numbers.

Keyed by ``_recorder.name_of``; an argument list is that of the function in torch. Results are
known, so that what only changes the shape is a Reshape to the shape that came out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.export._operators import (
    adaptive_mean,
    affine,
    averaged,
    bags,
    convolved,
    layer_normalized,
    max_pooled,
    resized,
    transposed,
)
from lowbit.export._recorder import Handler, Recorder
from lowbit.functional.int8.pool import each_axis

HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Let a handler write down the functions of these names."""

    def registered(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return registered


# The same numbers.


@handles("contiguous", "clone", "detach", "alias", "data", "dropout", "dropout1d", "dropout2d")
def same(g: Recorder, y: Any, x: Tensor, *args: Any, **kwargs: Any) -> str:
    return g.name(x)


@handles("to", "float", "double", "half", "int", "long", "type_as", "cpu")
def cast(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    return g.name(x) if y.dtype == x.dtype else g.node("Cast", x, to=y.dtype)


@handles("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as")
def reshaped(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    if y.dtype != x.dtype:
        raise NotImplementedError(f"a view of {x.dtype} as {y.dtype} has no ONNX operator")
    return g.reshaped(x, y.shape)


@handles("permute", "transpose", "t", "T", "mT", "movedim", "swapaxes")
def permuted(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    """The order is read from where the strides of a small tensor of other lengths went."""
    lengths = range(2, 2 + x.ndim)
    marked = torch.empty(tuple(lengths), device="meta")
    moved = g.again(marked, *args, **kwargs)
    return g.node("Transpose", x, perm=[length - 2 for length in moved.shape])


@handles("cat", "concat", "concatenate")
def cat(g: Recorder, y: Tensor, tensors: Sequence[Tensor], dim: int = 0, axis: Any = None) -> str:
    dim = dim if axis is None else axis
    return g.node("Concat", *(g.operand(x, y.dtype) for x in tensors), axis=dim % y.ndim)


@handles("stack")
def stack(g: Recorder, y: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> str:
    axes = torch.tensor([dim % y.ndim])
    parts = [g.node("Unsqueeze", x, g.constant_of(axes, "axes")) for x in tensors]
    return g.node("Concat", *parts, axis=dim % y.ndim)


@handles("split", "chunk")
def split(g: Recorder, y: Sequence[Tensor], x: Tensor, size: Any, dim: int = 0) -> Any:
    sizes = torch.tensor([part.shape[dim] for part in y])
    made = g.node("Split", x, g.constant_of(sizes, "sizes"), outputs=len(y), axis=dim % x.ndim)
    return made if len(y) > 1 else [made]


@handles("getitem")
def getitem(g: Recorder, y: Tensor, x: Tensor, index: Any) -> Any:
    """Numbers, slices, None and …; not tensors."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not (item is None or item is ... or isinstance(item, (int, slice))) for item in items):
        raise NotImplementedError("an index of numbers, slices, None and … can be exported alone")
    if ... in items:
        where = items.index(...)
        used = sum(item is not None and item is not ... for item in items)
        items[where : where + 1] = [slice(None)] * (x.ndim - used)
    cuts: list[tuple[int, int, int, int]] = []  # start, end, axis, step
    axis = 0
    for item in items:
        if item is None:
            continue
        if isinstance(item, slice):
            start = 0 if item.start is None else item.start
            end = INT64_MAX if item.stop is None else item.stop
            step = 1 if item.step is None else item.step
        else:
            start, end, step = item, item + 1 if item != -1 else INT64_MAX, 1
        if (start, end, step) != (0, INT64_MAX, 1):
            cuts.append((start, end, axis, step))
        axis += 1
    name: Any = x
    if cuts:
        vectors = torch.tensor(cuts).T.unbind()
        name = g.node("Slice", x, *(g.constant_of(vector, "slice") for vector in vectors))
    if len(items) == axis and not any(isinstance(item, int) for item in items):
        return name
    return g.reshaped(name, y.shape)


INT64_MAX = 2**63 - 1


@handles("pad")
def pad(
    g: Recorder, y: Tensor, x: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> str:
    before, after = [0] * x.ndim, [0] * x.ndim
    for i in range(len(pad) // 2):
        before[-1 - i], after[-1 - i] = pad[2 * i], pad[2 * i + 1]
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    fill = g.number(value or 0, x.dtype) if mode == "constant" else None
    sides = g.constant_of(torch.tensor([*before, *after]), "pads")
    return g.node("Pad", x, sides, fill, mode=modes[mode])


# Layers.


@handles("linear")
def linear(g: Recorder, y: Tensor, input: Tensor, weight: Tensor, bias: Any = None) -> str:
    if input.ndim == 2:
        return g.node("Gemm", input, weight, bias, transB=1)
    made = g.node("MatMul", input, g.node("Transpose", weight, perm=[1, 0]))
    return made if bias is None else g.node("Add", made, bias)


@handles("conv1d", "conv2d", "conv3d")
def conv(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    axes = weight.ndim - 2
    dilations = each_axis(dilation, axes)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        pads = [span // 2 for span in spans] + [span - span // 2 for span in spans]
    else:
        pads = each_axis(0 if padding == "valid" else padding, axes) * 2
    return convolved(g, input, weight, bias, weight.shape[2:], stride, pads, dilations, groups)


@handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str:
    window = (stride, padding, output_padding, dilation, groups)
    return transposed(g, input, weight, bias, weight.shape[2:], *window)


@handles("batch_norm")
def batch_norm(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> str:
    if training or running_mean is None:
        raise NotImplementedError("a batch norm without running statistics cannot be exported")
    weight, bias = affine(g, running_mean.shape[0], weight, bias)
    vectors = (weight, bias, running_mean, running_var)
    return g.node("BatchNormalization", input, *vectors, epsilon=eps)


@handles("layer_norm")
def layer_norm(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> str:
    return layer_normalized(g, input, normalized_shape, weight, bias, eps)


@handles("group_norm")
def group_norm(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> str:
    weight, bias = affine(g, y.shape[1], weight, bias)
    return g.node("GroupNormalization", input, weight, bias, num_groups=num_groups, epsilon=eps)


@handles("embedding")
def embedding(g: Recorder, y: Tensor, input: Tensor, weight: Tensor, *args: Any, **kw: Any) -> str:
    return g.node("Gather", weight, input, axis=0)


# Pooling and resizing.


@handles("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    g: Recorder, y: Tensor, input: Tensor, *rest: Any, return_indices: bool = False, **named: Any
) -> str:
    return max_pooled(g, input, input.ndim - 2, *rest, **named)


@handles("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(g: Recorder, y: Tensor, input: Tensor, *rest: Any, **named: Any) -> str:
    return averaged(g, input, input.ndim - 2, *rest, **named)


@handles("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(g: Recorder, y: Tensor, input: Tensor, output_size: Any) -> str:
    return adaptive_mean(g, input, input.shape[2:], y.shape[2:])


@handles("interpolate")
def interpolate(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> str:
    if mode not in ("nearest", "linear", "bilinear", "trilinear") or antialias:
        raise NotImplementedError(f"interpolate with mode {mode!r}: nearest and linear ones can be")
    return resized(g, y, input, size, scale_factor, mode, align_corners)


# Arithmetic.


@handles("new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like", "full_like")
def filled(g: Recorder, y: Tensor, *args: Any, **kwargs: Any) -> None:
    """Numbers that do not come from the inputs."""


@handles("as_strided")
def as_strided(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    if y.shape != x.shape or not torch.equal(y, x):
        raise NotImplementedError("as_strided gives other numbers, or in another order: index them")
    return g.name(x)


@handles("expand", "expand_as", "broadcast_to")
def expanded(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    return g.node("Expand", x, g.graph.shape(y.shape))


@handles("where")
def where(g: Recorder, y: Tensor, condition: Tensor, a: Any, b: Any) -> str:
    return g.node("Where", condition, g.operand(a, y.dtype), g.operand(b, y.dtype))


def _comparison(op: str) -> Handler:
    def handler(g: Recorder, y: Tensor, a: Any, b: Any) -> str:
        dtype = torch.result_type(a, b)
        made = g.node(op.removeprefix("Not"), g.operand(a, dtype), g.operand(b, dtype))
        return g.node("Not", made) if op.startswith("Not") else made

    return handler


for _name, _short, _op in (
    ("greater_equal", "ge", "GreaterOrEqual"),
    ("greater", "gt", "Greater"),
    ("less_equal", "le", "LessOrEqual"),
    ("less", "lt", "Less"),
    ("equal", "eq", "Equal"),
    ("not_equal", "ne", "NotEqual"),
):
    handles(*((_short,) if _name == "equal" else (_name, _short)))(_comparison(_op))


@handles("logical_not", "bitwise_not", "invert")
def logical_not(g: Recorder, y: Tensor, x: Tensor) -> str:
    if x.dtype != torch.bool:
        raise NotImplementedError(f"the bits of {x.dtype} turned round: booleans alone can be")
    return g.node("Not", x)


@handles("addcmul")
def addcmul(g: Recorder, y: Tensor, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> str:
    product = g.node("Mul", a, b)
    if value != 1:
        product = g.node("Mul", product, g.number(value, y.dtype))
    return g.node("Add", x, product)


@handles("and", "logical_and")
def logical_and(g: Recorder, y: Tensor, a: Tensor, b: Tensor) -> str:
    if (a.dtype, b.dtype) != (torch.bool, torch.bool):
        raise NotImplementedError("the common bits of integers: booleans alone can be")
    return g.node("And", a, b)


@handles("log2")
def log2(g: Recorder, y: Tensor, x: Tensor) -> str:
    return g.node("Div", g.node("Log", x), g.number(math.log(2), y.dtype))


@handles("exp2")
def exp2(g: Recorder, y: Tensor, x: Tensor) -> str:
    return g.node("Pow", g.number(2.0, y.dtype), x)


@handles("embedding_bag")
def embedding_bag(
    g: Recorder,
    y: Tensor,
    input: Tensor,
    weight: Tensor,
    offsets: Any = None,
    *,
    mode: str = "mean",
    per_sample_weights: Any = None,
    padding_idx: Any = None,
    **kwargs: Any,
) -> str:
    return bags(g, g.name(weight), input, mode, per_sample_weights, padding_idx)


@handles("square")
def square(g: Recorder, y: Tensor, x: Tensor) -> str:
    return g.node("Mul", x, x)


@handles("rsqrt")
def rsqrt(g: Recorder, y: Tensor, x: Tensor) -> str:
    return g.node("Reciprocal", g.node("Sqrt", x))


def _binary(op: str, *, swapped: bool = False) -> Handler:
    def handler(g: Recorder, y: Tensor, a: Any, b: Any, *, alpha: float = 1) -> str:
        a, b = (b, a) if swapped else (a, b)
        first, second = g.operand(a, y.dtype), g.operand(b, y.dtype)
        if alpha != 1:
            second = g.node("Mul", second, g.number(alpha, y.dtype))
        return g.node(op, first, second)

    return handler


for _names, _op in (
    (("add",), "Add"),
    (("sub", "subtract"), "Sub"),
    (("mul", "multiply"), "Mul"),
    (("div", "divide", "truediv", "true_divide"), "Div"),
    (("maximum",), "Max"),
    (("minimum",), "Min"),
    (("matmul", "bmm", "mm"), "MatMul"),
):
    handles(*_names)(_binary(_op))
handles("rsub")(_binary("Sub", swapped=True))
handles("rtruediv", "rdiv")(_binary("Div", swapped=True))
handles("rmatmul")(_binary("MatMul", swapped=True))


@handles("pow")
def power(g: Recorder, y: Tensor, x: Tensor, exponent: Any) -> str:
    return g.node("Pow", x, g.operand(exponent, y.dtype))


@handles("clamp", "clip", "hardtanh")
def clamp(
    g: Recorder,
    y: Tensor,
    x: Tensor,
    min: Any = None,
    max: Any = None,
    inplace: bool = False,
    min_val: Any = None,
    max_val: Any = None,
) -> str:
    low, high = min if min_val is None else min_val, max if max_val is None else max_val
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        ends = [None if end is None else g.number(end, y.dtype) for end in (low, high)]
        return g.node("Clip", x, *ends)
    made: Any = x
    for op, end in (("Max", low), ("Min", high)):
        made = made if end is None else g.node(op, made, g.operand(end, y.dtype))
    return made


@handles("clamp_min")
def clamp_min(g: Recorder, y: Tensor, x: Tensor, min: Any) -> str:
    return clamp(g, y, x, min)


@handles("clamp_max")
def clamp_max(g: Recorder, y: Tensor, x: Tensor, max: Any) -> str:
    return clamp(g, y, x, None, max)


@handles("relu6")
def relu6(g: Recorder, y: Tensor, x: Tensor, inplace: bool = False) -> str:
    return clamp(g, y, x, 0.0, 6.0)


def _unary(op: str) -> Handler:
    def handler(g: Recorder, y: Tensor, x: Tensor, inplace: bool = False) -> str:
        return g.node(op, x)

    return handler


for _name, _op in {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "softplus": "Softplus",
    "neg": "Neg",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sign": "Sign",
    "round": "Round",
    "floor": "Floor",
}.items():
    handles(_name)(_unary(_op))


@handles("gelu")
def gelu(g: Recorder, y: Tensor, x: Tensor, approximate: str = "none") -> str:
    return g.node("Gelu", x, approximate=approximate)


@handles("silu")
def silu(g: Recorder, y: Tensor, x: Tensor, inplace: bool = False) -> str:
    return g.node("Mul", x, g.node("Sigmoid", x))


@handles("hardsigmoid")
def hardsigmoid(g: Recorder, y: Tensor, x: Tensor, inplace: bool = False) -> str:
    return g.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@handles("leaky_relu")
def leaky_relu(
    g: Recorder, y: Tensor, x: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> str:
    return g.node("LeakyRelu", x, alpha=negative_slope)


@handles("elu")
def elu(g: Recorder, y: Tensor, x: Tensor, alpha: float = 1.0, inplace: bool = False) -> str:
    return g.node("Elu", x, alpha=alpha)


@handles("prelu")
def prelu(g: Recorder, y: Tensor, x: Tensor, weight: Tensor) -> str:
    slopes = weight if weight.numel() == 1 else weight.reshape(-1, *[1] * (x.ndim - 2))
    return g.node("PRelu", x, slopes)


@handles("softmax")
def softmax(g: Recorder, y: Tensor, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> str:
    return g.node("Softmax", x, axis=dim)


@handles("log_softmax")
def log_softmax(g: Recorder, y: Tensor, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> str:
    return g.node("LogSoftmax", x, axis=dim)


def _reduction(op: str) -> Handler:
    def handler(
        g: Recorder, y: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
    ) -> str:
        dims = list(range(x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
        axes = g.constant_of(torch.tensor(dims), "axes")
        return g.node(op, g.operand(x, y.dtype), axes, keepdims=int(keepdim))

    return handler


for _name, _op in {
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "amax": "ReduceMax",
    "amin": "ReduceMin",
}.items():
    handles(_name)(_reduction(_op))


@handles("linalg_vector_norm")
def vector_norm(
    g: Recorder, y: Tensor, x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False
) -> str:
    if ord not in (1, 2):
        raise NotImplementedError(f"a norm of order {ord}: those of order 1 and 2 can be exported")
    return _reduction(f"ReduceL{int(ord)}")(g, y, x, dim, keepdim)


@handles("var")
def variance(
    g: Recorder,
    y: Tensor,
    x: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: int | None = None,
) -> str:
    """The squares of what lies between numbers and their mean, over one less than their count."""
    dims = list(range(x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    axes = g.constant_of(torch.tensor(dims), "axes")
    centred = g.node("Sub", x, g.node("ReduceMean", x, axes, keepdims=1))
    total = g.node("ReduceSumSquare", centred, axes, keepdims=int(keepdim))
    count = math.prod(x.shape[d] for d in dims) - (
        int(unbiased) if correction is None else correction
    )
    return g.node("Div", total, g.number(float(count), y.dtype))


@handles("std")
def deviation(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    return g.node("Sqrt", variance(g, y, x, *args, **kwargs))


@handles("scaled_dot_product_attention")
def attention(
    g: Recorder,
    y: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **kwargs: Any,
) -> str:
    if attn_mask is not None or is_causal:
        raise NotImplementedError("attention without a mask can be exported alone")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    order = [*range(key.ndim - 2), key.ndim - 1, key.ndim - 2]
    scores = g.node("MatMul", query, g.node("Transpose", key, perm=order))
    weights = g.node("Softmax", g.node("Mul", scores, g.number(factor)), axis=-1)
    return g.node("MatMul", weights, value)
