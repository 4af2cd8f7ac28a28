"""Write a packed file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowbit._version import __version__
from lowbit.files._describe import describe
from lowbit.files._errors import PackedFileError
from lowbit.files._safetensors import write
from lowbit.files._tensors import Written

# The entry of the file's metadata.
ENTRY = "lowbit.packed"
VERSION = 1


def save_packed(
    model: nn.Module,
    path: str | os.PathLike[str],
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write what ``lowbit.convert`` returned, packed or int8, to one safetensors file.

    The file has every tensor once, and how the model is built of them: the classes of its
    modules, their arguments, and the graph of its calls. So ``load_packed`` needs lowbit and
    torch alone, runs no code that the file names, and returns the very structure that was saved,
    whatever ``convert`` would decide on that processor. A model that torch.fx could not follow,
    or in which nothing was folded, keeps its own class; if this is neither of torch.nn nor of
    lowbit, the file has its name, and whoever loads it gives an instance.

    ``config``    how the model was made and trained: plain values in dicts and lists, which
                  ``lowbit.files.packed_info`` returns and nothing else reads
    ``metadata``  the same for anything else, such as a figure or the names of the classes

    The file is written beside ``path`` and renamed, so that there is never half of one. Returns
    the path. Raises ``PackedFileError`` for a model that a file cannot hold, one with hooks for
    example, and for ``config`` or ``metadata`` that are not plain values.
    """
    if not isinstance(model, nn.Module):
        raise PackedFileError(
            f"save_packed writes a model, not a {type(model).__name__}; of lowbit.convert's "
            "result, that is .model"
        )
    tensors = Written()
    header: dict[str, Any] = {
        "version": VERSION,
        "lowbit": __version__,
        "torch": str(torch.__version__),
        "config": _plain("config", config),
        "metadata": _plain("metadata", metadata),
        "model": describe(model, tensors),
    }
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"would lie in {path.parent}, which is no folder"
        raise PackedFileError(f"cannot write {path}: it {what}; name a file in one that is there")
    header["digest"] = digest(header["model"])
    entry = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    write(tensors.contents(), {ENTRY: entry}, path)
    return path


def digest(model: Any) -> str:
    """SHA-256 of a description, as JSON gives it back."""
    text = json.dumps(json.loads(json.dumps(model)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    plain = {} if value is None else value
    try:
        written: dict[str, Any] = json.loads(json.dumps(plain))
    except (TypeError, ValueError) as error:
        raise PackedFileError(
            f"{name} is plain values in dicts and lists ({error}); of Hydra's, "
            "OmegaConf.to_container(config, resolve=True)"
        ) from error
    if not isinstance(written, dict):
        raise PackedFileError(f"{name} is a dict, not a {type(value).__name__}")
    return written
