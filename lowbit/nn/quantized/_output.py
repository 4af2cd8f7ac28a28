"""The scale and the zero point that a module quantizes its output with."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.qtensor import QTensor


class OutputScale(nn.Module):
    """Mixin of modules whose output has a scale and a zero point of its own.

    ``scale`` and ``zero_point`` are numbers: constants for ``torch.compile``. They may be set to
    tensors of one element. In a ``state_dict`` they are tensors, float64 and int64, without axes;
    shapes and dtypes of torch's quantized modules load as well.

    ``limits`` are the integers that the output is clamped to, None for all of its dtype: a fake
    quantizer of fewer than 8 bits that the module was trained with clamps to its own. In a
    ``state_dict`` they are ``quant_min`` and ``quant_max``, where there are any.
    """

    limits: tuple[int, int] | None = None

    _scale: float
    _zero_point: int

    @property
    def scale(self) -> float:
        """The scale of the output."""
        return self._scale

    @scale.setter
    def scale(self, value: float | Tensor) -> None:
        self._scale = float(value)

    @property
    def zero_point(self) -> int:
        """The zero point of the output."""
        return self._zero_point

    @zero_point.setter
    def zero_point(self, value: int | Tensor) -> None:
        self._zero_point = int(value)

    def _limited(self, y: QTensor) -> QTensor:
        return y if self.limits is None else y.with_values(y.values.clamp(*self.limits))

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def _save_to_state_dict(
        self, destination: MutableMapping[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # On the CPU whatever the default device is: numbers are read from it.
        destination[prefix + "scale"] = torch.tensor(self.scale, dtype=torch.float64, device="cpu")
        numbers = {"zero_point": self.zero_point}
        if self.limits is not None:
            numbers["quant_min"], numbers["quant_max"] = self.limits
        for name, number in numbers.items():
            destination[prefix + name] = torch.tensor(number, dtype=torch.int64, device="cpu")

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name in ("scale", "zero_point"):
            if prefix + name in state_dict:
                setattr(self, name, state_dict.pop(prefix + name))
            elif strict:
                missing_keys.append(prefix + name)
        ends = [state_dict.pop(prefix + name, None) for name in ("quant_min", "quant_max")]
        self.limits = None if None in ends else (int(ends[0]), int(ends[1]))
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )


def float32_scale(scale: float | Tensor) -> float:
    """The scale rounded to float32, as the buffers of torch's normalizations hold it."""
    return float(torch.tensor(float(scale), dtype=torch.float32, device="cpu"))
