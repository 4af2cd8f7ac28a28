"""Bop: binary weights that are flipped, not moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lowbit.functional.sign import sign


class Bop(Optimizer):
    """Binary optimizer: a weight flips when a moving average of its gradient asks for it.

    m <- (1 - gamma) m + gamma g;   w <- -w where w m >= threshold and m is not 0

    There are no latent weights: the weights are -1 and +1 between steps. The first step
    replaces them by their signs (+1 for 0).

    Arguments: ``lr`` is gamma, the adaptivity rate, under the name that learning-rate
    schedulers drive (the paper divides gamma by 10 every 100 epochs); ``threshold`` is the
    paper's tau. Of the layer's weight quantizers ``sign`` fits: its gradient is not clipped.
    Weight decay has no meaning here.

    A gradient that is not finite makes its weight NaN, as with other optimizers.

    Source: Helwegen et al. 2019, "Latent Weights Do Not Exist".

    >>> w = torch.nn.Parameter(torch.tensor([0.3, -0.2]))
    >>> w.grad = torch.tensor([2.0, 2.0])
    >>> Bop([w], lr=0.5, threshold=0.1).step()
    >>> w.data
    tensor([-1., -1.])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        threshold: float = 1e-8,
    ) -> None:
        if not 0 <= lr <= 1:
            raise ValueError(f"Bop's lr is the weight of a moving average, 0 to 1; got lr={lr}")
        if not threshold >= 0:
            raise ValueError(f"Bop needs threshold >= 0; got threshold={threshold}")
        super().__init__(params, {"lr": lr, "threshold": threshold})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` computes the loss again and its value is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._flip(weight, weight.grad, group["lr"], group["threshold"])
        return loss

    def _flip(self, weight: Tensor, gradient: Tensor, gamma: float, threshold: float) -> None:
        if gradient.is_sparse:
            raise ValueError("Bop does not take sparse gradients; make the layer with sparse=False")
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            weight.copy_(sign(weight))
        momentum = state["momentum"].lerp_(gradient, gamma)
        agreement = weight * momentum
        flip = (agreement >= threshold) & (agreement > 0)
        # Adding 0 * m changes no finite weight and lets NaN and infinity through.
        weight.copy_(torch.where(flip, -weight, weight).add_(momentum, alpha=0))
