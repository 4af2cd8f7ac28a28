"""Fake quantization by an observer: round in training as the converted network will."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit.functional.int8.fake_quantize import fake_quantize
from lowbit.observers._base import UniformQuantizationObserverBase
from lowbit.observers._kinds import bare
from lowbit.observers._switches import FakeQuantizeBase
from lowbit.observers.moving_average import (
    MovingAverage,
    MovingAverageMinMaxObserver,
)
from lowbit.observers.silent import FixedQParamsObserver


class FakeQuantize(FakeQuantizeBase):
    """Observe x, then round it to the grid that the observer gives.

    y = (clamp(round(x * (1/scale)) + zero_point, quant_min, quant_max) - zero_point) * scale

    and the gradient to x where the code was in range, else 0
    (``lowbit.functional.int8.fake_quantize``). Scale and zero point are the observer's
    ``calculate_qparams()``, which conversion uses as well: what was trained is what runs.

    Arguments: ``observer``: a class of ``lowbit.observers``, or one with arguments
    (``MinMaxObserver.with_args(…)``); all others are its arguments.

    The gradient takes no account of the scale's dependence on x. Elements beyond 2^63 scales,
    infinities among them, may come out at the wrong end where there is a scale per channel.

    >>> fake = FakeQuantize(quant_min=0, quant_max=3)
    >>> fake(torch.tensor([0.0, 0.4, 3.0]))
    tensor([0., 0., 3.])
    >>> fake.scale, fake.zero_point
    (tensor([1.]), tensor([0], dtype=torch.int32))
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        observer: Any = MovingAverageMinMaxObserver,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_dynamic: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        if quant_min is not None or quant_max is not None:
            observer_kwargs.update(quant_min=quant_min, quant_max=quant_max)
        if is_dynamic:
            observer_kwargs["is_dynamic"] = True
        self.activation_post_process = observer(**observer_kwargs)
        qscheme = bare(getattr(self.activation_post_process, "qscheme", None))
        ranged = getattr(self.activation_post_process, "quant_min", None) is not None
        if not ranged or not qscheme.startswith(("per_tensor", "per_channel")):
            raise ValueError(
                f"{type(self.activation_post_process).__name__} has no grid to round to: fake "
                "quantization needs an observer such as MovingAverageMinMaxObserver"
            )
        self.qscheme = self.activation_post_process.qscheme
        self.is_per_channel = qscheme.startswith("per_channel")
        self.dtype = self.activation_post_process.dtype
        self.quant_min: int = self.activation_post_process.quant_min
        self.quant_max: int = self.activation_post_process.quant_max
        self.is_dynamic: bool = self.activation_post_process.is_dynamic
        self.ch_axis: int = getattr(self.activation_post_process, "ch_axis", -1)
        whole = torch.float32 if qscheme.endswith("float_qparams") else torch.int32
        device = (observer_kwargs.get("factory_kwargs") or {}).get("device")
        self.register_buffer("scale", torch.ones(1, device=device))
        self.register_buffer("zero_point", torch.zeros(1, dtype=whole, device=device))

    @property
    def bits(self) -> int:
        """How many bits the integers in use take."""
        return (self.quant_max - self.quant_min).bit_length()

    def bind(self, channels: int, axis: int) -> None:
        """Told once, by the layer that owns this, how its tensor is laid out.

        Then no forward changes the shape of a buffer, and torch.compile makes one graph of it.
        """
        observer = self.activation_post_process
        if self.is_per_channel and axis == self.ch_axis and hasattr(observer, "bind"):
            observer.bind(channels)
            self._resize(torch.Size([channels]))

    def _resize(self, shape: torch.Size) -> None:
        if self.scale.shape != shape:
            self.scale.resize_(shape).fill_(1)
            self.zero_point.resize_(shape).zero_()

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The observer's scale and zero point."""
        return self.activation_post_process.calculate_qparams()

    def observe(self, x: Tensor) -> None:
        """Let the observer see x, and follow its grid."""
        observer = self.activation_post_process
        observer(x.detach())
        if x.numel() == 0:
            return
        if isinstance(observer, UniformQuantizationObserverBase):
            scale, zero_point = observer.current()
        else:
            scale, zero_point = observer.calculate_qparams()
        self._resize(scale.shape)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_on("observer_enabled"):
            self.observe(x)
        if not self.is_on("fake_quant_enabled"):
            return x
        low, high = self.quant_min, self.quant_max
        if torch.compiler.is_compiling():
            # torch's operators cannot be traced with sizes that vary, and are not fused.
            axis = self.ch_axis if self.is_per_channel else None
            return fake_quantize(x, self.scale, self.zero_point, low, high, axis)
        if self.is_per_channel:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.ch_axis, low, high
            )
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, low, high)

    def extra_repr(self) -> str:
        return (
            f"fake_quant_enabled={bool(self.fake_quant_enabled)}, "
            f"observer_enabled={bool(self.observer_enabled)}, "
            f"quant_min={self.quant_min}, quant_max={self.quant_max}, dtype={bare(self.dtype)}, "
            f"qscheme={bare(self.qscheme)}, ch_axis={self.ch_axis}, "
            f"scale={self.scale}, zero_point={self.zero_point}"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any
    ) -> None:
        for name in ("scale", "zero_point"):
            saved = state_dict.get(prefix + name)
            own: Tensor = getattr(self, name)
            if saved is not None and own.shape != saved.shape:
                own.resize_(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)


class FusedMovingAvgObsFakeQuantize(FakeQuantize):
    """``FakeQuantize`` with an observer of moving averages.

    The name stands for torch.ao's fused operator, whose symmetric scale, max(|min|/128, max/127),
    is not the one that torch.ao converts with. Here both are one: max(|min|, max) / 127.5.
    """

    def __init__(
        self,
        observer: Any = MovingAverageMinMaxObserver,
        quant_min: int | None = 0,
        quant_max: int | None = 255,
        is_dynamic: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__(observer, quant_min, quant_max, is_dynamic, **observer_kwargs)
        if not isinstance(self.activation_post_process, MovingAverage):
            raise ValueError(
                "FusedMovingAvgObsFakeQuantize needs MovingAverageMinMaxObserver or "
                "MovingAveragePerChannelMinMaxObserver, not "
                f"{type(self.activation_post_process).__name__}; FakeQuantize takes any observer"
            )


class FixedQParamsFakeQuantize(FakeQuantize):
    """``FakeQuantize`` with the scale and zero point of a ``FixedQParamsObserver``."""

    def __init__(self, observer: Any) -> None:
        super().__init__(observer=observer)
        if not isinstance(self.activation_post_process, FixedQParamsObserver):
            raise ValueError(
                "FixedQParamsFakeQuantize needs a FixedQParamsObserver, not "
                f"{type(self.activation_post_process).__name__}"
            )
        self.scale.copy_(self.activation_post_process.scale)
        self.zero_point.copy_(self.activation_post_process.zero_point)
