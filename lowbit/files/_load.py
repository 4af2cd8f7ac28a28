"""Read a packed file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lowbit.files._errors import PackedFileError
from lowbit.files._rebuild import rebuild
from lowbit.files._safetensors import aligned
from lowbit.files._save import ENTRY, VERSION, digest
from lowbit.files._tensors import Read, expected, kind_of


@dataclass(frozen=True)
class PackedInfo:
    """What a packed file says of itself.

    ``version`` of the format, ``lowbit`` and ``torch`` that wrote it; ``config`` and ``metadata``
    as they were given; ``tensors``: dtype and sizes of each, "float32 8 3 3 3"; ``needs``: the
    classes of which ``load_packed`` must be given instances, by the modules' names.
    """

    version: int
    lowbit: str
    torch: str
    config: dict[str, Any]
    metadata: dict[str, Any]
    tensors: dict[str, str]
    needs: dict[str, str]


def packed_info(path: str | os.PathLike[str]) -> PackedInfo:
    """What a packed file says of itself, without reading its tensors; raises as ``load_packed``."""
    with _opened(Path(path)) as file:
        header = _header(file, Path(path))
    return PackedInfo(
        **{name: header[name] for name in ("version", "lowbit", "torch", "config", "metadata")},
        tensors=_kinds(header, Path(path)),
        needs=_theirs(header["model"], ""),
    )


def load_packed(
    path: str | os.PathLike[str], model: nn.Module | Callable[[], nn.Module] | None = None
) -> nn.Module:
    """The model of a packed file, as it was when ``save_packed`` wrote it.

    The file is mapped into memory and its tensors are not copied; what the kernels of this
    processor want of the weights in another order they make of them, as ``convert`` does. What is
    written to a tensor does not reach the file.

    ``model``  only where the file asks for it: an instance of the class that was converted, not
               converted itself, or what makes one when called. Its tensors and its layers are
               replaced in a copy, so that it may be on the device "meta".

    Raises ``PackedFileError`` for whatever is not such a file, or not of this version.

    >>> import lowbit, tempfile, torch
    >>> mlp = lowbit.models.MLP(1, 10, 8, input_quantization="sign", weight_quantization="sign")
    >>> packed = lowbit.convert(mlp).model
    >>> x = torch.randn(2, 1, 8, 8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = lowbit.save_packed(packed, f"{folder}/mlp.safetensors", {"accuracy": 0.98})
    ...     torch.equal(lowbit.load_packed(file)(x), packed(x))
    True
    """
    path = Path(path)
    with _opened(path) as file:
        header = _header(file, path)
        tensors = _tensors(file, _kinds(header, path), path)
    if model is not None and not isinstance(model, nn.Module):
        model = model()
    try:
        made = rebuild(header["model"], Read(tensors), model)
    except PackedFileError as error:
        raise PackedFileError(f"cannot load {path}: {error}") from error
    # A header that somebody changed provokes whatever torch says to its values.
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise PackedFileError(
            f"cannot load {path}: its description makes no model ({type(error).__name__}: {said}); "
            f"it is damaged, or of another lowbit ({header['lowbit']}): save it again"
        ) from error
    # What is merely left out of a description has a default, or is missed in the first call.
    if header.get("digest", "") not in ("", digest(header["model"])):
        raise PackedFileError(
            f"cannot load {path}: its description is not the one that lowbit wrote; something "
            "else wrote to it: save the model again"
        )
    return made


def _opened(path: Path) -> AbstractContextManager[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise PackedFileError(
            f"no packed file at {path}: lowbit.save_packed(model, path) makes one"
        )
    try:
        file: AbstractContextManager[Any] = safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise PackedFileError(
            f"{path} is no safetensors file, or not all of one ({error}): "
            "lowbit.save_packed(model, path) makes one"
        ) from error
    return file


def _header(file: Any, path: Path) -> dict[str, Any]:
    entry = (file.metadata() or {}).get(ENTRY)
    if entry is None:
        raise PackedFileError(
            f"{path} is a safetensors file of something else: its metadata have no {ENTRY!r}, "
            "which lowbit.save_packed writes"
        )
    try:
        header = json.loads(entry)
        version, written = header["version"], header["lowbit"]
    except (ValueError, TypeError, KeyError) as error:
        raise PackedFileError(f"the metadata {ENTRY!r} of {path} are damaged ({error})") from error
    if version != VERSION:
        raise PackedFileError(
            f"{path} has version {version} of the format, which lowbit {written} writes; this one "
            f"reads {VERSION}: install lowbit>={written}"
        )
    for name in ("config", "metadata"):
        if not isinstance(header.get(name, {}), dict):
            raise PackedFileError(f"the metadata {ENTRY!r} of {path} are damaged ({name})")
    missing = [name for name in ("model", "torch", "config", "metadata") if name not in header]
    if missing:
        raise PackedFileError(f"the metadata {ENTRY!r} of {path} have no {', '.join(missing)}")
    return dict(header)


def _kinds(header: dict[str, Any], path: Path) -> dict[str, str]:
    """The dtype and the sizes of every tensor that the description refers to."""
    try:
        return dict(expected(header["model"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise PackedFileError(f"the metadata {ENTRY!r} of {path} are damaged ({error})") from error


def _tensors(file: Any, kinds: dict[str, str], path: Path) -> dict[str, Tensor]:
    """The tensors of a file, which are those of its description."""
    again = "something else wrote to it: save the model again"
    found = set(file.keys())
    for names, what in (
        (kinds.keys() - found, "lacks tensors of its description"),
        (found - kinds.keys(), "has tensors that are not in its description"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
            raise PackedFileError(f"{path} {what}, {len(names)}: {shown}; {again}")
    tensors = {name: file.get_tensor(name) for name in kinds}
    for name, tensor in tensors.items():
        if kind_of(tensor) != kinds[name]:
            raise PackedFileError(
                f"{name} of {path} is {kind_of(tensor)}, and of its description {kinds[name]}; "
                f"{again}"
            )
    return {name: aligned(tensor) for name, tensor in tensors.items()}


def _theirs(parts: Any, name: str) -> dict[str, str]:
    """The classes of modules that files do not know."""
    found = {name: parts["class"]} if parts.get("theirs") else {}
    for key, child in parts.get("children", {}).items():
        if child is not None:
            found |= _theirs(child, f"{name}.{key}" if name else key)
    return found
