"""Sums of the operators over shapes, exactly those of the specification."""

import functools

import pytest
import torch

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.kernels import Geometry
from tests.kernels._layers import CODES, Layer, assert_layout, assert_same, drawn, layer_of, sums


@pytest.mark.parametrize("seed", range(96))
def test_drawn_layers(isa, seed):
    layer = drawn(seed)
    panel = layer.panel(isa)
    for packed in (False, True):
        for channels_last in (False, True):
            got = layer.run(isa, channels_last=channels_last, panel=panel, packed=packed)
            assert_same(got, sums(seed))
            assert_layout(got, channels_last)


DEPTHS = [*range(1, 132), *range(190, 195), *range(255, 262), *range(319, 323), *range(383, 387)]
DEPTHS += [*range(447, 451), *range(509, 516), 575, 640, 1000, 1024, 4607, 4608, 4609]


@functools.cache
def deep() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 4609), torch.randint(0, 2, (19, 4609)) * 2 - 1


def test_every_depth(isa):
    x, weight = deep()
    signs = torch.where(x < 0, -1, 1)
    for k in DEPTHS:
        words = spec.prepare_words(weight[:, :k])
        layer = Layer(Geometry.of(k, 19), words, x[:, :k])
        expected = (signs[:, :k].double() @ weight[:, :k].double().T).int()
        assert_same(layer.run(isa), expected)
        assert_same(layer.run(isa, packed=True), expected)


@pytest.mark.parametrize("signs", ["equal", "opposite", "drawn"])
@pytest.mark.parametrize("k", [255, 256, 2040, 4608, 32768, 65535, 65536, 70000])
def test_depths_that_overflow_8_and_16_bits(isa, k, signs):
    x = torch.randn(3, k).sign()
    weight = torch.randint(0, 2, (17, k)) * 2 - 1
    if signs != "drawn":
        x, weight = x[:1].clone(), x[:1].long().expand(17, k)
        x = x if signs == "equal" else -x
    layer = Layer(Geometry.of(k, 17), spec.prepare_words(weight), x)
    expected = (x.double() @ weight.double().T).int()
    assert_same(layer.run(isa), expected)


@pytest.mark.parametrize("out", [1, 70])
def test_windows_that_overflow_16_bits(isa, out):
    g = Geometry.of(8192, out, kernel=(3, 3), before=(1, 1), after=(1, 1), pad=0)
    layer = Layer(g, torch.zeros(1, out, 9, 128).long(), -torch.ones(1, 8192, 3, 3))
    rows = torch.tensor([2, 3, 2])
    expected = (-8192 * rows.view(3, 1) * rows).int().expand(1, out, 3, 3)
    assert_same(layer.run(isa), expected.contiguous())


WIDE = Geometry.of(70, 200, kernel=(3, 3), before=(1, 1), after=(1, 1))


@functools.cache
def wide(dims: int) -> tuple[Layer, torch.Tensor]:
    """A layer of 200 filters, of which the first o are a layer too."""
    g = Geometry.of(70, 200) if dims == 0 else WIDE
    layer = layer_of(g, () if dims == 0 else (3, 7), n=3 if dims else 11, per_channel=False)
    return layer, layer.expected()


@pytest.mark.parametrize("dims", [0, 2])
def test_every_number_of_filters(isa, dims):
    layer, expected = wide(dims)
    for o in range(1, 201):
        g = layer.geometry._replace(out_channels=o)
        part = Layer(g, layer.words[:, :o].contiguous(), layer.x, layer.thresholds)
        got = part.run(isa, channels_last=o % 2 == 0)
        assert_same(got, expected[:, :o])


