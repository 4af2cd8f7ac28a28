"""The fast eager path of layers with quantizers: one autograd Function for the whole layer.

It keeps the input and the latent weight as they came, which is what the float layer keeps, and
quantizes them again in backward: cheaper than keeping a second copy of every activation. What
it computes is the specification, ``layer._op(q_in(x), q_w(weight), bias)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from lowbit.functional.clip import cancel_gradient, clip_gradient
from lowbit.nn._gpu_signs import padded_signs, usable
from lowbit.nn._scratch import scratch
from lowbit.quantizers import Quantizer

if TYPE_CHECKING:
    from lowbit.nn._layer import QuantizedLayer

Gradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]


def may_fuse(layer: QuantizedLayer, x: Tensor) -> bool:
    """Whether this call may take the fused path.

    Not while compiling or exporting (the compiler fuses by itself, from the specification), nor
    under functorch transforms, nor for tensor subclasses.
    """
    return (
        layer.fused
        and not torch.compiler.is_compiling()
        and type(x) is Tensor
        and type(layer._parameters.get("weight")) is nn.Parameter
        and x.device.type != "meta"
        and _one_dtype(x, layer.weight)
        and not torch._C._are_functorch_transforms_active()
        and layer._fusible(x)
    )


def _one_dtype(x: Tensor, weight: Tensor) -> bool:
    """Whether input and weight are of one dtype, or will be under autocast."""
    if x.dtype == weight.dtype:
        return True
    # Autocast leaves float64 alone.
    autocast = torch.is_autocast_enabled(x.device.type)
    return autocast and torch.float64 not in (x.dtype, weight.dtype)


@contextlib.contextmanager
def in_modes(modes: list[tuple[Quantizer, bool]]) -> Iterator[None]:
    """The quantizers in training or evaluation mode, as they were when forward ran."""
    changed = [(quantizer, mode) for quantizer, mode in modes if quantizer.training != mode]
    for quantizer, mode in changed:
        quantizer.train(mode)
    try:
        yield
    finally:
        for quantizer, mode in changed:
            quantizer.train(not mode)


def may_recompute(quantizer: Quantizer | None) -> bool:
    """Whether backward may compute the quantizer's output again instead of keeping it."""
    return quantizer is None or (
        quantizer.is_local
        and quantizer.deterministic
        and not quantizer._forward_hooks
        and not quantizer._forward_pre_hooks
        and not quantizer._backward_hooks
        and not quantizer._backward_pre_hooks
    )


class Signs(NamedTuple):
    """What ``signs_of`` finds: whether values are scaled plain signs, and the scale if any.

    ``on_gpu``: they are made by ``padded_signs``.
    """

    plain: bool
    scale: Tensor | None = None
    on_gpu: bool = False


def signs_of(quantizer: Quantizer | None, x: Tensor) -> Signs:
    """Whether values may be had by comparison with 0, which does not see a NaN (a GPU's does)."""
    on_gpu = usable(x)
    if quantizer is None or not (on_gpu or x.device.type == "cpu") or x.numel() == 0:
        return Signs(False)
    scale = None if quantizer.value_is_sign else quantizer.sign_scale(x)
    if not quantizer.value_is_sign and scale is None:
        return Signs(False)
    if on_gpu:
        return Signs(True, scale, on_gpu)
    # A sum is quicker than a maximum, but infinities (or overflow) spoil it too.
    finite = bool(x.sum().isfinite()) or not bool(x.amax().isnan())
    return Signs(finite, scale)


def quantize(
    slot: str,
    quantizer: Quantizer | None,
    x: Tensor,
    signs: Signs,
    dtype: torch.dtype,
    times: float = 1.0,
) -> Tensor:
    """``times * quantizer.value(x)`` in ``dtype``, without a graph; plain signs in scratch memory.

    On a GPU ``times`` is 1 with plain signs.
    """
    if signs.on_gpu:
        codes = padded_signs(x, dtype)
        return codes if signs.scale is None else codes.mul_(signs.scale)
    if signs.plain:
        # A comparison written to floats is vectorised; to bools and back it is not.
        codes = torch.ge(x, 0, out=scratch(slot, x))
        torch.add(x.new_tensor(-times), codes, alpha=2 * times, out=codes)
        return (codes if signs.scale is None else codes.mul_(signs.scale)).to(dtype)
    value = x if quantizer is None else quantizer.value(x)
    return (value if times == 1 else value * times).to(dtype)


