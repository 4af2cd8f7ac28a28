"""Losses that make one network answer, and look, like another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION_NORMS = ("max", "l2")


def soft_cross_entropy(scores: Tensor, taught: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 cross-entropy of softmax(scores / T) against softmax(taught / T), mean over images.

    (n, classes) and (n, classes) -> (). Its gradient is that of the Kullback-Leibler divergence;
    T^2 keeps its size where T changes. At T = 1 this is ReActNet's distributional loss.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; ReActNet, Liu et
    al. 2020, eq. 5 and ``KD_loss.py``.
    """
    target = F.softmax(taught / temperature, dim=-1)
    return temperature**2 * F.cross_entropy(scores / temperature, target)


def attention(features: Tensor, norm: str = "max") -> Tensor:
    """Where a feature map is large: (n, channels, height, width) -> (n, height * width).

    The mean over channels of the squares, divided for each image by its largest value
    (``max``) or by its length (``l2``).
    """
    area = features.square().mean(1).flatten(1)
    size = area.amax(1, keepdim=True) if norm == "max" else area.norm(dim=1, keepdim=True)
    # A map of zeros looks nowhere.
    return area / size.clamp_min(torch.finfo(area.dtype).tiny)


def attention_match(student: Tensor, teacher: Tensor, norm: str = "max") -> Tensor:
    """How far two feature maps look elsewhere; both (n, any channels, height, width) -> ().

    max   mean of (attention(student) - attention(teacher))^2, as larq's training code has it
    l2    mean over images of the length of the difference, as the paper has it

    Source: Real-to-Binary, Martinez et al. 2020, section 4.2; ``knowledge_distillation.py`` of
    larq-zoo.
    """
    difference = attention(student, norm) - attention(teacher, norm)
    return difference.square().mean() if norm == "max" else difference.norm(dim=1).mean()


class Watch:
    """Keeps what modules of a network return while it trains: ``seen[name]``.

    ``names`` are of its submodules; ``ValueError`` for one that it has not. Hooks are there
    between ``start`` and ``stop`` only, so that conversion meets a network without any.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], whose: str) -> None:
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules or name == "":
                known = ", ".join(n for n in modules if n and n.count(".") < 2)
                raise ValueError(
                    f"recipe.attention_at: the {whose} has no module {name!r}; it has {known}"
                )
        self.modules: Mapping[str, nn.Module] = {name: modules[name] for name in names}
        self.seen: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def start(self) -> None:
        for name, module in self.modules.items():
            self._hooks.append(module.register_forward_hook(self._keep(name)))

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.seen = [], {}

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.seen[name] = output

        return hook


def check_maps(student: Tensor, teacher: Tensor, name: str) -> None:
    """``ValueError`` unless both are feature maps of one size."""
    if student.ndim != 4 or teacher.ndim != 4 or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f"recipe.attention_at: at {name!r} the student gives {tuple(student.shape)} and the "
            f"teacher {tuple(teacher.shape)}; both must be maps (n, channels, height, width) of "
            "one height and width"
        )