@pytest.mark.parametrize("out", [16, 33, 200])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_number_of_rows(isa, out, channels_last):
    layer = layer_of(Geometry.of(130, out), n=200)
    expected, panel = layer.expected(), layer.panel(isa)
    for n in [*range(70), 95, 96, 97, 127, 128, 129, 199, 200]:
        part = layer._replace(x=layer.x[:n])
        got = part.run(isa, panel=panel, channels_last=channels_last)
        assert got.shape == (n, out)
        assert_same(got, expected[:n])


@pytest.mark.parametrize("out", [5, 64])
def test_every_batch(isa, out):
    g = Geometry.of(65, out, kernel=(3, 3), before=(1, 1), after=(1, 1), pad=0)
    layer = layer_of(g, (5, 7), n=20)
    expected, panel = layer.expected(), layer.panel(isa)
    for n in range(21):
        for channels_last in (False, True):
            part = layer._replace(x=layer.x[:n])
            got = part.run(isa, panel=panel, channels_last=channels_last)
            assert got.shape == (n, out, 5, 7)
            assert_same(got, expected[:n])


@functools.cache
def row(width: int, stride: int, out: int) -> tuple[Layer, torch.Tensor]:
    g = Geometry.of(70, out, kernel=(3, 3), stride=(1, stride), before=(1, 1), after=(1, 2))
    layer = layer_of(g, (2, width), n=1, seed=width)
    return layer, layer.expected()


@pytest.mark.parametrize("out", [8, 65])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_width(isa, stride, out):
    for width in [*range(1, 37), 47, 48, 49, *range(62, 68), *range(126, 132)]:
        layer, expected = row(width, stride, out)
        assert_same(layer.run(isa), expected)
        assert_same(layer.run(isa, channels_last=True, packed=True), expected)


EDGES = {
    "one pixel": ((1, 1), {"kernel": (1, 1)}),
    "one pixel, kernel of padding": ((1, 1), {"kernel": (3, 3), "before": (1, 1), "after": (1, 1)}),
    "padding wider than the image": (
        (2, 1),
        {"kernel": (3, 3), "before": (9, 5), "after": (4, 20)},
    ),
    "nothing but padding": (
        (1, 2),
        {"kernel": (2, 2), "stride": (5, 9), "before": (4, 8), "after": (3, 9)},
    ),
    "padding before": ((4, 5), {"kernel": (3, 2), "before": (2, 3)}),
    "padding after": ((4, 5), {"kernel": (3, 2), "after": (2, 3)}),
    "stride over the edge": ((4, 6), {"kernel": (2, 2), "stride": (7, 9)}),
    "stride past pixels": ((9, 11), {"kernel": (1, 1), "stride": (4, 3)}),
    "stride and padding": (
        (9, 40),
        {"kernel": (3, 5), "stride": (2, 3), "before": (1, 2), "after": (2, 1)},
    ),
    "dilation": ((9, 30), {"kernel": (3, 3), "dilation": (4, 7)}),
    "dilation into padding": (
        (4, 5),
        {"kernel": (3, 3), "dilation": (5, 4), "before": (5, 4), "after": (5, 4)},
    ),
    "kernel of the whole image": ((7, 6), {"kernel": (7, 6)}),
    "large kernel": ((12, 12), {"kernel": (11, 11), "before": (5, 5), "after": (5, 5)}),
    "even kernel": ((6, 70), {"kernel": (4, 2), "before": (1, 0), "after": (2, 1)}),
    "long row": ((3, 300), {"kernel": (1, 7), "before": (0, 3), "after": (0, 3)}),
    "depth": (
        (4, 3, 5),
        {"kernel": (3, 2, 3), "stride": (2, 1, 2), "before": (1, 0, 1), "after": (0, 1, 2)},
    ),
    "depth of padding": ((1, 2, 2), {"kernel": (3, 1, 1), "before": (4, 0, 1), "after": (2, 1, 0)}),
    "line": ((70,), {"kernel": (5,), "stride": (2,), "before": (3,), "after": (9,)}),
    "line of one": ((1,), {"kernel": (3,), "dilation": (4,), "before": (4,), "after": (4,)}),
}