def shifted_codes(
    quantizer: Quantizer | None, x: Tensor, signs: Signs, shift: float, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """(codes, factor), codes in ``dtype``, with ``quantizer.value(x) = factor * codes + shift``."""
    if signs.plain and signs.scale is None and shift in (-1, 1):
        compare = torch.ge if shift == -1 else torch.lt
        return compare(x, 0, out=scratch("input", x)).to(dtype), -2 * shift
    value = quantize("input", quantizer, x, signs, dtype)
    return (value if shift == 0 else value - shift), 1.0


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which torch would compute on x here: autocast's, or its own."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


class FusedOp(torch.autograd.Function):
    """Forward and backward of ``layer._op`` with the quantizers that may be recomputed inside."""

    @staticmethod
    def run(layer: QuantizedLayer, x: Tensor) -> Tensor:
        """The layer's output for x; quantizers that may not be recomputed run before."""
        inputs, weights = layer.input_quantization, layer.weight_quantization
        threshold = layer.gradient_cancellation_threshold
        weight = layer.weight
        if not may_recompute(inputs):
            x = layer._quantized_input(x)
            inputs, threshold = None, None
        if not may_recompute(weights):
            weight, weights = layer._quantized_weight(), None
        return FusedOp.apply(x, weight, layer.bias, layer, inputs, weights, threshold)

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer: QuantizedLayer,
        inputs: Quantizer | None,
        weights: Quantizer | None,
        threshold: float | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.layer, ctx.inputs, ctx.weights, ctx.threshold = layer, inputs, weights, threshold
        ctx.dtype = compute_dtype(x)
        ctx.modes = [(q, q.training) for q in (inputs, weights) if q is not None]
        ctx.signs = signs_of(inputs, x), signs_of(weights, weight)
        of_input, of_weight = ctx.signs
        plain = of_input.plain and of_input.scale is None
        ctx.padded = plain and of_input.on_gpu
        if plain and not ctx.padded and of_weight.plain and ctx.dtype == torch.float32:
            y = layer._sign_op(x, weight, of_weight.scale, bias)
            if y is not None:
                return y
        bias = None if bias is None else bias.to(ctx.dtype)
        if ctx.padded:
            return layer._padded_op(
                padded_signs(x, ctx.dtype, *layer._sign_padding()),
                quantize("weight", weights, weight, of_weight, ctx.dtype),
                bias,
            )
        shift = layer._fused_shift(ctx.dtype)
        codes, factor = shifted_codes(inputs, x, of_input, shift, ctx.dtype)
        return layer._fused_op(
            codes, quantize("weight", weights, weight, of_weight, ctx.dtype, factor), bias,
            shift / factor,
        )  # fmt: skip

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        with in_modes(ctx.modes):
            if torch.is_grad_enabled():
                return (*_differentiable_gradients(ctx, gradient), None, None, None, None)
            return (*_gradients(ctx, gradient), None, None, None, None)


def _gradients(ctx: Any, gradient: Tensor) -> Gradients:
    """The gradients to input, weight and bias, from codes made again."""
    x, weight, _ = ctx.saved_tensors
    layer, needed = ctx.layer, ctx.needs_input_grad[:3]
    values = quantize("weight", ctx.weights, weight, ctx.signs[1], ctx.dtype)
    if ctx.padded:
        signs = padded_signs(x, ctx.dtype, *layer._sign_padding())
        dx, dw, db = layer._padded_op_backward(gradient, signs, x, values, needed)
    else:
        shift = layer._fused_shift(ctx.dtype)
        codes, factor = shifted_codes(ctx.inputs, x, ctx.signs[0], shift, ctx.dtype)
        dx, dw, db = layer._fused_op_backward(gradient, codes, values, needed, factor, shift)
    if dx is not None:
        dx = dx.to(x.dtype)
        if ctx.inputs is not None:
            dx = ctx.inputs.pull(dx, x)
        if ctx.threshold is not None:
            dx = clip_gradient(dx, x, ctx.threshold, out=dx)
    if dw is not None:
        dw = dw.to(weight.dtype)
        if ctx.weights is not None:
            dw = ctx.weights.pull(dw, weight)
    return dx, dw, db


def _differentiable_gradients(ctx: Any, gradient: Tensor) -> list[Tensor | None]:
    """The gradients as the specification gives them, with a graph of their own."""
    x, weight, bias = ctx.saved_tensors
    quantized_x = cancel_gradient(x, ctx.threshold)
    if ctx.inputs is not None:
        quantized_x = ctx.inputs(quantized_x)
    quantized_w = weight if ctx.weights is None else ctx.weights(weight)
    bias_ = None if bias is None else bias.to(ctx.dtype)
    y = ctx.layer._op(quantized_x.to(ctx.dtype), quantized_w.to(ctx.dtype), bias_)
    needed = ctx.needs_input_grad[:3]
    wanted = [t for t, need in zip((x, weight, bias), needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]
