"""A quantizer of lowbit in the place of a fake quantizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit import quantizers
from lowbit.functional.int8.fake_quantize import fake_quantize
from lowbit.functional.int8.grid import step_of
from lowbit.observers import FakeQuantizeBase


class QuantizerFakeQuantize(FakeQuantizeBase):
    """Fake quantization by a quantizer of the registry: ``int_k`` with 4 bits, ``lsq``, ``sign``.

    Called, it returns the quantizer's output, with its gradient. ``calculate_qparams()`` finds
    scale and zero point of those outputs, so that layers with them convert to int8: every output
    must be a whole number of steps of one size. Off: ``disable_fake_quant()``; a quantizer that
    follows the range of its inputs in training stops with ``disable_observer()``.

    Arguments: ``quantizer``: its name, ``{"name": …, argument: value}`` or an instance.
    """

    qscheme: Any
    quant_min: int
    quant_max: int
    dtype: torch.dtype

    def __init__(self, quantizer: quantizers.Spec, factory_kwargs: Any = None) -> None:
        super().__init__()
        made = quantizers.get(quantizer)
        if made is None:
            raise ValueError("a QConfig names a quantizer, or torch.nn.Identity for none")
        device = (factory_kwargs or {}).get("device")
        self.quantizer = made if device is None else made.to(device)
        self.ch_axis = 0
        self.is_dynamic = False

    @property
    def bits(self) -> int:
        """The quantizer's own bits."""
        return self.quantizer.bits

    def bind(self, channels: int, axis: int) -> None:
        """Told once, by the layer that owns this, how its tensor is laid out."""
        self.ch_axis = axis
        self.quantizer.bind(channels, axis)

    def train(self, mode: bool = True) -> QuantizerFakeQuantize:
        super().train(mode)
        self.quantizer.train(mode and self.is_on("observer_enabled"))
        return self

    def enable_observer(self, enabled: bool = True) -> None:
        super().enable_observer(enabled)
        self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_on("fake_quant_enabled"):
            return x
        return self.quantizer(x)


class WeightQuantizer(QuantizerFakeQuantize):
    """For weights: int8 codes with zero point 0, one scale or one for each channel.

    ``calculate_qparams()`` is that of the weight it was last called with outside of training:
    detached, as conversion does.
    """

    dtype = torch.int8
    quant_min, quant_max = -128, 127

    def __init__(self, quantizer: quantizers.Spec, factory_kwargs: Any = None) -> None:
        super().__init__(quantizer, factory_kwargs)
        self.qscheme = _scheme("per_tensor_symmetric")
        self.is_per_channel = False
        self._last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not x.requires_grad and not torch.compiler.is_compiling():
            self._last = y.detach()
        return y

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        if self._last is None:
            raise ValueError(
                f"the scale of {self.quantizer!r} follows from the weight: call this on "
                "weight.detach() first"
            )
        per_channel = bool(getattr(self.quantizer, "per_channel", False))
        steps = [None if per_channel else _step(self._last)]
        self.is_per_channel = steps[0] is None
        if self.is_per_channel:
            steps = [_step(channel) for channel in self._last.movedim(self.ch_axis, 0)]
        self.qscheme = _scheme(f"per_{'channel' if self.is_per_channel else 'tensor'}_symmetric")
        if None in steps:
            raise ValueError(
                f"the weights of {self.quantizer!r} are not whole numbers, from -128 to 127, of "
                "steps of one size, so that int8 cannot hold them; the layer can stay as it is"
            )
        scale = torch.tensor(steps, dtype=torch.float32, device=self._last.device)
        return scale, torch.zeros(len(steps), dtype=torch.int64, device=scale.device)


def _step(values: Tensor) -> float | None:
    step = step_of(values, 128)
    return None if step is None or values.max().item() > 127.5 * step else step


class ActivationQuantizer(QuantizerFakeQuantize):
    """For activations: uint8 codes, one scale and zero point, the same for every input.

    ``calculate_qparams()`` reads them off the quantizer's outputs for a row of numbers. Raises
    ValueError where its grid follows each input, or its rounding is not to the nearest code.
    """

    dtype = torch.uint8
    quant_min, quant_max = 0, 255

    def __init__(self, quantizer: quantizers.Spec, factory_kwargs: Any = None) -> None:
        super().__init__(quantizer, factory_kwargs)
        self.qscheme = _scheme("per_tensor_affine")
        self.is_per_channel = False
        self.ch_axis = -1

    @torch.no_grad()
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        was_training = self.quantizer.training
        self.quantizer.eval()
        try:
            return self._grid()
        finally:
            self.quantizer.train(was_training)

    def _grid(self) -> tuple[Tensor, Tensor]:
        device = self.fake_quant_enabled.device
        far = torch.tensor([-1e6, 1e6], device=device)
        low, high = self.quantizer(far).double().tolist()
        span = max(high - low, 1e-6)
        probe = torch.linspace(low - span, high + span, 16384, device=device)
        y = self.quantizer(probe)
        if not torch.equal(y, self.quantizer(torch.cat([probe, 3 * probe]))[: len(probe)]):
            raise ValueError(
                f"{self.quantizer!r} follows the range of each input, and int8 needs one grid "
                "for all: use one that learns or averages its range, such as "
                '{"name": "int_k", "range": "moving_average"}'
            )
        step = step_of(y, 255)
        codes = 256 if step is None else round((high - low) / step)
        if step is None or codes > 255 or low > 0 or high < 0:
            raise ValueError(
                f"the outputs of {self.quantizer!r}, from {low:g} to {high:g}, are not 0 and at "
                "most 255 steps of one size more, so that uint8 cannot hold them"
            )
        scale = torch.tensor([step], dtype=torch.float32, device=device)
        zero_point = torch.tensor([round(-low / step)], dtype=torch.int32, device=device)
        self.quant_min, self.quant_max = 0, codes
        rounded = fake_quantize(probe, scale, zero_point, 0, codes)
        steps = probe / scale
        tie = (steps - steps.floor() - 0.5).abs() < 1e-3
        if bool((((rounded - y).abs() > step / 2) & ~tie).any()):
            raise ValueError(
                f"{self.quantizer!r} does not round to the nearest of its values, as int8 "
                "activations do; lowbit.convert runs it on packed bits"
            )
        return scale, zero_point


def _scheme(name: str) -> Any:
    """torch's object while it has one, as those of observers."""
    return getattr(torch, name, name)
