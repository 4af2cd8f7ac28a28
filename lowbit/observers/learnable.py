"""Fake quantization whose scale and zero point are trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.functional.int8.fake_quantize import learnable_fake_quantize
from lowbit.functional.int8.qparams import EPS
from lowbit.observers._kinds import bare
from lowbit.observers._switches import FakeQuantizeBase
from lowbit.observers.moving_average import MovingAverageMinMaxObserver


class LearnableFakeQuantize(FakeQuantizeBase):
    """Fake quantization with learned ``scale`` and ``zero_point``, as LSQ and LSQ+.

    Starts with the observer's estimates (``enable_static_estimate``); ``enable_param_learning()``
    switches the observer off, and from then on the optimizer moves both. The gradients are those
    of ``lowbit.functional.int8.fake_quantize.learnable_fake_quantize``, times
    1 / sqrt(N quant_max) with ``use_grad_scaling``, N the number of elements of x. The zero point
    of a symmetric scheme is the observer's, always.

    Arguments: ``observer`` and its arguments; ``quant_min``, ``quant_max``; the ``scale`` and
    ``zero_point`` to start with; ``channel_len``: the number of channels, or -1 per tensor.
    ``calculate_qparams()`` returns the learned scale, and the zero point as an integer.

    Source: LSQ, Esser et al. 2020; LSQ+, Bhalgat et al. 2020.
    """

    static_enabled: Tensor
    learning_enabled: Tensor
    eps: Tensor

    def __init__(
        self,
        observer: Any = MovingAverageMinMaxObserver,
        quant_min: int = 0,
        quant_max: int = 255,
        scale: float = 1.0,
        zero_point: float = 0.0,
        channel_len: int = -1,
        use_grad_scaling: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        if channel_len != -1 and channel_len < 1:
            raise ValueError(
                f"channel_len is the number of channels, or -1 for one scale; got {channel_len}"
            )
        self.activation_post_process = observer(
            quant_min=quant_min, quant_max=quant_max, **observer_kwargs
        )
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.use_grad_scaling = use_grad_scaling
        self.dtype = self.activation_post_process.dtype
        self.qscheme = self.activation_post_process.qscheme
        self.is_per_channel = bare(self.qscheme).startswith("per_channel")
        self.is_symmetric = bare(self.qscheme).endswith("symmetric")
        self.ch_axis: int = getattr(self.activation_post_process, "ch_axis", -1)
        self.bitwidth = (quant_max - quant_min).bit_length()
        size = max(channel_len, 1)
        self.scale = nn.Parameter(torch.full((size,), float(scale)))
        self.zero_point = nn.Parameter(torch.full((size,), float(zero_point)))
        self.register_buffer("static_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("learning_enabled", torch.zeros(1, dtype=torch.uint8))
        self.register_buffer("eps", torch.tensor([EPS]))
        self._switches.update(static_enabled=True, learning_enabled=False)
        self.toggle_qparam_learning(False)

    @property
    def bits(self) -> int:
        """How many bits the integers in use take."""
        return self.bitwidth

    def bind(self, channels: int, axis: int) -> None:
        """Told once, by the layer that owns this, how its tensor is laid out."""
        if self.is_per_channel and axis == self.ch_axis:
            self.activation_post_process.bind(channels)
            for name in ("scale", "zero_point"):
                old: nn.Parameter = getattr(self, name)
                if old.shape != (channels,):
                    new = old.detach().expand(channels).clone()
                    setattr(self, name, nn.Parameter(new, requires_grad=old.requires_grad))

    def enable_param_learning(self) -> LearnableFakeQuantize:
        """Round; scale and zero point learn; the observer rests."""
        return (
            self.toggle_qparam_learning(True).toggle_fake_quant(True).toggle_observer_update(False)
        )

    def enable_static_estimate(self) -> LearnableFakeQuantize:
        """Round; scale and zero point are the observer's."""
        return (
            self.toggle_qparam_learning(False).toggle_fake_quant(True).toggle_observer_update(True)
        )

    def enable_static_observation(self) -> LearnableFakeQuantize:
        """Hand inputs on as they are, and let the observer see them."""
        return (
            self.toggle_qparam_learning(False).toggle_fake_quant(False).toggle_observer_update(True)
        )

    def toggle_observer_update(self, enabled: bool = True) -> LearnableFakeQuantize:
        """Whether scale and zero point follow the observer."""
        self._set("static_enabled", enabled)
        return self

    def toggle_qparam_learning(self, enabled: bool = True) -> LearnableFakeQuantize:
        """Whether scale and zero point have gradients."""
        self._set("learning_enabled", enabled)
        self.scale.requires_grad_(enabled)
        self.zero_point.requires_grad_(enabled and not self.is_symmetric)
        return self

    def toggle_fake_quant(self, enabled: bool = True) -> LearnableFakeQuantize:
        """Whether inputs are rounded."""
        self._set("fake_quant_enabled", enabled)
        return self

    def enable_observer(self, enabled: bool = True) -> None:
        self.toggle_observer_update(enabled)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        observer = self.activation_post_process
        observer(x.detach())
        if x.numel() == 0:
            return
        scale, zero_point = observer.current()
        if self.scale.shape != scale.shape:
            raise ValueError(
                f"a scale of shape {tuple(self.scale.shape)} for an input that needs "
                f"{tuple(scale.shape)}: give channel_len={scale.numel()}"
            )
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The scale in use, and the zero point rounded to an integer within the range."""
        scale = self.scale.detach().clamp_min(self.eps)
        zero_point = self.zero_point.detach().round().clamp(self.quant_min, self.quant_max)
        return scale, zero_point.long()

    def forward(self, x: Tensor) -> Tensor:
        if self.is_on("static_enabled"):
            self._follow(x)
        if not self.is_on("fake_quant_enabled"):
            return x
        factor = 1.0
        if self.use_grad_scaling and x.numel() > 0:
            factor = (x.numel() * self.quant_max) ** -0.5
        # The value is at least eps, whatever the optimizer did; the gradient still moves it.
        least = torch.maximum(self.scale.detach(), self.eps) - self.scale.detach()
        axis = self.ch_axis if self.is_per_channel else None
        return learnable_fake_quantize(
            x, self.scale + least, self.zero_point, self.quant_min, self.quant_max, axis, factor
        )

    def extra_repr(self) -> str:
        return (
            f"quant_min={self.quant_min}, quant_max={self.quant_max}, dtype={bare(self.dtype)}, "
            f"qscheme={bare(self.qscheme)}, ch_axis={self.ch_axis}, "
            f"use_grad_scaling={self.use_grad_scaling}"
        )
