"""Pictures as the input of a network, prepared as those it was trained on."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowbit.cli._errors import UserError
from lowbit.cli._optional import package

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def preparation(
    description: Mapping[str, Any],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    """``shape``, ``mean``, ``std`` and ``resize`` of a network's pictures.

    From its description; what is given beside it wins. A ``UserError`` where one is missing.
    """
    said = description.get("input", {})
    found: dict[str, Any] = {
        "shape": shape or said.get("shape"),
        "mean": mean or said.get("mean"),
        "std": std or said.get("std"),
    }
    if found["shape"] is not None:
        _three(found["shape"])
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise UserError(
            f"the file does not say how pictures are prepared ({', '.join(missing)} missing): "
            "give --input-shape CxHxW, --mean and --std, of pixels in [0, 1] for each channel"
        )
    channels, height, width = _three(found["shape"])
    for name in ("mean", "std"):
        values = list(found[name])
        if len(values) not in (1, channels):
            raise UserError(
                f"--{name} has {len(values)} numbers, and pictures have {channels} channels"
            )
        found[name] = values * (channels if len(values) == 1 else 1)
        if not all(map(math.isfinite, found[name])):
            raise UserError(f"--{name} is of finite numbers; got {' '.join(map(str, found[name]))}")
    if min(found["std"]) <= 0:
        raise UserError("--std is what pixels are divided by: greater than 0")
    resize = said.get("resize") if shape is None else None
    return {**found, "shape": (channels, height, width), "resize": resize or min(height, width)}


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(
            f"the network's input is {'x'.join(map(str, shape))}, which no picture is: "
            "1xHxW is grey, 3xHxW is in colour"
        )
    return shape[0], shape[1], shape[2]


def read(path: Path, prepared: Mapping[str, Any], invert: bool = False) -> Tensor:
    """A picture as (channels, height, width): scaled, its middle cut out, normalised.

    It is turned as its EXIF data say, and what is transparent in it, if it has 8 bits, is white.
    """
    package("pillow", "reading a picture")
    image_module = importlib.import_module("PIL.Image")
    channels, height, width = prepared["shape"]
    try:
        with image_module.open(path) as file:
            image = _opaque(_eight_bits(_upright(file, image_module), path), image_module)
        image = image.convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise UserError(f"no picture at {path}") from None
    except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
        raise UserError(f"cannot read {path} as a picture: {error}") from error
    factor = max(prepared["resize"] / min(image.size), width / image.width, height / image.height)
    size = (max(round(image.width * factor), width), max(round(image.height * factor), height))
    image = image.resize(size, image_module.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.reshape(height, width, channels).permute(2, 0, 1).float() / 255
    if invert:
        pixels = 1 - pixels
    mean, std = (torch.tensor(prepared[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (pixels - mean) / std


# How pixels lie in the file, tag 274 of EXIF -> what puts them upright.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _upright(image: Any, image_module: Any) -> Any:
    """The picture as its camera was held; as it lies where its EXIF data cannot be read."""
    try:
        turn = TURNS.get(image.getexif().get(274))
    except Exception:  # of damaged data Pillow raises errors of many kinds
        turn = None
    return image if turn is None else image.transpose(image_module.Transpose[turn])


def _opaque(image: Any, image_module: Any) -> Any:
    """The picture on a white ground, where it is transparent."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = image_module.new("RGBA", image.size, "white")
    return image_module.alpha_composite(white, image)


def _eight_bits(image: Any, path: Path) -> Any:
    """The picture, whose pixels of 16 bits, which Pillow would cut off at 255, become 8."""
    if image.mode == "F" or (image.mode == "I" and image.getextrema()[1] > 65535):
        raise UserError(
            f"{path} has pixels of 32 bits, of no known range: save it with 8 or 16 bits a channel"
        )
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def find(given: Sequence[Path]) -> Iterator[Path]:
    """The pictures among files and, in the order of their names, in folders."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise UserError(f"no pictures in {path}")
        yield from inside
