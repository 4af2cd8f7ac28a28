"""The base of fake quantization: what is switched on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.observers._factory import WithArgs


class FakeQuantizeBase(WithArgs, nn.Module):
    """A module that observes its input and rounds it to a grid; either can be switched off.

    ``observer_enabled`` and ``fake_quant_enabled`` are buffers of one element, so that they are
    saved and follow the model. ``calculate_qparams()`` returns scale and zero point.
    """

    fake_quant_enabled: Tensor
    observer_enabled: Tensor

    def __init__(self) -> None:
        super().__init__()
        # uint8, since NCCL has no bool.
        self.register_buffer("fake_quant_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("observer_enabled", torch.ones(1, dtype=torch.uint8))
        self._switches = {"fake_quant_enabled": True, "observer_enabled": True}
        self._read: dict[str, tuple[Tensor, int]] = {}

    def is_on(self, switch: str) -> bool:
        """The value of a switch, which is read from its buffer once for each of its versions.

        Reading a buffer of a GPU waits for it, and under torch.compile breaks the graph.
        """
        if not torch.compiler.is_compiling():
            buffer: Tensor = getattr(self, switch)
            version = -1 if buffer.is_inference() else buffer._version
            seen = self._read.get(switch)
            if seen is None or seen[0] is not buffer or seen[1] != version or version < 0:
                self._switches[switch] = bool(buffer)
                self._read[switch] = (buffer, version)
        return self._switches[switch]

    def _set(self, switch: str, enabled: bool) -> None:
        getattr(self, switch).fill_(int(enabled))
        self._switches[switch] = bool(enabled)

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Round from now on."""
        self._set("fake_quant_enabled", enabled)

    def disable_fake_quant(self) -> None:
        """Hand inputs on as they are from now on."""
        self.enable_fake_quant(False)

    def enable_observer(self, enabled: bool = True) -> None:
        """Follow the range of the inputs from now on."""
        self._set("observer_enabled", enabled)

    def disable_observer(self) -> None:
        """Keep scale and zero point as they are from now on."""
        self.enable_observer(False)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} needs calculate_qparams()")


def _has_switches(module: Any) -> bool:
    """Whether it is a fake quantizer: lowbit's, or torch.ao's in a qconfig of theirs."""
    return hasattr(module, "fake_quant_enabled") and hasattr(module, "disable_observer")


def enable_fake_quant(module: Any) -> None:
    """``model.apply(enable_fake_quant)``: every fake quantizer rounds from now on."""
    if _has_switches(module):
        module.enable_fake_quant()


def disable_fake_quant(module: Any) -> None:
    """``model.apply(disable_fake_quant)``: no fake quantizer rounds from now on."""
    if _has_switches(module):
        module.disable_fake_quant()


def enable_observer(module: Any) -> None:
    """``model.apply(enable_observer)``: every fake quantizer follows the range from now on."""
    if _has_switches(module):
        module.enable_observer()


def disable_observer(module: Any) -> None:
    """``model.apply(disable_observer)``: all grids stay as they are from now on."""
    if _has_switches(module):
        module.disable_observer()
