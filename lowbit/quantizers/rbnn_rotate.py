from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lowbit.functional.sign import sign
from lowbit.functional.stats import over_channel
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, standardise, wide
from lowbit.quantizers.rbnn_poly import RbnnPoly

# Alternations between codes and rotations in each epoch.
ALTERNATIONS = 3


def sides(n: int) -> tuple[int, int]:
    """a <= b with a b = n, as near to each other as can be.

    >>> sides(144), sides(7)
    ((12, 12), (1, 7))
    """
    a = next(a for a in range(math.isqrt(n), 0, -1) if n % a == 0)
    return a, n // a


def orthogonal(size: int, like: Tensor) -> Tensor:
    """A random orthogonal matrix, the same on every process."""
    drawn, triangle = torch.linalg.qr(torch.randn(size, size))
    made = (drawn * sign(triangle.diagonal())).to(like)
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(made, 0)
    return made


@register("rbnn_rotate")
class RbnnRotate(Quantizer):
    """Sign of weights that are turned, in part, towards the corners of the hypercube.

    value  s(v), with z = (w - mean_o) / deviation_o over output channel o, laid out as a matrix
           Z_o (a, b) whose sides are as near as can be, and
           v = z + |sin theta_o| (R1^T Z_o R2 - z)
    slope  rbnn_poly(v) (1 - |sin theta_o|) / deviation_o, with mean and deviation held; the
           gradient itself goes through both of them, not through the rotated weights

    R1 and R2 are orthogonal. In training, the first forward of each epoch (behind
    ``set_progress``) fits them: three times B_o = s(R1^T Z_o R2), then R1 and R2 in turn maximise
    sum_o tr(B_o^T R1^T Z_o R2), by singular values. A tensor of another size than the one that
    they were fitted to is not turned. theta is learned. The method's learned scale of each output
    channel is a companion of the layer, not part of this.

    Arguments: ``t_min`` and ``t_max`` of the slope, as in ``rbnn_poly``, which follows the
    training.

    Source: RBNN, Lin et al. 2020, section 3; ``cifar/modules/binarized_modules.py`` of its
    repository. (A later version of it fits the rotations in every forward.)
    """

    made_for = "weight"
    bits = 1
    levels = (-1.0, 1.0)
    mixes = True
    left: Tensor
    right: Tensor
    due: Tensor

    def __init__(self, t_min: float = 1e-2, t_max: float = 10.0) -> None:
        super().__init__()
        self.t_min = t_min
        self.t_max = t_max
        self.estimator = RbnnPoly(t_min, t_max)
        self.theta = nn.Parameter(torch.full((1,), math.pi / 4))
        # R1 and R2, which get their size from the first weight.
        self.register_buffer("left", torch.ones(1, 1))
        self.register_buffer("right", torch.ones(1, 1))
        self.register_buffer("due", torch.tensor(True))
        self._due = True  # the buffer's twin: a graph cannot branch on a tensor's value

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        self.theta = nn.Parameter(torch.rand(channels).to(self.theta) * (math.pi / 2))

    def set_progress(self, fraction: float) -> None:
        self.estimator.set_progress(fraction)
        self.due.fill_(True)
        self._due = True

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name in ("left", "right"):
            if f"{prefix}{name}" in state_dict:
                getattr(self, name).resize_(state_dict[f"{prefix}{name}"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._due = bool(self.due)

    def _matrices(self, z: Tensor) -> Tensor:
        """z as (channels, a, b)."""
        rows = z.movedim(self.axis, 0).flatten(1) if z.ndim > 1 else z.reshape(1, -1)
        return rows.unflatten(1, sides(rows.shape[1]))

    @torch.no_grad()
    def _fit(self, matrices: Tensor) -> None:
        """Fit R1 and R2 to standardised weights (channels, a, b)."""
        x = matrices.detach().nan_to_num()
        a, b = x.shape[1:]
        if self.left.shape[0] != a or self.right.shape[0] != b:
            self.left.resize_(a, a).copy_(orthogonal(a, x))
            self.right.resize_(b, b).copy_(orthogonal(b, x))
        left, right = self.left.to(x), self.right.to(x)
        for _ in range(ALTERNATIONS):
            signs = sign(left.T @ x @ right)
            u, _, v = torch.linalg.svd((signs @ right.T @ x.mT).sum(0))
            left = v.T @ u.T
            u, _, v = torch.linalg.svd((x.mT @ left @ signs).sum(0))
            right = u @ v
        self.left.copy_(left)
        self.right.copy_(right)
        self.due.fill_(False)
        self._due = False

    def _turned(self, z: Tensor) -> Tensor:
        """R1^T Z_o R2 in the layout of z; z itself where there are no rotations of its size."""
        matrices = self._matrices(z)
        if matrices.shape[1:] != (len(self.left), len(self.right)):
            return z
        turned = self.left.to(z).T @ matrices @ self.right.to(z)
        if z.ndim < 2:
            return turned.reshape(z.shape)
        order = z.movedim(self.axis, 0).shape
        return turned.reshape(order).movedim(0, self.axis)

    def _share(self, z: Tensor) -> Tensor:
        """|sin theta|, laid over z."""
        return over_channel(torch.sin(self.theta).abs().to(z.dtype), z, self.axis)

    def _prepared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v, and 1 / deviation."""
        w = wide(x)
        z, inverse = standardise(w, channel_axes(w, self.axis))
        # The rotations are fitted, and laid on, in full precision.
        with torch.autocast(x.device.type, enabled=False):
            if self.training and self._due and x.numel() > 0:
                self._fit(self._matrices(z))
            turned = self._turned(z.detach())
        return z + self._share(z) * (turned - z), inverse

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        return self.estimator(self._prepared(x)[0]).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        return x.clone() if x.numel() == 0 else sign(self._prepared(x)[0]).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        v, inverse = self._prepared(x)
        return (self.estimator.slope(v) * (1 - self._share(v)) * inverse).to(x.dtype)
