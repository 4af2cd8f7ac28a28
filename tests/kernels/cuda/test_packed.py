"""The GPU's packed kernels against the specification: on the processor, and on a GPU if any."""

import functools
import random

import pytest
import torch

from lowbit.functional import packed_conv as spec
from lowbit.functional.packed_geometry import Geometry
from lowbit.kernels import cuda
from lowbit.kernels.cuda import _conv, _driver, _tiles
from tests.kernels._layers import (
    Layer,
    assert_layout,
    assert_same,
    drawn,
    drawn_codes,
    layer_of,
    pack_channels,
    sums,
)
from tests.kernels.cuda.emulate import Emulated
from tests.kernels.test_ops import SPECIAL, fills_words, floats

FOLDER = _driver.FOLDER


@functools.cache
def emulated() -> Emulated:
    return Emulated([FOLDER / "device.cuh"])


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run: emulated on the processor, or on the GPU."""
    if request.param == "cpu":
        monkeypatch.setattr(_driver, "kernel", _emulated_kernel)
        # Whose address a launch may have been given; an access to other memory is an error.
        monkeypatch.setattr(torch.Tensor, "data_ptr", _noted_data_ptr)
        _addressed.clear()
    return request.param


_addressed: list[torch.Tensor] = []
_data_ptr = torch.Tensor.data_ptr


def _noted_data_ptr(tensor: torch.Tensor) -> int:
    _addressed.append(tensor)
    return _data_ptr(tensor)


def _emulated_kernel(name, defines, device):
    launch = emulated().compile(FOLDER / f"{name}.cu", f"lowbit_{name}", dict(defines))
    return lambda *arguments: launch(*arguments, arrays=list(_addressed))


def with_tile(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Divide the work by one of the tiles; that of several planes by one that serves them."""
    chosen = _tiles.TILES[number % len(_tiles.TILES)]

    def choose(rows, filters, groups, steps, planes, processors):
        tiles = _tiles.PLANES_TILES if planes else _tiles.TILES
        return chosen if chosen in tiles else tiles[0]

    monkeypatch.setattr(_tiles, "choose", choose)


@pytest.fixture(params=range(len(_tiles.TILES)))
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to divide the work."""
    with_tile(monkeypatch, request.param)


def on(device: str, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if t is None else t.to(device) for t in tensors]


def run(
    device: str,
    layer: Layer,
    out=spec.INT,
    params=None,
    residual=None,
    steps=(),
    channels_last=False,
    packed=False,
):
    """The operator's kernel; its result on the processor."""
    g = layer.geometry
    x, thresholds = (layer.packed, None) if packed else (layer.x, layer.thresholds)
    x, words, params, thresholds, residual = on(
        device, x, layer.words, params, thresholds, residual
    )
    panel = cuda.prepare(words, list(g), "")
    given = (x, panel, params, thresholds, residual, g.layer(steps))
    if out == _conv.BOTH:
        return [t.cpu() for t in cuda.bconv_both(*given, channels_last)]
    return cuda.bconv(*given, out, channels_last).cpu()


@pytest.mark.parametrize("seed", range(35))
def test_sums_of_drawn_layers(device, monkeypatch, seed):
    with_tile(monkeypatch, seed)
    layer = drawn(seed)
    assert_same(run(device, layer, packed=seed % 2 == 0), sums(seed))
    got = run(device, layer, channels_last=True)
    assert_same(got, sums(seed))
    assert_layout(got, True)


@pytest.mark.parametrize("seed", range(35, 70))
def test_drawn_steps_floats_and_bits(device, monkeypatch, seed):
    with_tile(monkeypatch, seed)
    layer = drawn(seed)
    steps, params, residual, y, bits = floats(seed)
    rows = params[:-1] if len(params) > 1 else None
    for channels_last in (False, True):
        got = run(device, layer, spec.FLOAT, rows, residual, steps, channels_last)
        assert_same(got, y)
        assert_layout(got, channels_last)
        if not fills_words(layer.geometry):
            continue
        both = run(device, layer, _conv.BOTH, params, residual, steps, channels_last)
        assert_same(both[0], y)
        assert_same(both[1], bits)
        assert both[1].is_contiguous()


@pytest.mark.parametrize("filters", [1, 63, 64, 65, 130, 200, 256])
def test_bits_of_thresholds(device, monkeypatch, filters):
    with_tile(monkeypatch, filters)
    g = Geometry.of(70, filters, kernel=(3, 3), before=(1, 1), after=(1, 0))
    layer = layer_of(g, (5, 9), n=3)
    v = layer.expected()
    generator = torch.Generator().manual_seed(filters)
    t = v.movedim(1, 0).flatten(1)[:, 7].clone()
    t[::7], t[3::7] = -(2**31), 2**31 - 1
    flip = torch.randint(0, 2, (filters,), generator=generator).int()
    expected = pack_channels((v < t.view(1, -1, 1, 1)) ^ flip.view(1, -1, 1, 1).bool())
    assert_same(run(device, layer, spec.BITS, torch.stack([t, flip])), expected)


def test_groups_of_whole_words_give_packed_results(device, tile):
    g = Geometry.of(66, 256, 2, (3, 3), before=(1, 1), after=(1, 1))
    layer = layer_of(g, (3, 5))
    params = torch.stack([torch.arange(256) % 9 - 4, torch.arange(256) % 2]).int()
    assert_same(run(device, layer, spec.BITS, params), layer.expected(spec.BITS, params))


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 8192, 130), (1, 64, 1), (17, 1000, 65), (300, 129, 257), (129, 4096, 8)]
)
def test_linear_layers_from_one_row_to_many(device, tile, m, k, n):
    layer = layer_of(Geometry(k, n), n=m, per_channel=False)
    assert_same(run(device, layer), layer.expected())


