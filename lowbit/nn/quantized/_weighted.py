"""What linear layers and convolutions share: an int8 weight with its scales, and a bias."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Self

import torch
from torch import Tensor

from lowbit.nn.quantized._legacy import plain_entries
from lowbit.nn.quantized._observed import as_qtensor
from lowbit.nn.quantized._output import OutputScale
from lowbit.qtensor import QTensor


class WeightedModule(OutputScale):
    """A quantized layer with a weight: ``weight()`` is a QTensor, ``bias()`` float32 or None.

    They are kept as plain tensors, and a ``state_dict`` holds them so: ``weight`` int8,
    ``weight_scale`` float64 and ``weight_zero_point`` int64, both of shape () or (channels,),
    ``bias`` float32 where there is one, ``scale`` and ``zero_point`` of the output. Entries of
    torch.ao's quantized modules, with quantized tensors, load as well while torch has them.
    ``.half()`` and the like leave them alone. ``out_dtype`` is the output's, uint8 or int8; with
    float32 it is a plain tensor, the real sums before they are quantized.
    """

    _weight: Tensor
    _weight_scale: Tensor
    _weight_zero_point: Tensor
    _bias: Tensor | None
    _kernel_scale: Tensor
    _kernel_zero_point: Tensor | None

    channel_axis = 0  # of the weight: scales run along it
    out_dtype: torch.dtype

    def _init_weight(self, shape: tuple[int, ...], channels: int, bias: bool, device: Any) -> None:
        """A weight of zeros with scale 1, and a bias of zeros."""
        self.scale, self.zero_point, self.out_dtype = 1.0, 0, torch.uint8
        values = torch.zeros(shape, dtype=torch.int8, device=device)
        self._hold("_weight", values)
        zeros = torch.zeros(channels, device=device, dtype=torch.float32)
        self.set_weight_bias(QTensor(values, 1.0, 0), zeros if bias else None)

    def _hold(self, name: str, value: Tensor | None) -> None:
        """Set a buffer that _save_to_state_dict names, or None in its place.

        None is no buffer here: torch.export, up to 2.15 at least, miscounts buffers after one.
        """
        self._buffers.pop(name, None)
        self.__dict__.pop(name, None)
        if value is None:
            self.__dict__[name] = None
        else:
            self.register_buffer(name, value, persistent=False)

    def weight(self) -> QTensor:
        """The weight."""
        if self._weight_scale.ndim == 0:
            scale, zero_point = self._weight_scale.item(), int(self._weight_zero_point.item())
            return QTensor(self._weight, scale, zero_point)
        axis = self.channel_axis
        return QTensor(self._weight, self._weight_scale, self._weight_zero_point, axis)

    def bias(self) -> Tensor | None:
        """The bias, in float32."""
        return self._bias

    def _weight_bias(self) -> tuple[QTensor, Tensor | None]:
        return self.weight(), self.bias()

    def set_weight_bias(self, w: QTensor, b: Tensor | None) -> None:
        """Set both; w is int8, per tensor or with a scale for each output channel.

        Raises TypeError for another kind of weight, ValueError for other shapes.
        """
        w = as_qtensor(w)
        name = type(self).__name__
        if w.dtype != torch.int8:
            raise TypeError(f"the weight of {name} is int8, not {w.dtype}")
        if w.shape != self._weight.shape:
            raise ValueError(
                f"the weight of {name} has shape {tuple(self._weight.shape)}, not {tuple(w.shape)}"
            )
        if w.axis not in (None, self.channel_axis):
            raise ValueError(
                f"the weight of {name} has scales along axis {self.channel_axis}, its output "
                f"channels, not along {w.axis}"
            )
        if w.axis is not None and w.q_per_channel_zero_points().is_floating_point():
            raise ValueError(f"the weight of {name} has integer zero points, not real ones")
        device = w.values.device
        self._hold("_weight", w.values.detach())
        scale = torch.as_tensor(w.scale, dtype=torch.float64, device=device)
        zero_point = torch.as_tensor(w.zero_point, dtype=torch.int64, device=device)
        self._hold("_weight_scale", scale.detach())
        self._hold("_weight_zero_point", zero_point.detach())
        # What the arithmetic reads: float32, and no zero points where they are all 0.
        self._hold("_kernel_scale", scale.detach().float())
        shifted = zero_point.is_meta or bool((zero_point != 0).any())
        self._hold("_kernel_zero_point", zero_point.detach() if shifted else None)
        self._hold("_bias", None if b is None else b.detach().float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self

    def _save_to_state_dict(
        self, destination: MutableMapping[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("weight", "weight_scale", "weight_zero_point", "bias"):
            value = getattr(self, "_" + name)
            if value is not None:
                destination[prefix + name] = value

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
        entries = {}
        for key in [key for key in state_dict if key.startswith(prefix)]:
            entries[key.removeprefix(prefix)] = state_dict.pop(key)
        names = ("weight", "weight_scale", "weight_zero_point")
        # Torch's layers take a bias, or none, from what they load.
        plain = "weight_scale" in entries
        entries = plain_entries(entries)
        expected = (*names, "bias") if plain and self._bias is not None else names
        missing = [name for name in expected if name not in entries]
        with_bias = "bias" in entries and not (plain and self._bias is None)
        values, scales, zero_points = (entries.pop(name, None) for name in names)
        bias = entries.pop("bias") if with_bias else None
        if missing and strict:
            missing_keys.extend(prefix + name for name in missing)
        elif not missing:
            try:
                self._load_weight(values, scales, zero_points, bias)
            except (TypeError, ValueError) as error:
                error_msgs.append(f"{prefix.removesuffix('.')}: {error}")
        state_dict.update({prefix + name: value for name, value in entries.items()})
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _load_weight(self, values: Any, scale: Any, zero_point: Any, bias: Tensor | None) -> None:
        """Copies of saved tensors, on the device of this layer, or on theirs if it has none."""
        device = values.device if self._weight.is_meta else self._weight.device
        values, scale, zero_point = (
            part.to(device, copy=True) for part in (values, scale, zero_point)
        )
        if scale.ndim:
            weight = QTensor(values, scale, zero_point, self.channel_axis)
        else:
            weight = QTensor(values, scale.item(), int(zero_point.item()))
        self.set_weight_bias(weight, None if bias is None else bias.to(device, copy=True))
