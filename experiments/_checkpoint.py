"""Checkpoints: read as tensors and plain values only, and matched with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from experiments._app import Problem
from lowbit.quantizers import Quantizer


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
    try:
        module.load_state_dict(read(path)["state_dict"])
    except RuntimeError as error:
        raise Problem(
            f"the checkpoint {path} is of another model than the configuration makes; "
            f"give the overrides it was trained with ({' '.join(str(error).split())[:400]})"
        ) from error


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
            f"({' '.join(str(error).split())[:400]})"
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