def test_a_residual_whose_axis_of_one_element_has_any_stride(device):
    g = Geometry.of(64, 70, kernel=(3, 1), before=(1, 0), after=(1, 0))
    layer = layer_of(g, (6, 1))
    residual = torch.randn(2, 70, 1, 6).transpose(2, 3)
    assert residual.is_contiguous()
    assert residual.stride(-1) != 1
    steps = [spec.RESIDUAL]
    expected = layer.expected(spec.FLOAT, None, residual, steps)
    assert_same(run(device, layer, spec.FLOAT, None, residual, steps), expected)


def test_no_images_give_no_outputs(device):
    layer = layer_of(Geometry.of(64, 70, kernel=(3,)), (9,), n=1)
    layer = layer._replace(x=layer.x[:0])
    assert run(device, layer).shape == (0, 70, 7)


@pytest.mark.parametrize("shape", [(3, 70), (2, 130, 5), (2, 64, 4, 7), (1, 33, 2, 3, 4)])
@pytest.mark.parametrize("code", [(1, 0), (2, 0), (3, 1), (8, 1)])
def test_coding_in_any_layout(device, shape, code):
    planes, thermometer = code
    x = torch.randn(shape)
    x.view(-1)[: len(SPECIAL)] = SPECIAL
    count = planes if thermometer else 2**planes - 1
    for thresholds in (torch.randn(count, shape[1]), torch.randn(count), None):
        if thresholds is None and planes > 1:
            continue
        if thresholds is not None:
            thresholds = thresholds.sort(0).values
        expected = spec.code(x, thresholds, planes, bool(thermometer), 1)
        for laid in (x, x.movedim(1, -1).contiguous().movedim(-1, 1), x.flip(0).flip(0)[:, :]):
            x_there, t_there = on(device, laid, thresholds)
            got = cuda.pack(x_there, t_there, planes, bool(thermometer), 1)
            assert_same(got.cpu(), expected)
    strided = torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]
    groups = 2 if shape[1] % 2 == 0 else 1
    got = cuda.pack(strided.to(device), None, 1, False, groups)
    assert_same(got.cpu(), spec.code(strided, None, 1, False, groups))


@pytest.mark.parametrize("seed", range(12))
def test_pooling(device, seed):
    rng = random.Random(seed)
    kernel = [rng.choice([1, 2, 3, 4]) for _ in range(2)]
    stride = [rng.choice([1, 2, 3]) for _ in range(2)]
    padding = [rng.randint(0, k // 2) for k in kernel]
    ceil_mode = rng.random() < 0.5
    x = torch.randint(-(2**62), 2**62, (2, 3, 9, 11))
    flip = torch.randint(-(2**62), 2**62, (3,)) if seed % 2 else None
    given = (kernel, stride, padding, [1, 1], ceil_mode)
    x_there, flip_there = on(device, x, flip)
    got = cuda.max_pool_bits(x_there, *given, flip_there)
    assert_same(got.cpu(), spec.max_pool_bits(x, *given, flip))


def test_a_prepared_weight_is_of_its_geometry(device):
    layer = layer_of(Geometry(64, 10))
    (x, words) = on(device, layer.x, layer.words)
    panel = cuda.prepare(words, list(layer.geometry), "")
    with pytest.raises(ValueError, match="prepared for"):
        cuda.bconv(x, panel, None, None, None, Geometry(64, 11).layer(), spec.INT, False)
    other = panel.clone()  # it says itself what it is
    thresholds = layer.thresholds.to(device)
    got = cuda.bconv(x, other, None, thresholds, None, layer.geometry.layer(), spec.INT, False)
    assert_same(got.cpu(), layer.expected())
    for wrong in (panel[:-1].clone(), torch.zeros_like(panel), panel.char()):
        with pytest.raises(ValueError, match="no weight prepared"):
            cuda.bconv(x, wrong, None, thresholds, None, layer.geometry.layer(), spec.INT, False)


def test_codes_at_their_extremes(device, tile):
    g = Geometry.of(128, 64, kernel=(2,), planes_x=8, planes_w=8, pad=255, before=(1,))
    layer = layer_of(g, (4,))
    codes = drawn_codes(torch.Generator().manual_seed(0), (64, 128, 2), 8, 0)
    codes[:32] = 255
    layer = layer._replace(words=spec.prepare_words(codes, 8))
    assert_same(run(device, layer), layer.expected())


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_compile_for_architectures_without_a_gpu(architecture, tmp_path, monkeypatch):
    monkeypatch.setenv("LOWBIT_CACHE", str(tmp_path))
    if torch.version.cuda is None:
        pytest.skip("torch is built without CUDA, so there is no NVRTC")
    tile = _tiles.TILES[-1]
    for name, defines in (
        ("pool", ()),
        ("pack", (("PLANES", 2), ("THERMOMETER", 0), ("ALONG_CHANNELS", 1))),
        ("conv", (*_conv._macros(tile), ("PAIRS", 0), ("OUT", 0), ("POINT", 0))),
    ):
        text = _driver.source(name)
        image = _driver.compiled(text, defines, architecture)
        assert image.startswith(b"\x7fELF")
        with monkeypatch.context() as patch:  # the next process finds it
            patch.setattr(_driver, "_bytes", None)
            assert _driver.compiled(text, defines, architecture) == image
    assert len(list(tmp_path.iterdir())) == 3
