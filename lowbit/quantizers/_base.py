"""What a quantizer is, and the one autograd Function that serves all of them."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lowbit.functional.sign import sign


class PseudoGradient(torch.autograd.Function):
    """``quantizer.value(x)`` forward, ``quantizer.pull(gradient, x)`` backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, quantizer: Quantizer) -> Tensor:
        value = quantizer.value(x)
        # torch 2.11 compiles a Function that ends in a dtype conversion without effect to one
        # without a gradient.
        return value.clone() if torch.compiler.is_compiling() else value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Quantizer], output: Tensor) -> None:
        x, ctx.quantizer = inputs
        if ctx.quantizer.slope_reads_input:
            ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x = ctx.saved_tensors[0] if ctx.quantizer.slope_reads_input else gradient
        return ctx.quantizer.pull(gradient, x), None


class Quantizer(nn.Module):
    """A function to few values, with a slope that stands in for its derivative.

    Two facts make one: ``value(x)``, what comes out, and ``slope(x)``, the pretended
    derivative; both keep shape and dtype. Called as a module it returns ``value(x)``, and its
    gradient is ``gradient * slope(x)``. A method with parameters of its own, or whose gradient
    crosses elements, overrides ``forward`` with plain differentiable torch instead (and still
    writes ``value`` and ``slope``, which are then its output and the diagonal of its
    derivative: that is what is drawn).

    Arguments of ``__init__`` are kept as attributes of the same names: ``repr`` and ``spec``
    read them.

    Facts, read by layers and by conversion:

    bits                how many bits code one output value (32: full precision)
    signed              whether the codes are signed; with a zero point, values may be either way
    levels              the output values where data and parameters do not move them, else None
    two_level           whether there are two values (per tensor or per channel, however scaled)
    deterministic       whether the same input gives the same output
    slope_reads_input   False where the slope is 1 everywhere, so that nothing need be kept
    value_is_sign       whether ``value`` is exactly ``sign(x)``
    """

    name: ClassVar[str]
    bits: int = 32
    signed: bool = True
    levels: tuple[float, ...] | None = None
    deterministic: bool = True
    slope_reads_input: bool = True
    value_is_sign: bool = False

    # The axis of the channels, for methods with a value per channel. Layers set it, negative
    # for their input (so that an unbatched input has it too).
    axis: int = 0

    def __init__(self) -> None:
        super().__init__()

    def value(self, x: Tensor) -> Tensor:
        """What comes out for x: same shape, same dtype."""
        raise NotImplementedError(f"{type(self).__name__} needs value(x)")

    def slope(self, x: Tensor) -> Tensor:
        """The pretended derivative at x: same shape, same dtype."""
        raise NotImplementedError(f"{type(self).__name__} needs slope(x)")

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        """``gradient * slope(x)``; overridden only where the same numbers come faster."""
        return gradient * self.slope(x)

    def forward(self, x: Tensor) -> Tensor:
        return PseudoGradient.apply(x, self)

    def bind(self, channels: int, axis: int) -> None:
        """Told once, by the layer that owns this quantizer, how its tensor is laid out.

        ``channels`` along ``axis``. Methods with learned values per channel make their
        parameters here.
        """
        self.axis = axis

    def set_progress(self, fraction: float) -> None:
        """Follow the training: ``fraction`` is epoch / epochs, from 0 at the start to 1.

        Nothing for most; ``ede``, ``recu``, ``reste``, ``progressive_sign`` … change their
        slope. What changes is a buffer, so that it is in every checkpoint.
        """

    @property
    def two_level(self) -> bool:
        return self.bits == 1

    @property
    def pad_value(self) -> float:
        """What a convolution pads this quantizer's output with unless told otherwise.

        -1 where the values are exactly -1 and +1, so that padding adds no third value; else 0.
        """
        return -1.0 if self.levels == (-1.0, 1.0) else 0.0

    @property
    def is_local(self) -> bool:
        """Whether ``value`` and ``pull`` say everything, so that a layer may recompute them."""
        return type(self).forward is Quantizer.forward

    @property
    def spec(self) -> dict[str, Any]:
        """The mapping that makes an equal quantizer: ``{"name": …, argument: value, …}``."""
        arguments = inspect.signature(type(self)).parameters
        return {"name": self.name, **{key: getattr(self, key) for key in arguments}}

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.spec.items() if k != "name")


class SignQuantizer(Quantizer):
    """Base of the quantizers whose value is ``sign(x)`` and which differ in the slope only."""

    bits = 1
    levels = (-1.0, 1.0)
    value_is_sign = True

    def value(self, x: Tensor) -> Tensor:
        return sign(x)


def inside(x: Tensor, bound: float) -> Tensor:
    """1 where |x| <= bound, else 0, in x's dtype: the clip of a straight-through estimator."""
    return (x.abs() <= bound).to(x.dtype)
