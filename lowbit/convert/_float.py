"""Float layers of a converted model, called where they are fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from lowbit.convert._norm import is_channels_last, is_float_image


def _one_dnn() -> tuple[Any, Any] | None:
    """oneDNN's reordering of a weight and its convolution with one; None where it is not built.

    Used where it was measured, on x86 with vectors.
    """
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        ops = torch.ops.mkldnn
        return ops._reorder_convolution_weight.default, ops._convolution_pointwise.default
    except (AttributeError, RuntimeError):
        return None


ONE_DNN = _one_dnn()
# Up to this many numbers, torch convolves one image by im2col and a matrix product.
MOST_NATIVE = 20480
# A call to oneDNN costs 16 us, one to the matrix product 4; its products are twice as fast.
LEAST_PRODUCTS = 1_500_000
# A pooling along both axes takes 14 us in calls.
LEAST_POOLED = 2**15


def _plain_call(*tensors: Tensor | None) -> bool:
    """Whether a call is nothing but its arithmetic: no gradient, autocast or trace."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors))
    )


class _Reordering(nn.Module):
    """A convolution of images in oneDNN, and the copy of its weight in oneDNN's layout.

    The copy is made on demand, again when the weight has changed, and neither saved nor pickled.
    """

    _layout: tuple[Any, ...]  # padding, stride, dilation, groups

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """The convolution, channels last in memory; None where the call is better torch's."""
        if (
            ONE_DNN is None  # a model that was converted on another processor
            or not is_float_image(x)
            or not self._pays(x, weight)
            or weight.dtype != torch.float32
            or not weight.is_cpu
            or not torch._C._get_mkldnn_enabled()
            or not _plain_call(x, weight, bias)
        ):
            return None
        assert ONE_DNN is not None
        y: Tensor = ONE_DNN[1](x, self._reordered(weight), bias, *self._layout, "none", [], "")
        return y

    def _pays(self, x: Tensor, weight: Tensor) -> bool:
        """Whether oneDNN is faster than torch's own choice, for images of this shape."""
        decided: tuple[Any, bool] | None = self.__dict__.get("_decided")
        if decided is None or decided[0] != x.shape:
            decided = (x.shape, self._decide(x.shape, weight))
            self.__dict__["_decided"] = decided
        return decided[1]

    def _decide(self, shape: Sequence[int], weight: Tensor) -> bool:
        _, stride, _, groups = self._layout
        images, channels, *size = shape
        kernel = weight.shape[2:]
        if 0 in shape or channels != weight.shape[1] * groups:
            return False
        # Of many images, larger windows are torch's: 513 us for 648 of 8 x 3 x 224 x 224.
        if images > 1 and max(kernel) > 1:
            return False
        # Where torch goes to oneDNN itself, reordering the weight costs more than the rest.
        anyway = groups > 1 or min(kernel) > 3 or math.prod(shape) > MOST_NATIVE
        products = images * math.prod(size) // math.prod(stride) * weight.numel()
        return (anyway and max(kernel) > 1) or products >= LEAST_PRODUCTS

    def _reordered(self, weight: Tensor) -> Tensor:
        version = None if weight.is_inference() else weight._version
        state = (weight.data_ptr(), version)
        kept: tuple[Any, Tensor] | None = self.__dict__.get("_kept")
        if kept is None or kept[0] != state:
            assert ONE_DNN is not None
            with torch.no_grad():
                kept = (state, ONE_DNN[0](weight.detach().contiguous(), *self._layout))
            self.__dict__["_kept"] = kept
        return kept[1]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.__dict__.pop("_kept", None)
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.pop("_kept", None)
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_kept", None)
        state.pop("_decided", None)
        return state


class FloatConv2d(_Reordering, nn.Conv2d):
    """``torch.nn.Conv2d`` whose calls go to oneDNN, with the weight in its layout.

    Torch's own call goes elsewhere for small images and 1 x 1 windows in one thread (120 us for
    68, of 64 to 128 channels at 28 x 28), and reorders the weight each time. Sums may be taken
    in another order. The output is channels last in memory, whatever comes in. Under autograd,
    autocast, compilers and function transforms, in other dtypes, for sizes at which torch is
    faster and elsewhere than on the processor the call is torch's.
    """

    @classmethod
    def from_trained(cls, conv: nn.Conv2d) -> Self | None:
        """The same layer with the same parameters, or None where this is no gain."""
        ends = conv._reversed_padding_repeated_twice
        usual = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        if ONE_DNN is None or not usual or ends[0::2] != ends[1::2]:
            return None
        if conv.weight.dtype != torch.float32:
            return None
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            device="meta",
        )
        made.weight, made.bias = conv.weight, conv.bias
        made._layout = (made.padding, made.stride, made.dilation, made.groups)
        return made.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        y = self._convolved(x, weight, bias)
        return super().forward(channels_last(x)) if y is None else y


