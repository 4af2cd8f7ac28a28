"""A network from what a command is given: a model's name, a checkpoint, weights, a packed file."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import lowbit
from lowbit import kernels
from lowbit.cli import _zoo
from lowbit.cli._errors import UserError, user_errors
from lowbit.files import packed_info
from lowbit.nn import latent_layers
from lowbit.qconfig import QConfig

PREFIX = "model."  # of the network's tensors in the checkpoint of a training


class Loaded(NamedTuple):
    """A network in eval mode.

    kind          "name" (of first weights), "trained" or "packed"
    description   what a checkpoint of ``experiments.train`` says of its network; {} without
    shape         of one input, without the batch; None where it is not known
    """

    model: nn.Module
    kind: str
    description: dict[str, Any]
    shape: tuple[int, ...] | None


def load(what: str, name: str | None = None, words: Sequence[str] = ()) -> Loaded:
    """The network of ``what``; ``name`` and ``words`` are those of ``--model`` and ``--set``."""
    path = Path(what)
    arguments = _zoo.settings(words)
    with user_errors(ValueError):
        kernels.isa()  # an instruction set that is not here would look like a damaged file
    if path.is_file():
        if not is_safetensors(path):
            return _trained(path, _read(path), name, arguments)
        return _packed(path) if name is None else _trained(path, _tensors(path), name, arguments)
    if path.exists() or path.suffix or len(path.parts) > 1:
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(
            f"{what} {kind}; give a checkpoint (runs/…/checkpoints/best.ckpt), a packed file "
            f"(….safetensors) or a model: {', '.join(_zoo.names())}"
        )
    cls = _zoo.model_class(what)
    if name is not None:
        raise UserError(f"--model says what is in a file of weights, and {what} is itself a model")
    model = _zoo.make(cls, arguments).eval()
    return Loaded(model, "name", _as_described(cls, arguments), _zoo.default_shape(cls, arguments))


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, and its bracket."""
    with path.open("rb") as file:
        start = file.read(9)
    return (
        len(start) == 9
        and start[8:] == b"{"
        and struct.unpack("<Q", start[:8])[0] < path.stat().st_size
    )


def rebuild(description: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a checkpoint's description."""
    made = description.get("model")
    if not isinstance(made, Mapping) or not (
        "target" in made and isinstance(made.get("arguments"), Mapping)
    ):
        raise UserError("its description of the network is damaged: give --model NAME")
    target = str(made["target"])
    package, _, name = target.rpartition(".")
    if package != "lowbit.models" or name not in _zoo.names():
        raise UserError(
            f"its network is a {target}, and python -m lowbit makes those of lowbit.models alone; "
            "in Python: lowbit.convert(your_model), lowbit.save_packed"
        )
    cls = _zoo.model_class(name)
    model = _zoo.make(cls, made["arguments"])
    prepared = description.get("prepare_qat")
    if prepared:
        qconfigs = {layer: QConfig(*pair) for layer, pair in prepared.items()}
        model = lowbit.prepare_qat(model.train(), qconfigs)
    return model


def _trained(path: Path, contents: Any, name: str | None, arguments: dict[str, Any]) -> Loaded:
    weights = contents.get("state_dict", contents) if isinstance(contents, dict) else contents
    if not isinstance(weights, Mapping) or not any(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise UserError(f"{path} has no weights: it is neither a checkpoint nor a state_dict")
    inside = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
    weights = inside or weights
    if name is not None:
        description = _as_described(_zoo.model_class(name), arguments)
    elif isinstance(contents.get("lowbit"), dict):
        description = _with(contents["lowbit"], arguments)
    else:
        raise UserError(
            f"{path} does not say what its network is: give --model NAME, and --set key=value for "
            f"arguments that are not the defaults; models: {', '.join(_zoo.names())}"
        )
    with user_errors(UserError, prefix=f"{path}: "):
        model = rebuild(description)
    _put(weights, model, path)
    if description.get("weights") == "real":
        for _, layer in latent_layers(model):
            layer.weight_quantization = None
    shape = description.get("input", {}).get("shape") or _zoo.default_shape(
        _zoo.model_class(description["model"]["target"].rpartition(".")[2]),
        description["model"]["arguments"],
    )
    return Loaded(model.eval(), "trained", description, tuple(shape))


def _with(description: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The description with these arguments of the network in place of its own."""
    made = description.get("model")
    if not arguments or not isinstance(made, dict):
        return description
    own = made.get("arguments", {})
    return {**description, "model": {**made, "arguments": {**own, **arguments}}}


def _put(weights: Mapping[str, Any], model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path} has weights of another network than {type(model).__name__} of these "
            f"arguments ({' '.join(str(error).split())[:300]}); --model and --set say which it is"
        ) from error


def _packed(path: Path) -> Loaded:
    with user_errors(lowbit.PackedFileError):
        info = packed_info(path)
        model = lowbit.load_packed(path)
    config = dict(info.config)
    if not isinstance(config.get("input"), dict):
        config["input"] = {}  # the word is free to mean something else in a user's own
    shape = config["input"].get("shape")
    return Loaded(model.eval(), "packed", config, None if shape is None else tuple(shape))


def _as_described(cls: type[nn.Module], arguments: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"target": f"lowbit.models.{cls.__name__}", "arguments": arguments}}


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with user_errors(SafetensorError, prefix=f"cannot read {path}: "):
        return load_file(path)


def _read(path: Path) -> Any:
    """The contents of a file of torch.save: tensors and plain values, nothing that runs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it makes of bytes that are no checkpoint
            return torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever the bytes provoke: zip, pickle, decoding, key and index errors.
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0].split(". ")[0]
        raise UserError(
            f"cannot read {path}: it is no checkpoint, is damaged, or holds more than tensors and "
            f"plain values, which could run code ({said or type(error).__name__})"
        ) from error
