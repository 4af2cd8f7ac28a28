"""A checkpoint of torch.ao's quantized modules, rewritten with plain tensors.

    python -m lowbit.export.legacy OLD.pt NEW.pt
    python -m lowbit.export.legacy OLD.ckpt NEW.pt --key state_dict --bidirectional encoder.lstm

Nothing in the file is run: it is read as tensors and plain values alone, and the packed objects of
recurrent layers are read as their state. The new file loads with ``weights_only=True``, into
modules of the same names of ``lowbit.nn.quantized`` and ``.dynamic``. What torch.ao leaves out of
a state dict, the scales of ELU, Sigmoid, Softmax and PReLU, is not in a file of one:
``lowbit.nn.quantized.from_legacy_state_dict(model)`` takes them from the model.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowbit._beside import beside
from lowbit.nn.quantized import from_legacy_state_dict


class PackedObject:
    """Stands for a packed object of torch while it is read: its state, and no more."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __getstate__(self) -> Any:
        return self.state


def read(path: str | Path, key: str | None = None) -> Mapping[str, Any]:
    """The state dict in a file, or under ``key`` of what is in it.

    Raises FileNotFoundError without a file, ValueError where it is none of a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    stand_in = (PackedObject, "torch.ScriptObject")
    try:
        with torch.serialization.safe_globals([stand_in]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that quantized dtypes are going
            contents = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever the bytes provoke: zip, pickle, decoding, key and index errors.
    except Exception as error:
        words = str(error).split("WeightsUnpickler error: ")[-1].split(". ")[0].splitlines()
        raise ValueError(
            f"{path} is no state dict that can be read safely ({words[0] if words else error}). "
            "Of a file with a whole model, that you trust: model = torch.load(…, "
            "weights_only=False), then torch.save(from_legacy_state_dict(model), …)"
        ) from error
    if key is not None:
        if not isinstance(contents, Mapping) or key not in contents:
            raise ValueError(f"{path} has no {key!r} in it; {_described(contents)}")
        contents = contents[key]
    if not isinstance(contents, Mapping) or any(isinstance(v, Mapping) for v in contents.values()):
        raise ValueError(
            f"{path} is not a state dict: {_described(contents)}; --key names the entry that is one"
        )
    return contents


def _described(contents: Any) -> str:
    if isinstance(contents, Mapping):
        return "it has " + ", ".join(map(repr, contents))
    return f"it is a {type(contents).__name__}"


def convert(
    old: str | Path,
    new: str | Path,
    *,
    key: str | None = None,
    bidirectional: Mapping[str, bool] | None = None,
) -> dict[str, Any]:
    """Write the plain state dict of ``old`` to ``new``, beside it first; and return it.

    Errors as ``read`` and ``from_legacy_state_dict``; ``new`` is as it was then.
    """
    plain = from_legacy_state_dict(read(old, key), bidirectional=bidirectional)
    with beside(Path(new)) as file:
        torch.save(plain, file)
    return plain


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 1 with one line that says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m lowbit.export.legacy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, help="the file that torch.save wrote")
    parser.add_argument("new", type=Path, help="the file to write")
    parser.add_argument("--key", help="the entry of the file that is the state dict")
    for option, which in (("--bidirectional", "that are"), ("--one-direction", "that are not")):
        told = f"recurrent layers {which}, where their shapes do not tell"
        parser.add_argument(option, nargs="*", default=[], metavar="NAME", help=told)
    options = parser.parse_args(arguments)
    known = dict.fromkeys(options.bidirectional, True) | dict.fromkeys(options.one_direction, False)
    try:
        plain = convert(options.old, options.new, key=options.key, bidirectional=known)
    except (OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(t.numel() * t.element_size() for t in plain.values() if isinstance(t, Tensor))
    print(f"{options.new}: {len(plain)} plain entries, {size} bytes of tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
