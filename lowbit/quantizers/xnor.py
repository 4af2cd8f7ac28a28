from torch import Tensor

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._check import number, one_of
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, wide
from lowbit.quantizers._straight_through import straight_through


@register("xnor", "bwn")
class Xnor(SignBased):
    """Sign of centred weights times the mean magnitude of each output channel.

    value  a_i s(W), with W the weights less their mean over the input channels, clamped to
           [-clamp, clamp], and a_i the mean of |W| over the n weights of output channel i
    slope  (1/n + a_i 1[|W| < clamp]) c, with c = 1 - 1/C of C input channels where ``center``,
           else 1

    With ``grad="exact"`` the gradient crosses elements: c (a_i g + s(W) sum_j g_j s(W_j) / n),
    and the slope is its diagonal, c (a_i + 1/n).

    Arguments: ``grad``: "paper" (default), the rule of the paper and of its released code, or
    "exact", the derivative of the product with the sign straight through; ``center`` (default:
    True); ``clamp`` (default: 1); ``times_n``: multiply the gradient by n, as the released code
    does for SGD and the PyTorch code always (Adam alone takes the same step either way, but not
    with a weight decay, which is n times as strong without); ``act_scale``: have the layer
    multiply its output by the mean magnitude of its real inputs (the paper's K; the released
    code leaves it out, the default); ``sign_zero``: the sign of 0, "plus" (default: +1) or
    "ternary" (0).

    Source: XNOR-Net, Rastegari et al. 2016; ``util.lua`` of allenai/XNOR-Net; "exact":
    ``util.py`` of jiecaoyu/XNOR-Net-PyTorch. Both keep the latent weights themselves centred
    and clamped; here the centring and the clamp are part of the value.
    """

    made_for = "weight"

    def __init__(
        self,
        grad: str = "paper",
        center: bool = True,
        clamp: float = 1.0,
        times_n: bool = False,
        act_scale: bool = False,
        sign_zero: str = "plus",
    ) -> None:
        super().__init__(sign_zero)
        one_of("xnor", "grad", grad, ("paper", "exact"))
        number("xnor", "clamp", clamp, 0, open_=True)
        self.grad = grad
        self.center = center
        self.clamp = clamp
        self.times_n = times_n
        self.act_scale = act_scale

    def _input_axis(self) -> int:
        return 1 if self.axis == 0 else 0

    def _prepared(self, x: Tensor) -> Tensor:
        """W: centred over the input channels (a vector has none) and clamped."""
        w = wide(x)
        if self.center and x.ndim > 1:
            w = w - w.mean(self._input_axis(), keepdim=True)
        return w.clamp(-self.clamp, self.clamp)

    def _mean(self, w: Tensor) -> Tensor:
        return w.mean(channel_axes(w, self.axis), keepdim=True)

    def _count(self, x: Tensor) -> int:
        """n: the weights of one output channel."""
        channels = 1 if x.ndim < 2 else max(x.shape[self.axis], 1)
        return max(x.numel() // channels, 1)

    def _factor(self, x: Tensor) -> float:
        """What both gradients are multiplied by."""
        factor = float(self._count(x)) if self.times_n else 1.0
        if self.center and x.ndim > 1:
            factor *= 1 - 1 / max(x.shape[self._input_axis()], 1)
        return factor

    @property
    def is_local(self) -> bool:
        return self.grad == "paper"

    def forward(self, x: Tensor) -> Tensor:
        if self.grad == "paper":
            return super().forward(x)
        # W, with the factor c for its derivative: neither centring nor clamp has another.
        w = straight_through(self._prepared(x).detach(), wide(x) * self._factor(x))
        signs = self.signs(w.detach())
        scale = self._mean(w * signs)
        return straight_through(scale * signs, scale.detach() * w).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        w = self._prepared(x)
        return (self._mean(w.abs()) * self.signs(w)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        w = self._prepared(x)
        n, scale = self._count(w), self._mean(w.abs())
        if self.grad == "paper":
            slope = 1 / n + scale * (w.abs() < self.clamp)
        else:
            slope = self.signs(w).square() / n + scale
        return (slope * self._factor(x)).to(x.dtype)
