"""What all layers with quantizers share: two quantizers, gradient cancellation, one op."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lowbit import quantizers
from lowbit.functional.clip import cancel_gradient
from lowbit.nn._fused import FusedOp, Gradients, may_fuse
from lowbit.quantizers import Quantizer, Spec


def checked_threshold(threshold: float | None) -> float | None:
    """The threshold as a float; 0 is a threshold, ``None`` switches cancellation off."""
    if threshold is None:
        return None
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise ValueError(
            f"gradient_cancellation_threshold is a number >= 0, or None for off; got {threshold!r}"
        )
    if math.isnan(threshold) or threshold < 0:
        raise ValueError(
            f"gradient_cancellation_threshold must be >= 0 (None switches it off); got {threshold}"
        )
    return float(threshold)


class _QuantizeGradient(torch.autograd.Function):
    """x, whose gradient is ``quantizer(gradient)``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, quantizer: Quantizer) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Quantizer], output: Tensor) -> None:
        _, ctx.quantizer = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.quantizer(gradient), None


class QuantizedLayer(nn.Module):
    """Mixin of the layers that compute ``op(q_in(x), q_w(weight), bias)``.

    The gradient to the input is 0 where |x| > ``gradient_cancellation_threshold``; all gradients
    are made of ``q_g(gradient to the output)`` where there is a ``gradient_quantization``.
    """

    weight: Tensor
    bias: Any
    input_quantization: Quantizer | None
    weight_quantization: Quantizer | None
    gradient_quantization: Quantizer | None
    gradient_cancellation_threshold: float | None

    # Channels of the output and their axis; None where its gradient takes no quantizer.
    output_layout: tuple[int, int] | None = None

    def _set_quantization(
        self,
        input_quantization: Spec,
        weight_quantization: Spec,
        gradient_cancellation_threshold: float | None,
        gradient_quantization: Spec = None,
        *,
        input_layout: tuple[int, int],
        weight_layout: tuple[int, int],
        output_layout: tuple[int, int] | None = None,
    ) -> None:
        """Make this layer's own quantizers; a layout is (number of channels, their axis)."""
        self.output_layout = output_layout
        self._set_quantizer("input_quantization", input_quantization, input_layout)
        self._set_quantizer("weight_quantization", weight_quantization, weight_layout)
        self.set_gradient_quantization(gradient_quantization)
        self.gradient_cancellation_threshold = checked_threshold(gradient_cancellation_threshold)
        if self._is_input_scaled() and type(self)._input_magnitude is (
            QuantizedLayer._input_magnitude
        ):
            raise ValueError(
                f"{type(self).__name__} has no scale by the magnitude of its inputs: "
                "act_scale is for QLinear and QConv1d/2d/3d"
            )

    def _set_quantizer(self, name: str, spec: Spec, layout: tuple[int, int]) -> None:
        quantizer = quantizers.get(spec)
        if quantizer is not None:
            quantizer.bind(*layout)
            quantizer.to(device=self.weight.device, dtype=self.weight.dtype)
        setattr(self, name, quantizer)

    def set_gradient_quantization(self, gradient_quantization: Spec) -> None:
        """Quantize the gradient to the output from now on; ``None``: no longer.

        Raises ``ValueError`` for a quantizer with parameters or buffers, which nothing would train
        and every checkpoint of the layer would need.
        """
        quantizer = quantizers.get(gradient_quantization)
        held = [] if quantizer is None else list(quantizer.state_dict())
        if held:
            raise ValueError(
                f"gradient_quantization={quantizer} keeps {', '.join(held)}, which no gradient "
                "reaches; take one that keeps nothing, such as 'dorefa_gradient'"
            )
        if quantizer is not None and self.output_layout is None:
            raise ValueError(f"{type(self).__name__} takes no gradient_quantization")
        self._set_quantizer("gradient_quantization", quantizer, self.output_layout or (1, -1))

    # Whether calls may take the fast path of _fused.py; False runs the specification.
    fused: bool = True

    def _op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's arithmetic on quantized tensors. The specification."""
        raise NotImplementedError

    def _fusible(self, x: Tensor) -> bool:
        """Whether ``_fused_op`` covers this input."""
        return True

    def _sign_op(
        self, x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None
    ) -> Tensor | None:
        """``_op`` of sign(x) and scale * sign(weight), where there is a faster way; else None."""
        return None

    def _fused_shift(self, dtype: torch.dtype) -> float:
        """The shift of the codes that the fused op takes: input = factor * codes + shift."""
        return 0.0

    def _fused_op(self, codes: Tensor, weight: Tensor, bias: Tensor | None, shift: float) -> Tensor:
        """``_op`` of ``codes + shift``."""
        return self._op(codes, weight, bias)

    def _fused_op_backward(
        self,
        gradient: Tensor,
        codes: Tensor,
        weight: Tensor,
        needed: tuple[bool, bool, bool],
        factor: float,
        shift: float,
    ) -> Gradients:
        """The gradients of ``_op(factor * codes + shift, weight, bias)``, where needed.

        They are those to the quantized input, the weight and the bias.
        """
        raise NotImplementedError

    def _sign_padding(self) -> tuple[tuple[int, int], float]:
        """What ``padded_signs`` puts around the signs of an input: (height, width) and value."""
        return (0, 0), 0.0

    def _padded_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``_op`` of signs that have their padding."""
        return self._op(x, weight, bias)

    def _padded_op_backward(
        self,
        gradient: Tensor,
        signs: Tensor,
        x: Tensor,
        weight: Tensor,
        needed: tuple[bool, bool, bool],
    ) -> Gradients:
        """The gradients of ``_padded_op`` to the signs without their padding, weight and bias."""
        return self._fused_op_backward(gradient, signs, weight, needed, 1.0, 0.0)

    def _quantized_input(self, x: Tensor) -> Tensor:
        x = cancel_gradient(x, self.gradient_cancellation_threshold)
        return x if self.input_quantization is None else self.input_quantization(x)

    def _quantized_weight(self) -> Tensor:
        if self.weight_quantization is None:
            return self.weight
        return self.weight_quantization(self.weight)

    def _with_quantized_gradient(self, y: Tensor) -> Tensor:
        quantizer = self.gradient_quantization
        return y if quantizer is None else _QuantizeGradient.apply(y, quantizer)

    def _is_input_scaled(self) -> bool:
        return self.weight_quantization is not None and self.weight_quantization.act_scale

    def _input_magnitude(self, x: Tensor) -> Tensor:
        """The mean magnitude of the inputs of each output, broadcastable: XNOR-Net's K."""
        raise NotImplementedError

    def _plus_bias(self, y: Tensor) -> Tensor:
        """y with the bias of each channel, for a y that was computed without it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self._with_quantized_gradient(self._output(x))

    def _output(self, x: Tensor) -> Tensor:
        if self._is_input_scaled():
            y = self._op(self._quantized_input(x), self._quantized_weight(), None)
            return self._plus_bias(y * self._input_magnitude(x))
        if may_fuse(self, x):
            return FusedOp.run(self, x)
        return self._op(self._quantized_input(x), self._quantized_weight(), self.bias)

    def extra_repr(self) -> str:
        threshold = self.gradient_cancellation_threshold
        shown = "" if threshold is None else f", gradient_cancellation_threshold={threshold:g}"
        return super().extra_repr() + shown


def latent_layers(model: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    """(name, layer) of every layer of the model whose weight is latent: kept in full precision
    for training and used quantized."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLayer) and module.weight_quantization is not None:
            yield name, module
