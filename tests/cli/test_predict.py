"""``lowbit predict``: pictures as the network was trained on them."""

import importlib
import json
import struct
from pathlib import Path

import pytest
import torch

import lowbit
from lowbit.cli import _pictures
from lowbit.cli._errors import UserError
from tests.cli.conftest import describe

pil = pytest.importorskip("PIL.Image")

PREPARED = _pictures.preparation(describe())


def picture(path: Path, pixels: torch.Tensor) -> Path:
    """Write (height, width) or (height, width, 3) as a PNG."""
    size = (pixels.shape[1], pixels.shape[0])
    mode = "L" if pixels.ndim == 2 else "RGB"
    pil.frombytes(mode, size, bytes(pixels.flatten().tolist())).save(path)
    return path


def drawn(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_a_picture_of_the_right_size_is_normalised_only(tmp_path):
    pixels = drawn(8, 8)
    found = _pictures.read(picture(tmp_path / "a.png", pixels), PREPARED)
    torch.testing.assert_close(found, (pixels[None] / 255 - 0.25) / 0.5)
    inverted = _pictures.read(tmp_path / "a.png", PREPARED, invert=True)
    torch.testing.assert_close(inverted, ((255 - pixels[None].int()) / 255 - 0.25) / 0.5)


def test_channels_have_their_own_mean_and_std(tmp_path):
    pixels = drawn(4, 4, 3)
    said = {"shape": [3, 4, 4], "mean": [0.1, 0.2, 0.3], "std": [1.0, 0.5, 0.25], "resize": 4}
    found = _pictures.read(
        picture(tmp_path / "a.png", pixels), _pictures.preparation({"input": said})
    )
    for c in range(3):
        expected = (pixels[..., c] / 255 - said["mean"][c]) / said["std"][c]
        torch.testing.assert_close(found[c], expected)


@pytest.mark.parametrize("size", [(8, 24), (24, 8)])
def test_the_middle_is_cut_out(tmp_path, size):
    pixels = torch.zeros(size, dtype=torch.uint8)
    pixels.T[8:16] = 200 if size[1] == 24 else pixels.T[8:16]
    if size[0] == 24:
        pixels[8:16] = 200
    found = _pictures.read(picture(tmp_path / "a.png", pixels), PREPARED)
    torch.testing.assert_close(found, torch.full((1, 8, 8), (200 / 255 - 0.25) / 0.5))


def test_the_shorter_side_is_scaled_before(tmp_path):
    # ImageNet's way: 16 x 16 is scaled to 10, of which the middle 8 stay: a border of 1 is lost.
    said = {"shape": [1, 8, 8], "mean": [0.0], "std": [1.0], "resize": 10}
    pixels = torch.full((20, 20), 100, dtype=torch.uint8)
    pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:] = 0, 0, 0, 0
    path = picture(tmp_path / "a.png", pixels)
    found = _pictures.read(path, _pictures.preparation({"input": said}))
    assert float(found[0, 1:-1, 1:-1].min()) == pytest.approx(100 / 255)
    small = {**said, "resize": 8}
    whole = _pictures.read(path, _pictures.preparation({"input": small}))
    assert float(whole.min()) < 0.2 < float(found.min())


def test_classes_are_those_of_the_network(run, tmp_path, checkpoint, model):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = drawn(3, 8, 8)
    for number, one in enumerate(pixels):
        picture(folder / f"{number}.png", one)
    with torch.no_grad():
        expected = model((pixels[:, None] / 255 - 0.25) / 0.5).softmax(1)
    (folder / "notes.txt").write_text("no picture")
    found = json.loads(run("predict", checkpoint, folder, "--top", 2, "--json").out)
    assert [Path(one["picture"]).name for one in found] == ["0.png", "1.png", "2.png"]
    for one, row in zip(found, expected, strict=True):
        values, classes = row.topk(2)
        assert [best["class"] for best in one["classes"]] == classes.tolist()
        assert [best["probability"] for best in one["classes"]] == pytest.approx(values.tolist())

    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(10)))
    text = run("predict", checkpoint, folder / "0.png", "--labels", names).out
    assert f"class {int(expected[0].argmax())}" in text
    assert f"{100 * float(expected[0].max()):.1f} %" in text

    packed = lowbit.convert(model).model
    path = lowbit.save_packed(packed, tmp_path / "p.safetensors", describe())
    again = json.loads(run("predict", path, folder, "--top", 2, "--json").out)
    assert [[b["class"] for b in one["classes"]] for one in again] == [
        [b["class"] for b in one["classes"]] for one in found
    ]


