"""What a quantizer is, and the one autograd Function that serves all of them."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lowbit.functional.sign import sign, ternary_sign
from lowbit.quantizers._check import one_of


class PseudoGradient(torch.autograd.Function):
    """``quantizer.value(x)`` forward, ``quantizer.pull(gradient, x)`` backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, quantizer: Quantizer) -> Tensor:
        value = quantizer.value(x)
        if torch.compiler.is_compiling():
            # torch 2.11 compiles a Function that ends in a dtype conversion without effect to
            # one without a gradient.
            return value.clone()
        return x.view_as(x) if value is x else value  # autograd refuses the input itself

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

    made_for            "input", "weight" or "gradient", what its source quantizes with it, or
                        "either" of the first two; layers take any for all
    bits                how many bits code one output value (32: full precision)
    signed              whether the codes are signed; with a zero point, values may be either way
    levels              the output values where data and parameters do not move them, else None
    two_level           whether there are two values (per tensor or per channel, however scaled)
    deterministic       whether the same input gives the same output
    slope_reads_input   False where the slope is 1 everywhere, so that nothing need be kept
    value_is_sign       whether ``value`` is exactly ``sign(x)``
    act_scale           whether the layer is to multiply its output by the mean magnitude of its
                        inputs
    mixes               whether a value is made of the elements around as well, as by a rotation,
                        so that it is no curve over its own element
    """

    name: ClassVar[str]
    made_for: ClassVar[str] = "either"
    bits: int = 32
    signed: bool = True
    levels: tuple[float, ...] | None = None
    deterministic: bool = True
    slope_reads_input: bool = True
    value_is_sign: bool = False
    act_scale: bool = False
    mixes: ClassVar[bool] = False

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
        return gradient * self.slope(x) if self.slope_reads_input else gradient

    def forward(self, x: Tensor) -> Tensor:
        return PseudoGradient.apply(x, self)

    def sign_scale(self, x: Tensor) -> Tensor | None:
        """The scale, one or one for each channel, with ``value(x) = scale * sign(x)``.

        None where the value is not made so. With it, layers work on signs and scale the result.
        """
        return None

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
    def is_nonlinearity(self) -> bool:
        """Whether a network needs no other nonlinearity in front of it: with one or two bits."""
        return self.bits <= 2

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
        """The arguments that are not the defaults."""
        arguments = inspect.signature(type(self)).parameters
        given = {key: getattr(self, key) for key in arguments}
        return ", ".join(f"{k}={v!r}" for k, v in given.items() if v != arguments[k].default)


class SignBased(Quantizer):
    """Base of the quantizers whose values are made of signs, which they take by ``signs``.

    Arguments: ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Many methods were published with torch.sign, where the sign of 0 is 0: a third value, which
    "ternary" keeps, at the price of a second bit. It changes no slope.
    """

    bits = 1

    def __init__(self, sign_zero: str = "plus") -> None:
        super().__init__()
        one_of(type(self).__name__, "sign_zero", sign_zero, ("plus", "ternary"))
        self.sign_zero = sign_zero
        if sign_zero == "ternary":
            self.bits = 2
            if self.levels is not None:
                self.levels = (-1.0, 0.0, 1.0)

    def signs(self, x: Tensor) -> Tensor:
        """The signs of x, with ``sign_zero`` for both zeros; NaN stays NaN."""
        return sign(x) if self.sign_zero == "plus" else ternary_sign(x)


class SignQuantizer(SignBased):
    """Base of the quantizers whose value is ``sign(x)`` and which differ in the slope only.

    Arguments: ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).
    """

    levels = (-1.0, 1.0)

    @property
    def value_is_sign(self) -> bool:  # type: ignore[override]
        return self.sign_zero == "plus"

    def value(self, x: Tensor) -> Tensor:
        return self.signs(x)


def inside(x: Tensor, bound: float) -> Tensor:
    """1 where |x| <= bound, else 0, in x's dtype: the clip of a straight-through estimator."""
    return (x.abs() <= bound).to(x.dtype)