@functools.cache
def at_the_edge(name: str, pad: int) -> tuple[Layer, torch.Tensor]:
    spatial, options = EDGES[name]
    layer = layer_of(Geometry.of(65, 33, **options, pad=pad), spatial)
    return layer, layer.expected()


@pytest.mark.parametrize("pad", [-1, 0, 1])
@pytest.mark.parametrize("name", EDGES)
def test_edges(isa, name, pad):
    layer, expected = at_the_edge(name, pad)
    for channels_last in (False, True):
        assert_same(layer.run(isa, channels_last=channels_last), expected)


@functools.cache
def grouped(channels: int, out: int, groups: int) -> tuple[Layer, torch.Tensor]:
    g = Geometry.of(channels, out, groups, (3, 3), (1, 2), (1, 1), (1, 1))
    layer = layer_of(g, (5, 18))
    return layer, layer.expected()


@pytest.mark.parametrize(
    ("channels", "out", "groups"),
    [(6, 6, 6), (64, 64, 64), (4, 12, 4), (130, 66, 2), (128, 128, 2), (99, 33, 3), (192, 256, 4)],
)
def test_groups(isa, channels, out, groups):
    layer, expected = grouped(channels, out, groups)
    for channels_last in (False, True):
        for packed in (False, True):
            assert_same(layer.run(isa, channels_last=channels_last, packed=packed), expected)


@functools.cache
def coded(code_x, code_w, pad: int, offset: int, groups: int) -> tuple[Layer, torch.Tensor]:
    planes = {"planes_x": code_x[0], "thermometer_x": code_x[1]}
    planes |= {"planes_w": code_w[0], "thermometer_w": code_w[1]}
    ends = {"before": (1, 1), "after": (0, 2)}
    g = Geometry.of(66, 34, groups, (2, 3), pad=pad, offset=offset, **ends, **planes)
    layer = layer_of(g, (3, 7))
    return layer, layer.expected()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("pad", "offset"), [(0, 0), (-3, 0), (2, 1), (0, -5), (-100, 77)])
@pytest.mark.parametrize("code_w", [(1, 0), (2, 0), (4, 0), (2, 1)], ids=str)
@pytest.mark.parametrize("code_x", [(1, 0), *CODES], ids=str)
def test_codes(isa, code_x, code_w, pad, offset, groups):
    layer, expected = coded(code_x, code_w, pad, offset, groups)
    assert_same(layer.run(isa), expected)
    assert_same(layer.run(isa, channels_last=True, packed=True), expected)


@pytest.mark.parametrize("planes", [(8, 1), (1, 8), (5, 7)], ids=str)
def test_as_many_planes_as_there_may_be(isa, planes):
    layer = layer_of(Geometry.of(100, 18, planes_x=planes[0], planes_w=planes[1]), n=3)
    assert_same(layer.run(isa), layer.expected())


NETWORKS = {
    "64@56": ((56, 56), Geometry.of(64, 64, 1, (3, 3), (1, 1), (1, 1), (1, 1), pad=0)),
    "128@28": ((28, 28), Geometry.of(128, 128, 1, (3, 3), (1, 1), (1, 1), (1, 1))),
    "256@14": ((14, 14), Geometry.of(256, 256, 1, (3, 3), (1, 1), (1, 1), (1, 1), pad=0)),
    "512@7": ((7, 7), Geometry.of(512, 512, 1, (3, 3), (1, 1), (1, 1), (1, 1), pad=1)),
    "stride 2": ((28, 28), Geometry.of(128, 256, 1, (3, 3), (2, 2), (1, 1), (1, 1))),
    "1x1": ((14, 14), Geometry.of(256, 512, 1, (1, 1))),
    "1x1, stride 2": ((28, 28), Geometry.of(64, 128, 1, (1, 1), (2, 2))),
    "2-bit input": ((14, 14), Geometry.of(256, 64, 1, (3, 3), planes_x=2, offset=3, pad=0)),
    "linear": ((), Geometry.of(1024, 1000)),
}


