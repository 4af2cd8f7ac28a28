from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import sample_axes, standardise, wide
from lowbit.quantizers._straight_through import straight_through


@register("approx_sign")
class ApproxSign(SignQuantizer):
    """Sign, with the slope of a piecewise parabola as its gradient.

    value  +1 if x >= 0 else -1
    slope  2 - 2|x| if |x| <= 1 else 0

    Arguments: ``unit_deviation``: in training, divide x by sqrt(variance + 1e-5) of its sample
    first, as ReCU does with its inputs (default: False). The value does not change, the slope is
    that of the quotient z divided by the deviation, and the gradient goes through the deviation
    too. ``standardise``: subtract the mean of the sample as well, as SiMaN does, so that the value
    is the sign of x - mean, in evaluation too (default: False; the gradient goes through both).
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: Bi-Real Net, Liu et al. 2018, eq. 7; ``binarized_modules.py`` of ReCU, Xu et al. 2021,
    and of SiMaN, Lin et al. 2022.
    """

    def __init__(
        self, unit_deviation: bool = False, standardise: bool = False, sign_zero: str = "plus"
    ) -> None:
        super().__init__(sign_zero)
        for name, value in (("unit_deviation", unit_deviation), ("standardise", standardise)):
            if not isinstance(value, bool):
                raise ValueError(f"approx_sign needs {name} true or false; got {name}={value!r}")
        if unit_deviation and standardise:
            raise ValueError(
                "approx_sign divides by the deviation with standardise=True by itself; give that "
                "or unit_deviation=True, not both"
            )
        self.unit_deviation = unit_deviation
        self.standardise = standardise

    @property
    def is_local(self) -> bool:
        return not (self.unit_deviation or self.standardise)

    @property
    def value_is_sign(self) -> bool:  # type: ignore[override]
        return super().value_is_sign and not self.standardise

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """z and 1 / deviation, where the slope is that of z; None where it is that of x."""
        if self.is_local or not (self.standardise or self.training):
            return None
        y = wide(x)
        z, inverse = standardise(y, sample_axes(y, self.axis), added_variance=1e-5)
        return (z if self.standardise else y * inverse), inverse

    def forward(self, x: Tensor) -> Tensor:
        scaled = self._scaled(x)
        if scaled is None:
            return super().forward(x)
        z, _ = scaled
        value = self.signs(z if self.standardise else wide(x))
        return straight_through(value, z * _parabola(z).detach()).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        scaled = self._scaled(x) if self.standardise else None
        return super().value(x if scaled is None else scaled[0]).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        scaled = self._scaled(x)
        if scaled is None:
            return _parabola(x)
        z, inverse = scaled
        return (_parabola(z) * inverse).to(x.dtype)


def _parabola(x: Tensor) -> Tensor:
    """The derivative of the piecewise parabola."""
    return x.abs().mul_(-2).add_(2).clamp_min_(0)