class FloatConvolution(_Reordering):
    """``torch.nn.functional.conv2d`` with fixed sizes, called as ``FloatConv2d`` is."""

    def __init__(
        self,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self._layout = (_pair(padding), _pair(stride), _pair(dilation), groups)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self._convolved(x, weight, bias)
        if y is None:
            padding, stride, dilation, groups = self._layout
            return F.conv2d(channels_last(x), weight, bias, stride, padding, dilation, groups)
        return y


class OverlappingMaxPool2d(nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` of windows that overlap, along one axis after the other.

    Values are the same. For images that are channels last in memory: 42 us for 137 of
    (1, 64, 56, 56) by 2 x 2 windows of stride 1. Else, and under autograd and compilers, it is
    ``torch.nn.MaxPool2d``.
    """

    @classmethod
    def from_trained(cls, pool: nn.MaxPool2d) -> Self | None:
        """The same pooling, or None where this is no gain."""
        kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
        overlap = all(s < k <= 3 for s, k in zip(stride, kernel, strict=True))
        if not overlap or pool.ceil_mode or pool.return_indices:
            return None
        return cls(kernel, stride, pool.padding, pool.dilation).train(pool.training)

    def forward(self, x: Tensor) -> Tensor:
        large = is_float_image(x) and x.numel() >= LEAST_POOLED
        if large and is_channels_last(x) and _plain_call(x):
            y: Tensor | None = x
            windows = (_pair(v) for v in (self.kernel_size, self.stride, self.padding))
            for axis, *window in zip((2, 3), *windows, _pair(self.dilation), strict=True):
                y = None if y is None else _maxima(y, axis, *window)
            if y is not None:
                return y
        return super().forward(x)


def _maxima(
    x: Tensor, axis: int, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor | None:
    """Maxima over windows along one axis; None unless some tap lies inside for every window."""
    size = x.shape[axis]
    count = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    before: tuple[slice, ...] = (slice(None),) * axis
    whole: list[Tensor] = []
    partial: list[tuple[int, int, Tensor]] = []
    for tap in range(kernel):
        offset = tap * dilation - padding
        first = -(min(offset, 0) // stride)
        last = min(count - 1, (size - 1 - offset) // stride)
        if last < first:
            continue
        start = first * stride + offset
        taken = x[(*before, slice(start, last * stride + offset + 1, stride))]
        if last - first + 1 == count:
            whole.append(taken)
        else:
            partial.append((first, last + 1, taken))
    if not whole:
        return None
    y = torch.maximum(*whole[:2]) if len(whole) > 1 else whole[0].clone()
    for taken in whole[2:]:
        torch.maximum(y, taken, out=y)
    for first, end, taken in partial:
        part = y[(*before, slice(first, end))]
        torch.maximum(part, taken, out=part)
    return y


def channels_last(x: Tensor) -> Tensor:
    """An image with its channels innermost in memory; anything else as it is."""
    if x.ndim != 4 or torch._C._are_functorch_transforms_active():
        return x
    if x.shape[1] == 1 and x.is_contiguous() and not torch.compiler.is_compiling():
        # It lies both ways already; only the stride of its one channel tells torch which.
        n, _, h, w = x.shape
        return x.as_strided((n, 1, h, w), (h * w, 1, w, 1))
    return x.contiguous(memory_format=torch.channels_last)


class ChannelsLast(nn.Module):
    """``channels_last``; a module, so that a graph that holds it can be pickled."""

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(x)


class LaidOutLike(nn.Module):
    """y contiguous if x is, as the trained model would give it; y may be no tensor."""

    def forward(self, y: Any, x: Any) -> Any:
        tensors = isinstance(y, Tensor) and isinstance(x, Tensor)
        return y.contiguous() if tensors and x.is_contiguous() else y
