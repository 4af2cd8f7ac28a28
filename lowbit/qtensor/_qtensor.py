"""``QTensor``: integers together with the scale and the zero point that give them a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lowbit.functional import int8
from lowbit.kernels import int8 as kernels
from lowbit.qtensor._axis import axis_after_reshape, normal_axis
from lowbit.qtensor._index import index_channels

# What torch hands to __torch_function__ -> what it does; filled by _functions.py.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}


class QTensor:
    """Integers in a plain tensor, standing for (values - zero_point) * scale.

    values      torch.uint8, int8 or int32, of any shape
    scale       a number; per channel a float64 vector
    zero_point  a number; per channel an int64 vector, or float32 beside float32 scales, where
                the zero points are real numbers (weights of embeddings)
    axis        None; per channel the axis of ``values`` that the vectors run along

    It has the methods of torch's quantized tensors. What changes the shape keeps the values and
    follows the axis, or raises ValueError where the channels are torn apart. Functions of torch
    and ``torch.nn.functional`` take it where the result needs no scale that they cannot know.
    It is a pytree whose leaves are tensors, so compiled and exported functions take and return
    it. ``a == b`` and others that give tensors of truth compare the real numbers.

    Raises TypeError for values of another dtype, ValueError where vectors do not fit the axis.
    Its numbers are not checked: ``lowbit.quantize_per_tensor`` and ``_per_channel`` do that.
    """

    __slots__ = ("__weakref__", "axis", "scale", "values", "zero_point")
    __module__ = "lowbit.qtensor"  # what checkpoints name
    __hash__ = object.__hash__

    values: Tensor
    scale: float | Tensor
    zero_point: int | Tensor
    axis: int | None

    def __init__(
        self,
        values: Tensor,
        scale: float | Tensor,
        zero_point: int | Tensor,
        axis: int | None = None,
    ) -> None:
        if values.dtype not in (torch.uint8, torch.int8, torch.int32):
            raise TypeError(
                f"a QTensor holds uint8, int8 or int32, not {values.dtype}; "
                "lowbit.quantize_per_tensor makes one of real numbers"
            )
        if axis is not None:
            axis = normal_axis(axis, values.dim())
            scale, zero_point = _vectors(scale, zero_point, values.shape[axis])
        self.values = values
        self.scale = scale
        self.zero_point = zero_point
        self.axis = axis

    # What it stands for.

    def int_repr(self) -> Tensor:
        """The integers."""
        return self.values

    def dequantize(self) -> Tensor:
        """The real numbers, in float32."""
        if self.axis is None:
            return kernels.dequantize(self.values, self.scale, self.zero_point)  # type: ignore[arg-type]
        return int8.dequantize(self.values, self.scale, self.zero_point, self.axis)

    def q_scale(self) -> float:
        """The scale of the whole tensor; ValueError per channel."""
        if isinstance(self.scale, Tensor):
            raise ValueError("a scale for each channel: q_per_channel_scales() has them")
        return self.scale

    def q_zero_point(self) -> int:
        """The zero point of the whole tensor; ValueError per channel."""
        if isinstance(self.zero_point, Tensor):
            raise ValueError("a zero point for each channel: q_per_channel_zero_points() has them")
        return self.zero_point

    def q_per_channel_scales(self) -> Tensor:
        """The scales, one for each channel; ValueError where there is one for the tensor."""
        if not isinstance(self.scale, Tensor):
            raise ValueError("one scale for the whole tensor: q_scale() has it")
        return self.scale

    def q_per_channel_zero_points(self) -> Tensor:
        """The zero points, one for each channel; ValueError where there is one for the tensor."""
        if not isinstance(self.zero_point, Tensor):
            raise ValueError("one zero point for the whole tensor: q_zero_point() has it")
        return self.zero_point

    def q_per_channel_axis(self) -> int:
        """The axis of the channels; ValueError where the whole tensor has one scale."""
        if self.axis is None:
            raise ValueError("one scale for the whole tensor, and so no axis of channels")
        return self.axis

    def qscheme(self) -> torch.qscheme:
        """``torch.per_tensor_affine``, ``per_channel_affine`` or ``.._float_qparams``."""
        if self.axis is None:
            return torch.per_tensor_affine
        if self.q_per_channel_zero_points().is_floating_point():
            return torch.per_channel_affine_float_qparams
        return torch.per_channel_affine

    def to_torch_quantized(self) -> Tensor:
        """As a tensor of torch's quantized dtypes; RuntimeError where torch has none any more."""
        from lowbit.qtensor._torch import to_torch_quantized

        return to_torch_quantized(self)

    @staticmethod
    def from_torch_quantized(x: Tensor) -> QTensor:
        """Of a tensor of torch's quantized dtypes; TypeError for others."""
        from lowbit.qtensor._torch import from_torch_quantized

        return from_torch_quantized(x)

    # Facts of the tensor of integers.

    is_quantized = True
    requires_grad = False

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.dim()

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.values.shape if dim is None else self.values.shape[dim]

    def dim(self) -> int:
        return self.values.dim()

    def numel(self) -> int:
        return self.values.numel()

    nelement = numel

    def element_size(self) -> int:
        return self.values.element_size()

    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        return self.values.stride() if dim is None else self.values.stride(dim)

    def is_contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> bool:
        return self.values.is_contiguous(memory_format=memory_format)

    def __len__(self) -> int:
        return len(self.values)

    # The same values in another place or order.

    def with_values(self, values: Tensor) -> QTensor:
        """Other integers of the same axes, with this scale and zero point."""
        return QTensor(values, self.scale, self.zero_point, self.axis)

    def clone(self, *, memory_format: torch.memory_format = torch.preserve_format) -> QTensor:
        return QTensor(
            self.values.clone(memory_format=memory_format),
            self.scale.clone() if isinstance(self.scale, Tensor) else self.scale,
            self.zero_point.clone() if isinstance(self.zero_point, Tensor) else self.zero_point,
            self.axis,
        )

    def detach(self) -> QTensor:
        return self.with_values(self.values.detach())

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> QTensor:
        return self.with_values(self.values.contiguous(memory_format=memory_format))

    def to(self, *args: Any, **kwargs: Any) -> QTensor:
        """Another device or memory format; TypeError for a dtype, which needs a new scale."""
        values = self.values.to(*args, **kwargs)
        if values.dtype != self.values.dtype:
            raise TypeError(
                f"to({values.dtype}) of quantized {self.values.dtype}: dequantize() gives real "
                "numbers, int_repr() the integers"
            )
        if isinstance(self.scale, Tensor) and isinstance(self.zero_point, Tensor):
            device = values.device
            scale, zero_point = self.scale.to(device), self.zero_point.to(device)
            return QTensor(values, scale, zero_point, self.axis)
        return self.with_values(values)

    def cpu(self) -> QTensor:
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int = "cuda") -> QTensor:
        return self.to(device)

    def view(self, *shape: Any) -> QTensor:
        if len(shape) == 1 and isinstance(shape[0], torch.dtype):
            raise TypeError(f"view({shape[0]}) of quantized values: int_repr() has the integers")
        return self._reshaped(self.values.view(*shape))

    def reshape(self, *shape: Any) -> QTensor:
        return self._reshaped(self.values.reshape(*shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> QTensor:
        return self._reshaped(self.values.flatten(start_dim, end_dim))

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> QTensor:
        return self._reshaped(self.values.unflatten(dim, sizes))

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> QTensor:
        values = self.values.squeeze() if dim is None else self.values.squeeze(dim)
        return self._reshaped(values)

    def unsqueeze(self, dim: int) -> QTensor:
        return self._reshaped(self.values.unsqueeze(dim))

    def permute(self, *dims: Any) -> QTensor:
        values = self.values.permute(*dims)
        if self.axis is None:
            return self.with_values(values)
        order = dims[0] if isinstance(dims[0], (tuple, list)) else dims
        axis = [normal_axis(d, self.ndim) for d in order].index(self.axis)
        return QTensor(values, self.scale, self.zero_point, axis)

    def transpose(self, dim0: int, dim1: int) -> QTensor:
        order = list(range(self.ndim))
        dim0, dim1 = normal_axis(dim0, self.ndim), normal_axis(dim1, self.ndim)
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return self.permute(order)

    def movedim(self, source: int, destination: int) -> QTensor:
        order = list(range(self.ndim))
        moved = order.pop(normal_axis(source, self.ndim))
        order.insert(normal_axis(destination, self.ndim), moved)
        return self.permute(order)

    def t(self) -> QTensor:
        if self.ndim > 2:
            raise ValueError(f"t() is for at most 2 axes, not {self.ndim}; permute() for more")
        return self.transpose(0, 1) if self.ndim == 2 else self

    @property
    def T(self) -> QTensor:
        return self.permute(tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> QTensor:
        return self.transpose(-2, -1)

    def expand(self, *sizes: Any) -> QTensor:
        values = self.values.expand(*sizes)
        if self.axis is None:
            return self.with_values(values)
        axis = self.axis + values.dim() - self.ndim
        if values.shape[axis] != self.values.shape[self.axis]:
            raise ValueError("cannot expand the axis of the channels of a per-channel QTensor")
        return QTensor(values, self.scale, self.zero_point, axis)

    def flip(self, *dims: Any) -> QTensor:
        order = dims[0] if isinstance(dims[0], (tuple, list)) else dims
        if self.axis is not None and self.axis in [normal_axis(d, self.ndim) for d in order]:
            where = torch.arange(self.values.shape[self.axis] - 1, -1, -1, device=self.device)
            rest = [d for d in order if normal_axis(d, self.ndim) != self.axis]
            return self.index_select(self.axis, where).flip(rest)
        return self.with_values(self.values.flip(*dims))

    def __getitem__(self, index: Any) -> QTensor:
        values = self.values[index]
        if self.axis is None:
            return self.with_values(values)
        channels, axis = index_channels(index, self.axis, self.values.dim())
        return self._channels(values, channels, axis)

    def __iter__(self) -> Iterator[QTensor]:
        return iter(self.unbind())

    def select(self, dim: int, index: int) -> QTensor:
        return self[(slice(None),) * normal_axis(dim, self.ndim) + (index,)]

    def narrow(self, dim: int, start: int, length: int) -> QTensor:
        self.values.narrow(dim, start, length)  # its errors
        start = start % self.values.shape[dim] if start < 0 else start
        return self[(slice(None),) * normal_axis(dim, self.ndim) + (slice(start, start + length),)]

    def index_select(self, dim: int, index: Tensor) -> QTensor:
        values = self.values.index_select(dim, index)
        if self.axis is not None and normal_axis(dim, self.ndim) == self.axis:
            return self._channels(values, index, self.axis)
        return self.with_values(values)

    def split(self, split_size: int | list[int], dim: int = 0) -> tuple[QTensor, ...]:
        parts, start = [], 0
        for part in self.values.split(split_size, dim):
            parts.append(self.narrow(dim, start, part.shape[dim]))
            start += part.shape[dim]
        return tuple(parts)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[QTensor, ...]:
        sizes = [part.shape[dim] for part in self.values.chunk(chunks, dim)]
        return self.split(sizes, dim)

    def unbind(self, dim: int = 0) -> tuple[QTensor, ...]:
        return tuple(self.select(dim, index) for index in range(self.values.shape[dim]))

    def _reshaped(self, values: Tensor) -> QTensor:
        if self.axis is None:
            return self.with_values(values)
        axis = axis_after_reshape(self.axis, self.values.shape, values.shape)
        if axis is None and self.values.shape[self.axis] == 1:
            return self._channels(values, 0, None)
        if axis is None:
            raise ValueError(
                f"{tuple(self.values.shape)} with channels along axis {self.axis} does not keep "
                f"them together as {tuple(values.shape)}; dequantize() first"
            )
        return QTensor(values, self.scale, self.zero_point, axis)

    def _channels(self, values: Tensor, channels: Any, axis: int | None) -> QTensor:
        """``values`` with the scales of ``channels`` along ``axis``; of one channel if None."""
        scales, zero_points = self.q_per_channel_scales(), self.q_per_channel_zero_points()
        if axis is not None:
            return QTensor(values, scales[channels], zero_points[channels], axis)
        if zero_points.is_floating_point():
            raise ValueError(
                "one channel of a tensor with real zero points is none with an integer zero "
                "point; select it as a slice of length 1, or dequantize() first"
            )
        return QTensor(values, scales[channels].item(), int(zero_points[channels].item()))

    # Comparing, calculating, printing, copying.

    def __eq__(self, other: object) -> Any:
        return self._compare(torch.eq, other)

    def __ne__(self, other: object) -> Any:
        return self._compare(torch.ne, other)

    def __lt__(self, other: object) -> Any:
        return self._compare(torch.lt, other)

    def __le__(self, other: object) -> Any:
        return self._compare(torch.le, other)

    def __gt__(self, other: object) -> Any:
        return self._compare(torch.gt, other)

    def __ge__(self, other: object) -> Any:
        return self._compare(torch.ge, other)

    def _compare(self, compare: Callable[..., Tensor], other: object) -> Any:
        if isinstance(other, QTensor):
            return compare(self.dequantize(), other.dequantize())
        if isinstance(other, (Tensor, int, float)):
            return compare(self.dequantize(), other)
        return NotImplemented

    def _refuse(self, other: object) -> Any:
        raise TypeError(
            "arithmetic of a QTensor needs the scale and zero point of its result: FloatFunctional "
            "or QFunctional of lowbit.nn.quantized have them (add, mul, add_scalar, mul_scalar); "
            "q.dequantize() gives a float tensor"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = _refuse

    def equal(self, other: QTensor) -> bool:
        """Whether shape, integers, scale, zero point and axis are all the same."""
        return (
            isinstance(other, QTensor)
            and self.axis == other.axis
            and torch.equal(self.values, other.values)
            and self.values.dtype == other.values.dtype
            and same(self.scale, other.scale)
            and same(self.zero_point, other.zero_point)
        )

    def same_qparams(self, other: QTensor) -> bool:
        """Whether dtype, scale, zero point and axis are the same."""
        return (
            self.values.dtype == other.values.dtype
            and self.axis == other.axis
            and same(self.scale, other.scale)
            and same(self.zero_point, other.zero_point)
        )

    def __repr__(self) -> str:
        # Some lines: integers as torch prints them, and what they are worth.
        values = repr(self.values).replace("tensor(", "QTensor(", 1)[:-1]
        values = values.replace("\n ", "\n  ")
        if f"dtype={self.values.dtype}" not in values:
            values += f", dtype={self.values.dtype}"
        if self.axis is None:
            return f"{values}, scale={self.scale}, zero_point={self.zero_point})"
        scales = self.q_per_channel_scales().tolist()
        zero_points = self.q_per_channel_zero_points().tolist()
        return f"{values}, scale={scales}, zero_point={zero_points}, axis={self.axis})"

    def __reduce__(self) -> tuple[Any, ...]:
        return QTensor, (self.values, self.scale, self.zero_point, self.axis)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in FUNCTIONS:
            return FUNCTIONS[func](*args, **(kwargs or {}))
        raise TypeError(
            f"{getattr(func, '__name__', func)} of a QTensor is not defined: its result would "
            "need a scale and a zero point. lowbit.nn.quantized has the functions that take "
            "them; q.dequantize() gives a float tensor, q.int_repr() the integers"
        )


def same(a: float | Tensor, b: float | Tensor) -> bool:
    """Whether two scales or zero points, numbers or vectors, are equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b


def _vectors(
    scale: float | Tensor, zero_point: int | Tensor, channels: int
) -> tuple[Tensor, Tensor]:
    """Scales and zero points in the dtypes of a per-channel QTensor, one for each channel."""
    scales, zero_points = torch.as_tensor(scale), torch.as_tensor(zero_point)
    for name, vector in (("scales", scales), ("zero points", zero_points)):
        if vector.shape != (channels,):
            raise ValueError(f"{channels} channels with {name} of shape {tuple(vector.shape)}")
    if zero_points.is_floating_point():
        return scales.float(), zero_points.float()
    return scales.double(), zero_points.long()
