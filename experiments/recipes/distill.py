"""Knowledge distillation: a network learns from the scores, and the features, of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments._numbers import above, at_least
from experiments.recipes._matching import (
    ATTENTION_NORMS,
    Watch,
    attention_match,
    check_maps,
    soft_cross_entropy,
)
from experiments.recipes._metrics import MeanOverImages
from experiments.recipes.classify import Classify


class Distill(Classify):
    """Classification with a ``teacher``, whose parameters stay as they are.

        hard * loss(scores, labels)
        + soft * T^2 cross-entropy(softmax(scores / T), softmax(teacher's scores / T))
        + attention * mean over places of attention_match(student's features, teacher's features)

    hard, soft, attention   weights of the three; one at least is above 0
    temperature             T
    attention_at            the places: names of modules that both networks have, or a mapping
                            from the student's to the teacher's
    attention_norm          ``max``, as larq trains, or ``l2``, as the paper writes
    teacher                 images -> scores; None where nothing is trained

    ReActNet's distributional loss is hard 0, soft 1, temperature 1. Logs ``train/hard``,
    ``train/soft`` and ``train/attention``, before their weights. The rest is ``Classify``'s.

    Source: Hinton et al. 2015; Real-to-Binary, Martinez et al. 2020; ReActNet, Liu et al. 2020.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        scheduler: dict[str, Any] | None = None,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        seed: int = 0,
        *,
        teacher: nn.Module | None = None,
        hard: float = 0.0,
        soft: float = 1.0,
        temperature: float = 1.0,
        attention: float = 0.0,
        attention_at: Sequence[str] | Mapping[str, str] = (),
        attention_norm: str = "max",
    ) -> None:
        super().__init__(
            model, num_classes, optimizer, scheduler, loss, label_smoothing, mixup, seed
        )
        weights = {"hard": hard, "soft": soft, "attention": attention}
        for name, weight in weights.items():
            at_least(f"recipe.{name}", weight, 0)
        if not any(weights.values()):
            raise ValueError("recipe.hard, soft and attention are all 0: there is nothing to learn")
        above("recipe.temperature", temperature, 0)
        if attention_norm not in ATTENTION_NORMS:
            raise ValueError(f"recipe.attention_norm is max or l2; got {attention_norm!r}")
        places = (
            dict(attention_at)
            if isinstance(attention_at, Mapping)
            else {name: name for name in attention_at}
        )
        if attention > 0 and not places:
            known = ", ".join(name for name, _ in model.named_children())
            raise ValueError(
                f"recipe.attention is {attention}, at no place: give recipe.attention_at, names "
                f"of modules; this network has {known}"
            )
        self.weights = weights
        self.parts = nn.ModuleDict({name: MeanOverImages() for name in weights})
        self.temperature = temperature
        self.attention_norm = attention_norm
        self.places = places if attention > 0 else {}
        self.student_maps = Watch(model, tuple(self.places), "student")
        # In a tuple: no part of this module, of its checkpoints, or of train().
        self.outside: tuple[nn.Module, ...] = ()
        if teacher is not None:
            self.outside = (teacher,)
            self.teacher_maps = Watch(teacher, tuple(self.places.values()), "teacher")
            self.teacher_maps.start()

    def on_train_start(self) -> None:
        if not self.outside:
            raise ValueError(
                "recipe.teacher: training needs one; give its torchvision or its checkpoint"
            )
        self.outside[0].to(self.device)
        self.student_maps.start()

    def on_train_end(self) -> None:
        self.student_maps.stop()

    def objective(self, x: Tensor, scores: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self.outside[0](x)
        parts: dict[str, Tensor] = {}
        if self.weights["hard"] > 0:
            parts["hard"] = super().objective(x, scores, target)
        if self.weights["soft"] > 0:
            parts["soft"] = soft_cross_entropy(scores, taught, self.temperature)
        if self.places:
            parts["attention"] = self._attention()
        for name, part in parts.items():
            self.parts[name].update(part.detach(), len(x))
            if "train" not in self._logged:  # which the end of the step marks
                self.log(f"train/{name}", self.parts[name], on_step=False, on_epoch=True)
        return torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()

    def _attention(self) -> Tensor:
        """The mean over the places of how far the networks look elsewhere."""
        terms = []
        for mine, its in self.places.items():
            student, teacher = self.student_maps.seen[mine], self.teacher_maps.seen[its]
            check_maps(student, teacher, mine)
            terms.append(attention_match(student, teacher, self.attention_norm))
        return torch.stack(terms).mean()
