"""The network that another one learns from: torchvision's by name, or a checkpoint of ours."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from experiments import _checkpoint
from experiments._app import Problem
from experiments.data._normalise import Normalise


class Renormalised(nn.Module):
    """``model`` of the same pixels, normalised as it was trained: x -> model(scale x + shift)."""

    def __init__(self, model: nn.Module, given: Normalise, wanted: Normalise) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("scale", wanted.scale / given.scale)
        self.register_buffer("shift", wanted.shift - self.scale * given.shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x * self.scale + self.shift)


def make(spec: DictConfig, data: Any) -> nn.Module:
    """The teacher of ``recipe.teacher``, frozen, for the images of ``data``.

    ``spec`` has ``torchvision``, a name of its models, with ``weights`` (their name, the file of
    a state dict, or null for an untrained network); or ``checkpoint``, of a run of ours, with
    ``config`` where its configuration is not beside it. A teacher that was trained on pixels
    normalised in another way gets them that way.
    """
    named, checkpoint = spec.get("torchvision"), spec.get("checkpoint")
    if (named is None) == (checkpoint is None):
        raise Problem(
            "recipe.teacher: give one of torchvision, as in recipe.teacher.torchvision=resnet34, "
            f"and checkpoint, the best.ckpt of a run; got {OmegaConf.to_container(spec)}"
        )
    if named is not None:
        if getattr(data, "whiten", None) is not None:
            raise Problem(
                "recipe.teacher.torchvision was trained on pixels that are not whitened, as those "
                f"of data.whiten={data.whiten} are: give data.whiten=null"
            )
        teacher, normalise = _from_torchvision(named, spec.get("weights"), data), "standard"
    else:
        teacher, normalise = _from_checkpoint(checkpoint, spec.get("config"), data)
    if normalise != data.normalise and getattr(data, "center", None) is not None:
        raise Problem(
            f"recipe.teacher was trained with data.normalise={normalise}; with data.center="
            f"{data.center} the student must be too, not with {data.normalise}"
        )
    if normalise != data.normalise:
        values = data.mean, data.std, getattr(data, "max_value", 255)
        teacher = Renormalised(
            teacher, Normalise(data.normalise, *values), Normalise(normalise, *values)
        )
    teacher.eval().requires_grad_(False)
    _try(teacher, data)
    return teacher


def _try(teacher: nn.Module, data: Any) -> None:
    """A ``Problem`` unless the teacher scores the classes of ``data`` for its images."""
    size = (2, data.in_channels, data.image_size, data.image_size)
    try:
        with torch.no_grad():
            scores = teacher(torch.zeros(size))
    except RuntimeError as error:
        raise Problem(f"recipe.teacher takes no images of shape {size}: {error}") from error
    if not isinstance(scores, Tensor) or scores.shape != (2, data.num_classes):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise Problem(
            f"recipe.teacher scores {got} for two images, where the data has {data.num_classes} "
            "classes; give a teacher that was trained on it"
        )


def _from_torchvision(name: str, weights: str | None, data: Any) -> nn.Module:
    from torchvision import models

    if name not in models.list_models():
        near = difflib.get_close_matches(name, models.list_models(), n=3)
        raise Problem(
            f"recipe.teacher.torchvision: torchvision has no model named {name!r}"
            + (f"; near it: {', '.join(near)}" if near else "")
        )
    if weights is None:
        return models.get_model(name, weights=None, num_classes=data.num_classes)
    if Path(weights).is_file():
        model = models.get_model(name, weights=None, num_classes=data.num_classes)
        try:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        # torch.load raises whatever the bytes provoke.
        except Exception as error:
            raise Problem(
                f"recipe.teacher.weights: {weights} is no state dict of torchvision's {name} with "
                f"{data.num_classes} classes ({' '.join(str(error).split())[:200]})"
            ) from error
        return model
    try:
        return models.get_model(name, weights=weights)
    except KeyError as error:
        known = ", ".join(w.name for w in models.get_model_weights(name))
        raise Problem(
            f"recipe.teacher.weights of {name} are DEFAULT, {known}, a file, or null for none; "
            f"got {weights!r}"
        ) from error
    except OSError as error:
        url = models.get_weight(f"{models.get_model_weights(name).__name__}.{weights}").url
        raise Problem(
            f"recipe.teacher.weights: cannot download {url} ({error}); fetch it elsewhere and "
            "give recipe.teacher.weights=FILE"
        ) from error


def _from_checkpoint(path: str, config: str | None, data: Any) -> tuple[nn.Module, str]:
    """The trained network, and how its pixels were normalised."""
    from experiments import _build

    trained = _checkpoint.config_of(path, config)
    for option in ("center", "whiten"):
        its, ours = trained.data.get(option), getattr(data, option, None)
        if its != ours:
            raise Problem(
                f"recipe.teacher was trained with data.{option}={its}, and would see other pixels "
                f"with data.{option}={ours}"
            )
    model = _build.make_model(trained, data, quantized=True)
    _checkpoint.load_model(model, path, key="recipe.teacher")
    return model, str(trained.data.get("normalise", data.normalise))
