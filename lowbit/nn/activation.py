"""A quantizer as an activation."""

from __future__ import annotations

from torch import Tensor, nn

from lowbit import quantizers
from lowbit.functional.clip import cancel_gradient
from lowbit.nn._layer import checked_threshold
from lowbit.quantizers import Spec


class QActivation(nn.Module):
    """q(x), with the gradient to x 0 where |x| > ``gradient_cancellation_threshold``.

    Any shape, kept. For quantized activations outside of layers: before a pooling, on a
    residual, or between layers that have no input quantizer of their own. ``channels``, where
    the quantizer has a value per channel, is their number along ``axis``.

    >>> import torch
    >>> QActivation("sign")(torch.tensor([-0.5, 0.0, 2.0]))
    tensor([-1.,  1.,  1.])
    """

    def __init__(
        self,
        input_quantization: Spec = "sign",
        gradient_cancellation_threshold: float | None = None,
        *,
        channels: int | None = None,
        axis: int = 1,
    ) -> None:
        super().__init__()
        self.input_quantization = quantizers.get(input_quantization)
        if self.input_quantization is not None and channels is not None:
            self.input_quantization.bind(channels, axis)
        self.gradient_cancellation_threshold = checked_threshold(gradient_cancellation_threshold)

    def forward(self, x: Tensor) -> Tensor:
        x = cancel_gradient(x, self.gradient_cancellation_threshold)
        return x if self.input_quantization is None else self.input_quantization(x)

    def extra_repr(self) -> str:
        threshold = self.gradient_cancellation_threshold
        return "" if threshold is None else f"gradient_cancellation_threshold={threshold:g}"
