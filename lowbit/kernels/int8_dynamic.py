"""Dynamic int8: ``torch.ops.lowbit.qlinear_dynamic`` and ``qrecurrent_dynamic``.

Inputs are quantized and multiplied in torch's int8 kernels where these are fast and exact on this
machine; elsewhere ``lowbit.functional.int8.dynamic`` runs, after one warning. The operators hide
numbers that depend on data from torch.compile and torch.export, and have no gradient.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from ctypes import c_float
from typing import NamedTuple

import torch
from torch import Tensor

from lowbit.functional.int8 import dynamic, recurrent
from lowbit.functional.int8.dynamic import Matrix
from lowbit.functional.int8.quantize import choose_qparams

# Up to this many products, torch._int_mm and an epilogue of plain ops cost less than a call of
# the fused kernel; for one row always.
FEW_PRODUCTS = 2**21

_onednn = torch.ops.onednn


@functools.cache
def available() -> bool:
    """Whether this machine and this torch multiply int8 matrices, fast and exactly."""
    fast = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not (fast() and hasattr(torch, "_int_mm") and hasattr(_onednn, "qlinear_pointwise")):
        return False
    draw = functools.partial(torch.randint, generator=torch.Generator().manual_seed(0))
    weight = draw(-128, 128, (32, 64), dtype=torch.int8)
    codes = draw(0, 256, (9, 64), dtype=torch.uint8)
    expected = (codes.double() - 100) @ weight.double().T
    one = torch.ones((), dtype=torch.float64)
    try:
        packed = _pack(Matrix(weight, one, torch.zeros((), dtype=torch.int64), None))
        found = [product(codes, 1.0, 100, packed, None, False) for product in (_few, _many)]
    except (RuntimeError, TypeError, NotImplementedError):
        return False  # a torch whose operators take other arguments, or none on this device
    return all(torch.equal(y.double(), expected) for y in found)


@functools.cache
def _ready() -> bool:
    """``available()``, and a warning where it is not."""
    if not available():
        warnings.warn(
            "dynamic int8 layers run in plain torch here, slowly: there are no fast and exact "
            "int8 products on this machine (on x86 they need AVX-512 VNNI or AVX-VNNI)",
            stacklevel=2,
        )
    return available()


class _Packed(NamedTuple):
    """A weight as the kernels take it, and what it was made of."""

    made_of: tuple[weakref.ref[Tensor], ...]
    versions: tuple[int, ...]
    transposed: Tensor  # int8 (k, n), for _int_mm
    sums: Tensor  # int32 (n,), of the weights of each output
    scales: Tensor  # float32 (n,)
    zero_points: Tensor  # int32 (n,), zeros
    blocked: Tensor  # for qlinear_pointwise


_packed: dict[int, _Packed] = {}


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _packed_for(weight: Matrix) -> _Packed | None:
    """The packed form, kept as long as the weight lives unchanged; None where it has none."""
    values, scale, zero_point, _ = weight
    if scale is None or zero_point is None or values.device.type != "cpu" or not _ready():
        return None
    key, parts = id(values), (values, scale, zero_point)
    versions = tuple(map(_version, parts))
    found = _packed.get(key)
    if found is not None and found.versions == versions:
        a, b, c = found.made_of
        if a() is values and b() is scale and c() is zero_point:
            return found
    if bool((zero_point != 0).any()):
        return None
    with torch.no_grad():
        _packed[key] = found = _pack(weight)
    return found


def _pack(weight: Matrix) -> _Packed:
    values, scale, zero_point, _ = weight
    assert scale is not None
    assert zero_point is not None
    key, rows = id(values), values.contiguous()
    parts = (values, scale, zero_point)
    # A view would keep its base, and so the weight, alive for ever.
    transposed = torch.empty(0, dtype=torch.int8).set_(
        rows.untyped_storage(), rows.storage_offset(), rows.t().shape, rows.t().stride()
    )
    return _Packed(
        (weakref.ref(values, lambda _: _packed.pop(key, None)), *map(weakref.ref, parts[1:])),
        tuple(map(_version, parts)),
        transposed,
        values.sum(1, dtype=torch.int32),
        scale.float().expand(len(values)).contiguous(),
        torch.zeros(len(values), dtype=torch.int32),
        _onednn.qlinear_prepack(values, None),
    )


def _quantized(x: Tensor, reduce_range: bool) -> tuple[Tensor, float, int] | None:
    """The integers of x (float32), its scale and zero point; None where x is not finite."""
    low, high = torch.aminmax(x)
    try:
        scale, zero_point = choose_qparams(low.item(), high.item(), 0, 127 if reduce_range else 255)
    except ValueError:
        return None
    # A quotient of two float32 rounded in double and then in float32 is their float32 quotient.
    reciprocal = c_float(1 / c_float(scale).value).value
    codes = torch.mul(x, reciprocal).round_().add_(zero_point).clamp_(0, 255)
    return codes.to(torch.uint8), scale, zero_point


def _few(
    codes: Tensor, scale: float, zero_point: int, w: _Packed, bias: Tensor | None, relu: bool
) -> Tensor:
    sums = torch._int_mm(codes, w.transposed)
    if zero_point:
        sums.add_(w.sums, alpha=-zero_point)
    scales = w.scales * scale
    y = sums * scales if bias is None else torch.addcmul(bias, sums, scales)
    return y.relu_() if relu else y


def _many(
    codes: Tensor, scale: float, zero_point: int, w: _Packed, bias: Tensor | None, relu: bool
) -> Tensor:
    return _onednn.qlinear_pointwise.default(
        *(codes, scale, zero_point, w.blocked, w.scales, w.zero_points, bias),
        *(1.0, 0, torch.float32, "relu" if relu else "none", [], ""),
    )


def project(x: Tensor, weight: Matrix, reduce_range: bool = True, relu: bool = False) -> Tensor:
    """``lowbit.functional.int8.dynamic.linear``: x (..., k) -> (..., n)."""
    packed = _packed_for(weight)
    if packed is None or x.numel() == 0:
        return dynamic.linear(x, weight, reduce_range, relu)
    k, n = packed.transposed.shape
    rows = x.reshape(-1, k).float()
    quantized = _quantized(rows, reduce_range)
    if quantized is None:
        return x.new_full((*x.shape[:-1], n), torch.nan)
    few = len(rows) == 1 or len(rows) * k * n <= FEW_PRODUCTS
    y = (_few if few else _many)(*quantized, packed, weight.bias, relu)
    return y.view(*x.shape[:-1], n).to(x.dtype)


_MATRIX = "Tensor {0}, Tensor? {0}_scale, Tensor? {0}_zero_point, Tensor? {0}_bias"
_LAYER = (
    "(Tensor x, Tensor? batch_sizes, Tensor[] state, "
    + f"{_MATRIX.format('ih')}, {_MATRIX.format('hh')}, "
    + "str gates, bool reverse, bool reduce_range) -> Tensor[]"
)

_library = torch.library.Library("lowbit", "FRAGMENT")
_library.define(
    f"qlinear_dynamic(Tensor x, {_MATRIX.format('weight')}, bool reduce_range, bool relu) -> Tensor"
)
_library.define(f"qrecurrent_dynamic{_LAYER}")


def _linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    zero_point: Tensor | None,
    bias: Tensor | None,
    reduce_range: bool,
    relu: bool,
) -> Tensor:
    return project(x, Matrix(weight, scale, zero_point, bias), reduce_range, relu)


def _linear_shape(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _recurrent(
    x: Tensor,
    batch_sizes: Tensor | None,
    state: list[Tensor],
    ih: Tensor,
    ih_scale: Tensor | None,
    ih_zero_point: Tensor | None,
    ih_bias: Tensor | None,
    hh: Tensor,
    hh_scale: Tensor | None,
    hh_zero_point: Tensor | None,
    hh_bias: Tensor | None,
    gates: str,
    reverse: bool,
    reduce_range: bool,
) -> list[Tensor]:
    y = recurrent.layer(
        gates,
        x.float(),
        batch_sizes,
        tuple(s.float() for s in state),
        Matrix(ih, ih_scale, ih_zero_point, ih_bias),
        Matrix(hh, hh_scale, hh_zero_point, hh_bias),
        reverse,
        functools.partial(project, reduce_range=reduce_range),
    )
    return [part.to(x.dtype) for part in y]


def _recurrent_shape(
    x: Tensor, batch_sizes: Tensor | None, state: list[Tensor], *others: object
) -> list[Tensor]:
    return [
        x.new_empty((*x.shape[:-1], state[0].shape[-1])),
        *(x.new_empty(s.shape) for s in state),
    ]


for _name, _run, _shape in (
    ("qlinear_dynamic", _linear, _linear_shape),
    ("qrecurrent_dynamic", _recurrent, _recurrent_shape),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lowbit::{_name}", _shape, lib=_library)


def linear(x: Tensor, weight: Matrix, reduce_range: bool = True, relu: bool = False) -> Tensor:
    """``lowbit.functional.int8.dynamic.linear`` as one operator."""
    return torch.ops.lowbit.qlinear_dynamic.default(x, *weight, reduce_range, relu)


def layer(
    gates: str,
    x: Tensor,
    batch_sizes: Tensor | None,
    state: tuple[Tensor, ...],
    ih: Matrix,
    hh: Matrix,
    reverse: bool = False,
    reduce_range: bool = True,
) -> tuple[Tensor, ...]:
    """``lowbit.functional.int8.recurrent.layer`` as one operator."""
    op = torch.ops.lowbit.qrecurrent_dynamic.default
    return tuple(op(x, batch_sizes, state, *ih, *hh, gates, reverse, reduce_range))


__all__ = ["FEW_PRODUCTS", "available", "layer", "linear", "project"]
