import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, standardise, wide
from lowbit.quantizers._straight_through import straight_through


@register("siman")
class SiMaN(Quantizer):
    """+1 for the half of a channel's weights that are largest in magnitude, -1 for the others.

    value  +1 if |z| is among the floor(n / 2) largest of its n in output channel o, else -1,
           with z = (w - mean_o) / sqrt(var_o + 1e-5)
    slope  sign(z) / sqrt(var_o + 1e-5), with mean and variance held; the gradient of |z| itself
           goes through both of them

    Of equal magnitudes the first ones count as larger. Half of the values are +1 whatever the
    weights are, so that their entropy is largest. The method's learned scale of each output
    channel is a companion of the layer, and its clamp of the weights' magnitudes the callback
    ``MagnitudeClip``; neither is part of this.

    Source: SiMaN, Lin et al. 2022; ``binarized_modules.py`` of its repository, which learns the
    sign-to-magnitude {0, 1} as {-1, +1}.
    """

    made_for = "weight"
    bits = 1
    levels = (-1.0, 1.0)

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and 1 / deviation."""
        w = wide(x)
        return standardise(w, channel_axes(w, self.axis), added_variance=1e-5)

    def _halves(self, z: Tensor) -> Tensor:
        """+1 for the larger half of the |z| of each channel, else -1."""
        channels = z.transpose(0, self.axis) if z.ndim > 1 else z[None]
        sizes = channels.abs().flatten(1)
        order = sizes.argsort(dim=1, descending=True, stable=True)
        values = torch.full_like(sizes, -1).scatter(1, order[:, : sizes.shape[1] // 2], 1.0)
        # Comparisons have no place for NaN; it is to be seen.
        values = values.where(sizes == sizes, sizes).view(channels.shape)
        return values.transpose(0, self.axis) if z.ndim > 1 else values[0]

    def forward(self, x: Tensor) -> Tensor:
        z, _ = self._standardised(x)
        return straight_through(self._halves(z.detach()), z.abs()).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        return self._halves(self._standardised(x)[0]).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        z, inverse = self._standardised(x)
        return (z.sign() * inverse).to(x.dtype)
