"""The weight and the bias of a dynamic layer, in plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.functional.int8.dynamic import Matrix
from lowbit.nn.quantized._observed import as_qtensor
from lowbit.qtensor import QTensor, plain_dtype


def weight_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """``torch.int8`` (also as ``torch.qint8``, ``"int8"``, …) or ``torch.float16``; ValueError."""
    if str(dtype).removeprefix("torch.") == "float16":
        return torch.float16
    plain = None
    if str(dtype).removeprefix("torch.") in ("int8", "qint8"):
        plain = plain_dtype(dtype)
    if plain is None:
        raise ValueError(f"weights of dynamic layers are int8 (qint8) or float16, not {dtype}")
    return plain


class QuantizedParams(nn.Module):
    """An int8 weight with its scale and zero point, or a float16 one, and a float32 bias.

    weight      int8 or float16
    scale       float64: one number, or one for each output channel, along ``axis``; None: float16
    zero_point  int64 in the shape of ``scale``
    bias        float32 (channels,) or None

    They start at random, the bias at 0. ``model.half()`` and the like leave their dtypes alone.
    In a ``state_dict`` they are entries of the layer that this is part of, and are named after
    what they are: ``weight, weight_scale, weight_zero_point, bias`` and then ``suffix``, such as
    ``weight_ih_l0, weight_ih_l0_scale, …``.
    """

    weight: Tensor
    scale: Tensor | None
    zero_point: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        shape: Sequence[int],
        bias: int | None,
        dtype: torch.dtype | str,
        *,
        axis: int = 0,
        suffix: str = "",
        device: Any = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.suffix = suffix
        dtype = weight_dtype(dtype)
        inputs = max(math.prod(shape) // max(shape[axis], 1), 1)
        step = 1 / (127 * math.sqrt(inputs))
        weight = torch.randint(-127, 128, tuple(shape), device=device)
        integers = dtype == torch.int8
        self._hold("weight", (weight if integers else weight * step).to(dtype))
        scale = torch.tensor(step, dtype=torch.float64, device=device) if integers else None
        self._hold("scale", scale)
        self._hold("zero_point", torch.tensor(0, device=device) if integers else None)
        self._hold("bias", None if bias is None else torch.zeros(bias, device=device))

    def _hold(self, name: str, value: Tensor | None) -> None:
        """Set a buffer, or None in its place."""
        if value is not None and value.is_inference():
            # It would not count what is written to it, by which packed weights stay up to date.
            with torch.inference_mode(False):
                value = value.clone()
        # torch.export, up to 2.15 at least, miscounts buffers after one that is None.
        self._buffers.pop(name, None)
        self.__dict__.pop(name, None)
        if value is None:
            self.__dict__[name] = None
        else:
            self.register_buffer(name, value, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """``torch.int8`` or ``torch.float16``."""
        return self.weight.dtype

    def matrix(self) -> Matrix:
        """As ``lowbit.functional.int8.dynamic`` takes them."""
        return Matrix(self.weight, self.scale, self.zero_point, self.bias)

    def get(self) -> QTensor | Tensor:
        """The weight with its scale; a float16 one as it is."""
        if self.scale is None or self.zero_point is None:
            return self.weight
        if self.scale.ndim:
            return QTensor(self.weight, self.scale, self.zero_point, self.axis)
        return QTensor(self.weight, self.scale.item(), int(self.zero_point.item()))

    def set(self, weight: QTensor | Tensor, bias: Tensor | None) -> None:
        """Take copies of a QTensor of int8 (a float tensor where the weight is float16) and a bias.

        TypeError for a weight of another dtype, ValueError for one of another shape, and for one
        whose scales lie along another axis than that of the output's channels.
        """
        scale, zero_point = None, None
        if self.dtype == torch.float16:
            if isinstance(weight, QTensor) or not weight.is_floating_point():
                raise TypeError(f"the weight of this layer is float16, not {weight.dtype}")
            limit = torch.finfo(torch.float16).max
            values = weight.clamp(-limit, limit).half()
        else:
            weight = as_qtensor(weight)
            values = weight.values
            if values.dtype != torch.int8:
                raise TypeError(f"the weight of this layer is int8, not {values.dtype}")
            if weight.axis not in (None, self.axis):
                raise ValueError(
                    f"the weight has scales along axis {weight.axis}; the channels of the output "
                    f"lie along axis {self.axis}"
                )
            scale = torch.as_tensor(weight.scale, dtype=torch.float64)
            zero_point = torch.as_tensor(weight.zero_point, dtype=torch.int64)
        if values.shape != self.weight.shape:
            raise ValueError(
                f"a weight of shape {tuple(values.shape)}; that of this layer is "
                f"{tuple(self.weight.shape)}"
            )
        for name, value in (
            ("weight", values),
            ("scale", scale),
            ("zero_point", zero_point),
            ("bias", None if bias is None else bias.float()),
        ):
            copy = None if value is None else value.detach().to(values.device, copy=True)
            self._hold(name, None if copy is None else copy.contiguous())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self

    def keys(self, owner: str) -> dict[str, str]:
        """Names of the parts -> keys in a state dict, after the prefix of the owner."""
        weight = f"{owner}weight{self.suffix}"
        return {
            "weight": weight,
            "scale": f"{weight}_scale",
            "zero_point": f"{weight}_zero_point",
            "bias": f"{owner}bias{self.suffix}",
        }

    def save(self, destination: MutableMapping[str, Any], owner: str) -> None:
        """Put the parts into a state dict."""
        for name, key in self.keys(owner).items():
            value = getattr(self, name)
            if value is not None:
                destination[key] = value

    def load(self, state_dict: dict[str, Any], owner: str) -> list[str]:
        """Take copies of the parts out of a state dict; the keys that are missing.

        TypeError and ValueError as ``set``, of which nothing is taken then.
        """
        keys = self.keys(owner)
        parts = {name: state_dict.pop(key, None) for name, key in keys.items()}
        missing = [
            keys[name]
            for name, value in parts.items()
            if value is None and getattr(self, name) is not None
        ]
        if missing:
            return missing
        weight, scale, zero_point = parts["weight"], parts["scale"], parts["zero_point"]
        if scale is not None and zero_point is not None:
            if scale.ndim:
                weight = QTensor(weight, scale, zero_point, self.axis)
            else:
                weight = QTensor(weight, scale.item(), int(zero_point.item()))
        device = self.weight.device
        self.set(weight, parts["bias"])
        if device.type != "meta":
            self.to(device)
        return []