@functools.cache
def network(name: str) -> tuple[Layer, torch.Tensor]:
    spatial, g = NETWORKS[name]
    layer = layer_of(g, spatial, n=2 if spatial else 65)
    return layer, layer.expected()


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_networks(isa, name):
    layer, expected = network(name)
    panel = layer.panel(isa)
    for channels_last in (False, True):
        for packed in (False, True):
            got = layer.run(isa, channels_last=channels_last, packed=packed, panel=panel)
            assert_same(got, expected)
    one = layer._replace(x=layer.x[:1])
    assert_same(one.run(isa, panel=panel), expected[:1])


def test_one_hot_bits(isa):
    # Filter o is negative at channel o alone, row i of the input at channel i alone.
    k = 130
    signs = 1 - 2 * torch.eye(k)
    layer = Layer(Geometry.of(k, k), spec.prepare_words(signs.long()), signs)
    expected = (k - 4 + 4 * torch.eye(k)).int()
    assert_same(layer.run(isa), expected)
    assert_same(layer.run(isa, packed=True), expected)


def test_one_hot_taps(isa):
    # Filter t is negative at tap t alone; in the middle of an image negative at one pixel
    # alone, that pixel is seen by the tap that lies over it.
    g = Geometry.of(1, 15, kernel=(3, 5))
    filters = 1 - 2 * torch.eye(15).view(15, 1, 3, 5)
    images = 1 - 2 * torch.eye(15).view(15, 1, 3, 5)
    layer = Layer(g, spec.prepare_words(filters.long()), images)
    assert_same(layer.run(isa), (11 + 4 * torch.eye(15)).int().view(15, 15, 1, 1))


@pytest.mark.parametrize("pad", [-1, 0])
def test_flipping_one_input_moves_the_results_by_two_weights(isa, pad):
    g = Geometry.of(70, 20, kernel=(3, 3), before=(1, 1), after=(1, 1), pad=pad)
    layer = layer_of(g, (4, 5), per_channel=False)
    weight = spec.weight_integers(layer.words, g)[:, :, 0]
    panel, before = layer.panel(isa), layer.run(isa)
    for n, c, i, j in [(0, 0, 0, 0), (1, 69, 3, 4), (1, 63, 0, 4), (0, 64, 2, 2), (1, 31, 3, 0)]:
        x = layer.x.clone()
        x[n, c, i, j] = new = -1.0 if x[n, c, i, j] >= 0 else 1.0
        moved = torch.zeros(2, 20, 6, 7, dtype=torch.int32)
        moved[n, :, i : i + 3, j : j + 3] = (2 * new * weight[:, c].flip(1, 2)).int()
        after = layer._replace(x=x).run(isa, panel=panel)
        assert_same(after - before, moved[:, :, 1:-1, 1:-1])


def test_a_layer_of_nothing(isa):
    g = Geometry.of(70, 33, kernel=(3, 3), before=(1, 1), after=(1, 1))
    layer = layer_of(g, (5, 6))
    layer, panel = layer._replace(x=layer.x[:0]), layer.panel(isa)
    v = layer.run(isa, panel=panel)
    assert (v.shape, v.dtype) == ((0, 33, 5, 6), torch.int32)
    assert layer.run(isa, panel=panel, packed=True, channels_last=True).shape == (0, 33, 5, 6)
    t = torch.zeros(2, 33, dtype=torch.int32)
    assert layer.run(isa, spec.BITS, t, panel=panel).shape == (0, 1, 5, 6)
    y, bits = kernels.bconv_both(
        layer.x, panel, torch.zeros(1, 33), layer.thresholds, None, g, (), True
    )
    assert (y.shape, bits.shape) == ((0, 33, 5, 6), (0, 1, 5, 6))