def test_what_is_no_picture(refused, tmp_path, checkpoint, monkeypatch):
    path = picture(tmp_path / "a.png", drawn(8, 8))
    assert "is not trained" in refused("predict", "MLP", path)
    assert "no picture at" in refused("predict", checkpoint, tmp_path / "b.png")
    (tmp_path / "c.png").write_text("not a picture")
    assert "cannot read" in refused("predict", checkpoint, tmp_path / "c.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pictures in" in refused("predict", checkpoint, empty)
    names = tmp_path / "names.txt"
    names.write_text("")
    assert "--labels has 0 names" in refused("predict", checkpoint, path, "--labels", names)
    assert "--labels: " in refused("predict", checkpoint, path, "--labels", tmp_path / "none")

    def missing(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert "pip install pillow" in refused("predict", checkpoint, path)


def test_a_file_that_does_not_say_how_pictures_are_prepared():
    with pytest.raises(UserError, match="mean, std missing"):
        _pictures.preparation({"input": {"shape": [1, 8, 8], "mean": None, "std": None}})
    with pytest.raises(UserError, match="40x1x1, which no picture is"):
        _pictures.preparation({"input": {"shape": [40, 1, 1], "mean": None, "std": None}})
    found = _pictures.preparation({}, mean=[0.5], std=[0.25], shape=(3, 8, 10))
    assert (found["mean"], found["std"]) == ([0.5] * 3, [0.25] * 3)
    assert (found["shape"], found["resize"]) == ((3, 8, 10), 8)
    for shape, mean, std, said in (
        ((40, 1, 1), [0.0], [1.0], "no picture"),
        ((3, 8, 8), [0.0, 0.0], [1.0], "--mean has 2 numbers"),
        ((3, 8, 8), [0.0], [0.0], "greater than 0"),
    ):
        with pytest.raises(UserError, match=said):
            _pictures.preparation({}, mean, std, shape)


def test_a_picture_stands_as_its_camera_says(tmp_path):
    pixels = drawn(8, 8)
    path = picture(tmp_path / "a.png", pixels)
    exif = pil.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees, clockwise
    with pil.open(path) as image:
        image.save(tmp_path / "turned.png", exif=exif)
    expected = _pictures.read(picture(tmp_path / "b.png", pixels.rot90(-1)), PREPARED)
    assert torch.equal(_pictures.read(tmp_path / "turned.png", PREPARED), expected)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_way_to_hold_a_camera_is_pillows(tmp_path, turn):
    exif = pil.Exif()
    exif[0x0112] = turn
    with pil.open(picture(tmp_path / "a.png", drawn(6, 9))) as image:
        image.save(tmp_path / "b.png", exif=exif)
    with pil.open(tmp_path / "b.png") as image:
        expected = importlib.import_module("PIL.ImageOps").exif_transpose(image)
        assert _pictures._upright(image, pil).tobytes() == expected.tobytes()


def test_a_picture_whose_exif_data_are_damaged_is_taken_as_it_lies(tmp_path, monkeypatch):
    def damaged(self):
        raise struct.error("unpack requires a buffer of 2 bytes")

    pixels = drawn(8, 8)
    path = picture(tmp_path / "a.png", pixels)
    expected = _pictures.read(path, PREPARED)
    monkeypatch.setattr(pil.Image, "getexif", damaged)
    assert torch.equal(_pictures.read(path, PREPARED), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    pixels = torch.zeros(8, 8, 2, dtype=torch.uint8)
    pixels[:, 4:, 1] = 255  # black; the left half shows what is behind it
    image = pil.frombytes("LA", (8, 8), bytes(pixels.flatten().tolist()))
    options = {}
    if mode == "P":
        image = pil.frombytes("P", (8, 8), bytes((pixels[..., 1] // 255).flatten().tolist()))
        image.putpalette([0, 0, 0, 0, 0, 0])
        options = {"transparency": 0}
    image.convert(mode).save(tmp_path / "a.png", **options)
    found = _pictures.read(tmp_path / "a.png", PREPARED)
    torch.testing.assert_close(found[:, :, :4], torch.full((1, 8, 4), (1 - 0.25) / 0.5))
    torch.testing.assert_close(found[:, :, 4:], torch.full((1, 8, 4), (0 - 0.25) / 0.5))


def test_pixels_of_16_bits_are_scaled_and_those_of_unknown_range_refused(tmp_path):
    pixels = drawn(8, 8)
    wide = bytes(byte for value in pixels.flatten().tolist() for byte in (value, value))
    path = tmp_path / "wide.png"
    pil.frombytes("I;16", (8, 8), wide).save(path)
    expected = _pictures.read(picture(tmp_path / "a.png", pixels), PREPARED)
    assert torch.equal(_pictures.read(path, PREPARED), expected)
    pil.new("F", (8, 8), 0.5).save(tmp_path / "float.tiff")
    with pytest.raises(UserError, match="pixels of 32 bits"):
        _pictures.read(tmp_path / "float.tiff", PREPARED)


@pytest.mark.parametrize(("name", "value"), [("mean", "nan"), ("std", "inf"), ("std", "-1")])
def test_pixels_are_normalised_by_finite_numbers(name, value):
    with pytest.raises(UserError, match=f"--{name} is "):
        _pictures.preparation(describe(), **{name: [float(value)]})
