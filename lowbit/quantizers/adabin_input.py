import torch
from torch import Tensor, nn

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._check import one_of
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide
from lowbit.quantizers.approx_sign import ApproxSign


@register("adabin_input")
class AdabinInput(SignBased):
    """Two learned values for an input tensor: the adaptive binary set.

    value  form "code": a (s(z) + b), form "paper": a s(z) + b, with z = (x - b) / a, a the
           ``scale`` (1 at first) and b the ``offset`` (0 at first) of the tensor
    slope  2 - 2|z| if |z| <= 1 else 0

    a and b get the derivative with that slope in place of the derivative of s.

    Arguments: ``form``: "code" (default) or "paper"; they differ where a is not 1;
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: AdaBin, Tu et al. 2022; "code": ``binarylib.py`` of its repository.
    """

    made_for = "input"

    def __init__(self, form: str = "code", sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        one_of("adabin_input", "form", form, ("code", "paper"))
        self.form = form
        self.scale = nn.Parameter(torch.ones(1))
        self.offset = nn.Parameter(torch.zeros(1))
        self.estimator = ApproxSign(sign_zero=sign_zero)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, scale and offset."""
        x = wide(x)
        scale, offset = (p.to(x.dtype).reshape(()) for p in (self.scale, self.offset))
        return (x - offset) / scale, scale, offset

    def _combine(self, signs: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return scale * (signs + offset) if self.form == "code" else scale * signs + offset

    def forward(self, x: Tensor) -> Tensor:
        z, scale, offset = self._parts(x)
        return self._combine(self.estimator(z), scale, offset).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        z, scale, offset = self._parts(x)
        return self._combine(self.estimator.value(z), scale, offset).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return self.estimator.slope(self._parts(x)[0]).to(x.dtype)
