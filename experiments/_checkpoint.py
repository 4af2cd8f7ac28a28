"""Checkpoints: read as tensors and plain values only, and matched with a model."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from experiments._app import Problem
from lowbit.quantizers import Quantizer

# A model of other sizes has a line for each of its tensors.
BRIEF = 4


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint; a ``Problem`` where it is absent, damaged or unsafe."""
    path = Path(path)
    if not path.is_file():
        raise Problem(
            f"no checkpoint at {path}; a run keeps its own in "
            "runs/<experiment>/<date>/checkpoints/best.ckpt and last.ckpt"
        )
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever the bytes provoke: zip, pickle, decoding, key and index errors.
    except Exception as error:
        words = str(error).split(". ")[0].splitlines()
        reason = words[0] if words and " " in words[0] else type(error).__name__
        raise Problem(
            f"cannot load the checkpoint {path}: it is damaged, or holds more than tensors and "
            f"plain values, which are refused because loading them could run code ({reason})"
        ) from error
    if not isinstance(contents, dict) or "state_dict" not in contents:
        raise Problem(f"{path} is not a checkpoint of a training run: it has no 'state_dict'")
    return contents


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Put a checkpoint's weights into ``module``; a ``Problem`` where they are of another model."""
    _put_weights(module, path, read(path))


def _put_weights(module: nn.Module, path: str | Path, contents: dict[str, Any]) -> None:
    try:
        module.load_state_dict(contents["state_dict"])
    except RuntimeError as error:
        raise Problem(
            f"the checkpoint {path} is of another model than the configuration makes; "
            f"give the overrides it was trained with ({_brief(error)})"
        ) from error


def check_resume(recipe: Any, cfg: DictConfig) -> int:
    """How many epochs the training has behind it that ``cfg.resume`` goes on with.

    A ``Problem`` where ``cfg`` cannot go on with it. ``recipe`` has its weights then.
    """
    path = Path(cfg.resume)
    contents = read(path)
    _put_weights(recipe, path, contents)
    lacking = [key for key in ("epoch", "optimizer_states", "loops") if key not in contents]
    if lacking:
        raise Problem(
            f"resume: {path} has weights but no {lacking[0]!r}, and so no training to go on with; "
            f"start={path} begins one with its weights"
        )
    done, most = int(contents["epoch"]) + 1, cfg.trainer.max_epochs
    if done > most:
        raise Problem(
            f"resume: {path} has {done} epochs behind it, more than trainer.max_epochs={most}; "
            f"give trainer.max_epochs={done} or more"
        )
    config = path.resolve().parent.parent / ".hydra" / "config.yaml"
    seed = OmegaConf.load(config).get("seed") if config.is_file() else None
    if seed not in (None, cfg.seed):
        raise Problem(
            f"resume: {path} is of a training of seed {seed}, which goes on with its own numbers; "
            f"got seed={cfg.seed}"
        )
    _check_optimizer(recipe, path, contents)
    return done


def _check_optimizer(recipe: Any, path: Path, contents: dict[str, Any]) -> None:
    """A ``Problem`` where a checkpoint is of another optimizer than the recipe's."""
    optimizer = recipe.make_optimizer(recipe.model)
    for saved in contents["optimizer_states"][:1]:
        # A scheduler has added initial_lr.
        groups = [
            (set(group) - {"initial_lr"}, len(group["params"])) for group in saved["param_groups"]
        ]
        own = [(set(group), len(group["params"])) for group in optimizer.param_groups]
        # A newer torch may have more options, and another optimizer has others.
        same = len(groups) == len(own) and all(
            count == own_count and (keys <= own_keys or own_keys <= keys)
            for (keys, count), (own_keys, own_count) in zip(groups, own, strict=True)
        )
        if not same:
            raise Problem(
                f"resume: the checkpoint {path} is of another optimizer than the configuration "
                f"makes, or of parameters in other roles ({len(groups)} groups, here {len(own)}); "
                "give the overrides it was trained with, or start= in place of resume=, which "
                "takes the weights alone"
            )


def _brief(error: Exception) -> str:
    """The first lines of torch's message, cut between words, and how many more there are."""
    lines = [textwrap.shorten(line, 200, placeholder=" …") for line in str(error).splitlines()]
    more = len(lines) - BRIEF
    return " ".join(lines[:BRIEF]) + (f" … and {more} more" if more > 0 else "")


def load_model(model: nn.Module, path: str | Path, key: str = "start") -> None:
    """Put the weights of a checkpoint's model into ``model``.

    A ``Problem`` where they are of another model; ``key`` of the configuration names the file.
    For a training to ``start`` with, quantizers may differ: what the checkpoint has not of the
    model's keeps its first value, and what it has of others is left out.
    """
    saved = read(path)["state_dict"]
    weights = {k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")}
    if key == "start":
        own = _of_quantizers(model)
        present = set(model.state_dict())
        weights = {k: v for k, v in weights.items() if k in present or not _in_quantizer(k)}
        missing = own - set(weights)
        weights |= {k: v for k, v in model.state_dict().items() if k in missing}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise Problem(
            f"{key}: the checkpoint {path} is of another model than the configuration makes "
            f"({_brief(error)})"
        ) from error


def _of_quantizers(model: nn.Module) -> set[str]:
    """The names of the tensors that quantizers hold."""
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, Quantizer)
        for key in module.state_dict()
    }


def _in_quantizer(key: str) -> bool:
    """Whether a tensor of a state dict is of the quantizer of a layer."""
    return any(part in ("input_quantization", "weight_quantization") for part in key.split("."))


def config_of(checkpoint: str | Path | None, config: str | Path | None = None) -> DictConfig:
    """The configuration of a checkpoint's training: ``config``, or that in its run's folder."""
    if checkpoint is None:
        raise Problem(
            "which checkpoint? give checkpoint=runs/<experiment>/<date>/checkpoints/best.ckpt"
        )
    read(checkpoint)
    if config is None:
        config = Path(checkpoint).resolve().parent.parent / ".hydra" / "config.yaml"
    if not Path(config).is_file():
        raise Problem(
            f"no configuration at {config}; give the one it was trained with, config=PATH"
        )
    trained = OmegaConf.load(config)
    if not isinstance(trained, DictConfig):
        raise Problem(f"{config} is not a configuration: it is a list")
    return trained
