"""The specification of packed layers against float arithmetic, and the operators against it."""

import itertools
import json
import random
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.functional import packing, xnor
from lowbit.functional.packed_geometry import Geometry, largest_code, threshold_count
from lowbit.functional.thresholds import integer_thresholds

CODES = [(1, False), (2, False), (3, False), (1, True), (2, True), (4, True)]


def drawn_geometry(rng: random.Random, dims: int, **fixed: int) -> Geometry:
    groups = rng.choice([1, 1, 1, 2, 3])
    planes = {}
    for operand in "xw":
        planes[f"planes_{operand}"], planes[f"thermometer_{operand}"] = map(int, rng.choice(CODES))
    options: dict = {
        "channels": groups * rng.choice([1, 2, 31, 63, 64, 65, 70]),
        "out_channels": groups * rng.choice([1, 3, 64]),
        "groups": groups,
        "kernel": [rng.choice([1, 2, 3]) for _ in range(dims)],
        "stride": [rng.choice([1, 2, 3]) for _ in range(dims)],
        "before": [rng.choice([0, 1, 2]) for _ in range(dims)],
        "after": [rng.choice([0, 1, 3]) for _ in range(dims)],
        "dilation": [rng.choice([1, 2]) for _ in range(dims)],
        "pad": rng.choice([-1, 0, 1, 5]),
        "offset": rng.choice([0, 0, 3, -2]),
    }
    return Geometry.of(**{**options, **planes, **fixed})


def drawn_codes(shape, planes: int, thermometer: bool) -> torch.Tensor:
    largest = largest_code(planes, thermometer)
    return torch.randint(0, threshold_count(planes, thermometer) + 1, shape) * 2 - largest


def packed(a: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Planes of integers (n, c, ...), by the words' definition and one bit at a time."""
    planes = spec.planes_of(a, geometry.planes_x, geometry.thermometer_x)
    per_group = geometry.channels // geometry.groups
    n, spatial = a.shape[0], a.shape[2:]
    words = torch.zeros(n, geometry.planes_x * geometry.groups * geometry.words, *spatial).long()
    for plane, c in itertools.product(range(geometry.planes_x), range(geometry.channels)):
        group, place = divmod(c, per_group)
        word = (plane * geometry.groups + group) * geometry.words + place // 64
        words[:, word] |= planes[plane][:, c].long() << (place % 64)
    return words


def cases(count: int) -> list[tuple[int, int]]:
    return [(seed, seed % 4) for seed in range(count)]


@pytest.mark.parametrize(("seed", "dims"), cases(32))
def test_sums_are_those_of_a_float_convolution(seed, dims):
    rng = random.Random(seed)
    g = drawn_geometry(rng, dims)
    spatial = [rng.choice([5, 6, 9]) for _ in range(dims)]
    a = drawn_codes((2, g.channels, *spatial), g.planes_x, g.thermometer_x)
    b = drawn_codes(
        (g.out_channels, g.channels // g.groups, *g.kernel[3 - dims :]),
        g.planes_w,
        g.thermometer_w,
    )
    words = spec.prepare_words(b, g.planes_w, bool(g.thermometer_w))
    assert words.shape == (g.planes_w, g.out_channels, g.taps, g.words)
    got = spec.packed_conv(packed(a, g), words, None, None, None, g, [], spec.INT)

    image = (a + g.offset).double()
    ends = [e for axis in reversed(range(3 - dims, 3)) for e in (g.before[axis], g.after[axis])]
    if dims == 0:
        expected = torch.cat(
            [
                x @ w.T
                for x, w in zip(image.chunk(g.groups, 1), b.double().chunk(g.groups), strict=True)
            ],
            1,
        )
    else:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        expected = convolve(
            F.pad(image, ends, value=g.pad),
            b.double(),
            None,
            g.stride[3 - dims :],
            0,
            g.dilation[3 - dims :],
            g.groups,
        )
    assert got.dtype == torch.int32
    assert torch.equal(got.double(), expected)
    assert got.abs().max() <= g.bound


@pytest.mark.parametrize("pad", [-1, 0, 1])
def test_of_signs_it_is_xnor(pad):
    x, w = torch.randn(2, 70, 6, 5), torch.randn(8, 35, 3, 3)
    g = Geometry.of(70, 8, 2, (3, 3), (2, 1), (1, 2), (1, 2), pad=pad)
    words = spec.prepare_words(torch.where(w < 0, -1, 1))
    got = spec.packed_conv(x, words, None, None, None, g, [], spec.INT)
    expected = xnor.bconv(x, w, (2, 1), (1, 2), groups=2, pad_value=pad)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(("planes", "thermometer"), CODES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_real_input_is_coded_by_how_many_thresholds_it_is_below(planes, thermometer, per_channel):
    count = threshold_count(planes, thermometer)
    thresholds = torch.randn(count, 6).sort(0).values
    thresholds = thresholds if per_channel else thresholds[:, 0].clone()
    x = torch.randn(3, 6, 7)
    x[0, :, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    x[1, 0, 0] = thresholds.flatten()[0]  # equal is not below
    g = Geometry.of(6, 1, 2, planes_x=planes, thermometer_x=int(thermometer))
    words = spec.code(x, thresholds, planes, thermometer, 2)
    assert words.shape == (3, planes * 2, 7)
    got = spec.input_integers(words, None, g)
    for n, c, i in itertools.product(range(3), range(6), range(7)):
        own = thresholds[:, c] if per_channel else thresholds
        r = sum(bool(x[n, c, i] < t) for t in own)
        assert got[n, c, i] == largest_code(planes, thermometer) - 2 * r


def test_zeros_are_positive_and_a_nan_is_too():
    x = torch.tensor([[0.0, -0.0, -1e-45, float("nan"), -1.0]])
    assert spec.code(x, None, 1, False, 1).item() == 0b10100


def test_the_integers_of_planes_are_what_they_were_made_of():
    for planes, thermometer in CODES:
        largest = largest_code(planes, thermometer)
        a = torch.arange(-largest, largest + 1, 2)
        assert torch.equal(
            spec.integers_of(spec.planes_of(a, planes, thermometer), thermometer).long(), a
        )


def test_fma_rounds_once():
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(4000, generator=generator) for _ in range(3)]
    draw[2][::2] *= 1e-7
    # Halfway between two float32 but for a bit beyond float64: rounding twice gives the other.
    a = torch.tensor([1 + 2.0**-23, 3.0])
    b = torch.tensor([1 + 2.0**-1, 1 + 2.0**-23])
    c = torch.tensor([2.0**-60, -(2.0**-70)])
    for x, y, z in (draw, (a, b, c)):
        got = spec.fma(x, y, z)
        exact = [
            Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r))
            for p, q, r in zip(x, y, z, strict=True)
        ]
        below = torch.nextafter(got, torch.tensor(-torch.inf))
        above = torch.nextafter(got, torch.tensor(torch.inf))
        for value, near in zip(exact, zip(below, got, above, strict=True), strict=True):
            low, mid, high = (abs(Fraction(float(v)) - value) for v in near)
            assert mid <= min(low, high)
    twice = (a.double() * b.double() + c.double()).float()
    assert not torch.equal(spec.fma(a, b, c), twice)
    odd = torch.tensor([float("inf"), float("nan"), 0.0])
    assert torch.equal(
        spec.fma(odd, odd + 1, odd * 0 + 1).isnan(), torch.tensor([True, True, False])
    )


def layer(seed=0, c=70, o=65, **options):
    torch.manual_seed(seed)
    g = Geometry.of(c, o, 1, (3, 3), (1, 1), (1, 1), (1, 1), **options)
    words = spec.prepare_words(drawn_codes((o, c, 3, 3), 1, False))
    return g, words, torch.randn(2, c, 5, 6)


def test_steps_are_torch_modules_in_order():
    g, words, x = layer()
    scale, bias, slope, shift, scale2, bias2 = params = torch.randn(6, 65)
    residual = torch.randn(2, 65, 5, 6)
    v = spec.packed_conv(x, words, None, None, None, g, [], spec.INT).float()
    steps = [spec.AFFINE, spec.PRELU, spec.RESIDUAL, spec.SHIFT, spec.AFFINE, spec.HARDTANH]
    got = spec.packed_conv(x, words, params, None, residual, g, steps, spec.FLOAT)
    over = (-1, 1, 1)
    y = F.prelu(scale.view(over) * v + bias.view(over), slope)
    y = (y + residual + shift.view(over)) * scale2.view(over) + bias2.view(over)
    torch.testing.assert_close(got, F.hardtanh(y), rtol=1e-5, atol=1e-5)
    both, bits = spec.packed_conv_both(
        x, words, torch.cat([params, params[:1]]), None, residual, g, steps
    )
    assert torch.equal(both, got)
    negative = got < params[0].view(over)
    assert torch.equal(packing.unpack_bits(bits.movedim(1, -1), 65), negative.movedim(1, -1))
    relu = spec.packed_conv(x, words, params[:2], None, None, g, [spec.AFFINE, spec.RELU], 1)
    affine = spec.packed_conv(x, words, params[:2], None, None, g, [spec.AFFINE], 1)
    assert torch.equal(relu, affine.relu())


def test_bits_by_thresholds_are_the_signs_of_what_stands_between():
    g, words, x = layer()
    scale, shift = torch.randn(65), 40 * torch.randn(65)
    scale[:3] = torch.tensor([0.0, -0.0, 1e-30])
    t, flip = integer_thresholds(lambda v: scale * v + shift, g.bound)
    params = torch.stack([t, flip.int()])
    got = spec.packed_conv(x, words, params, None, None, g, [], spec.BITS)
    v = spec.packed_conv(x, words, None, None, None, g, [], spec.INT).float()
    negative = scale.view(-1, 1, 1) * v + shift.view(-1, 1, 1) < 0
    assert negative.any()
    assert torch.equal(packing.unpack_bits(got.movedim(1, -1), 65), negative.movedim(1, -1))


@pytest.mark.parametrize(
    "window",
    [
        ((2, 2), (2, 2), (0, 0), (1, 1), False),
        ((3, 2), (2, 1), (1, 1), (1, 2), False),
        ((3, 3), (2, 2), (1, 1), (1, 1), True),
        ((5, 1), (3, 3), (2, 0), (1, 1), True),
    ],
    ids=str,
)
def test_pooling_bits_is_pooling_signs(window):
    x = torch.randn(2, 70, 8, 7)
    words = spec.code(x, None, 1, False, 1)
    got = kernels.max_pool_bits(words, *window)
    signs = torch.where(x < 0, -1.0, 1.0)
    expected = F.max_pool2d(signs, *window)
    assert torch.equal(got, spec.code(expected, None, 1, False, 1))
    flip = torch.tensor([-1, 0b101])
    flipped = kernels.max_pool_bits(words, *window, flip)
    assert torch.equal(flipped, got ^ flip.view(1, 2, 1, 1))
    assert kernels.max_pool_bits(words[:0], *window).shape == (0, *got.shape[1:])


# The operators, compiled or not.


@pytest.mark.parametrize(("seed", "dims"), cases(16))
@pytest.mark.parametrize("channels_last", [False, True])
def test_operators_are_the_specification(seed, dims, channels_last):
    rng = random.Random(1000 + seed)
    g = drawn_geometry(rng, dims)
    spatial = [rng.choice([5, 6, 9]) for _ in range(dims)]
    x = torch.randn(2, g.channels, *spatial)
    count = threshold_count(g.planes_x, g.thermometer_x)
    thresholds = torch.randn(count, g.channels).sort(0).values
    b = drawn_codes(
        (g.out_channels, g.channels // g.groups, *g.kernel[3 - dims :]),
        g.planes_w,
        g.thermometer_w,
    )
    words = spec.prepare_words(b, g.planes_w, bool(g.thermometer_w))
    panel = kernels.prepare(words, g)
    planes = kernels.pack(x, thresholds, g.planes_x, bool(g.thermometer_x), g.groups)
    assert torch.equal(
        planes, spec.code(x, thresholds, g.planes_x, bool(g.thermometer_x), g.groups)
    )
    params = torch.randn(3, g.out_channels)
    for given, t in ((x, thresholds), (planes, None)):
        v = kernels.bconv(given, panel, None, t, None, g, channels_last=channels_last)
        expected = spec.packed_conv(x, words, None, thresholds, None, g, [], spec.INT)
        assert torch.equal(v, expected)
        y = kernels.bconv(given, panel, params[:2], t, None, g, [1], spec.FLOAT, channels_last)
        floats = spec.packed_conv(x, words, params[:2], thresholds, None, g, [1], spec.FLOAT)
        assert torch.equal(y, floats)
        last = y.movedim(1, -1).is_contiguous()
        assert last if channels_last else y.is_contiguous()
        if g.groups > 1 and g.out_channels // g.groups % packing.WORD:
            continue  # compiled kernels write whole words of each group
        y, bits = kernels.bconv_both(given, panel, params, t, None, g, [1], channels_last)
        expected = spec.packed_conv_both(x, words, params, thresholds, None, g, [1])
        assert torch.equal(y, expected[0])
        assert torch.equal(bits, expected[1])


def test_a_batch_of_nothing_is_one():
    g, words, x = layer()
    panel = kernels.prepare(words, g)
    assert kernels.bconv(x[:0], panel, None, None, None, g).shape == (0, 65, 5, 6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_operators_pass_opcheck(channels_last):
    g, words, x = layer()
    operators = torch.ops.lowbit
    panel, params = kernels.prepare(words, g), torch.randn(3, 65)
    ends = (g.layer([1, 3]), spec.FLOAT, channels_last)
    residual = torch.randn(2, 65, 5, 6)
    check = torch.library.opcheck
    check(operators.prepare.default, (words, list(g), ""))
    check(operators.pack.default, (x, None, 1, False, 1))
    check(operators.pack.default, (x, torch.randn(3, 70).sort(0).values, 2, False, 2))
    check(operators.bconv.default, (x, panel, params[:2], None, residual, *ends))
    check(operators.bconv.default, (x, panel, None, None, None, g.layer(), 0, channels_last))
    thresholds = torch.zeros(2, 65, dtype=torch.int32)
    check(operators.bconv.default, (x, panel, thresholds, None, None, g.layer(), 2, False))
    for given in (params, params[:2]):
        check(
            operators.bconv_both.default,
            (x, panel, given, None, None, g.layer([1]), channels_last),
        )
    pooling = ([3, 2], [2, 2], [1, 0], [1, 1], True, None)
    check(operators.max_pool_bits.default, (kernels.pack(x), *pooling))


def test_the_instruction_set_is_chosen_by_name(monkeypatch):
    monkeypatch.delenv("LOWBIT_ISA", raising=False)
    assert kernels.isa() == kernels.isas()[0]
    assert kernels.available() == (kernels.isas() != ("reference",))
    for name in kernels.isas():
        monkeypatch.setenv("LOWBIT_ISA", name)
        assert kernels.isa() == name
    monkeypatch.setenv("LOWBIT_ISA", "mmx")
    with pytest.raises(ValueError, match=r"'mmx'.*" + kernels.isas()[-1]):
        kernels.isa()


PROGRAM = """
import json, sys, types, warnings
sys.modules["lowbit.kernels._library"] = types.SimpleNamespace(load=lambda: "not built here")
import torch
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    from lowbit import kernels
    at_import = len(found)
    g = kernels.Geometry.of(3, 2)
    panel = kernels.prepare(torch.tensor([[[[0b001]], [[0b111]]]]), g)
    for _ in range(2):
        v = kernels.bconv(torch.tensor([[1.0, -1.0, 1.0]]), panel, None, None, None, g)
print(json.dumps([at_import, [str(w.message) for w in found], kernels.isas(), v.tolist()]))
"""


def test_without_a_compiled_library_plain_torch_runs_and_says_so_once():
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    at_import, warned, isas, v = json.loads(ran.stdout)
    assert at_import == 0
    assert len(warned) == 1
    assert "not built here" in warned[0]
    assert isas == ["reference"]
    assert v == [[-1, -1]]


def call(**changes):
    g, words, x = layer()
    given = {
        "x": x,
        "weight": kernels.prepare(words, g),
        "params": None,
        "thresholds": None,
        "residual": None,
        "geometry": g,
        "steps": (),
        "out": 0,
    }
    return kernels.bconv(**{**given, **changes})


other = Geometry.of(70, 64, 1, (3, 3), (1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"x": torch.zeros(2, 70, 5, 6, dtype=torch.float64)},
        {"x": torch.zeros(2, 71, 5, 6)},
        {"x": torch.zeros(2, 3, 5, 6, dtype=torch.int64)},
        {"x": torch.zeros(2, 70, 0, 6)},
        {"x": torch.zeros(70)},
        {"x": torch.zeros(2, 2, 5, 6, dtype=torch.int64), "thresholds": torch.zeros(1)},
        {"thresholds": torch.zeros(2)},
        {"thresholds": torch.zeros(1, dtype=torch.float64)},
        {"weight": torch.zeros(5, dtype=torch.uint8)},
        {"geometry": other},
        {"params": torch.zeros(2, 65)},
        {"out": 1, "steps": (1,), "params": torch.zeros(3, 65)},
        {"out": 1, "steps": (1,), "params": torch.zeros(2, 64)},
        {"out": 1, "steps": (1,)},
        {"out": 1, "steps": (3,)},
        {"out": 1, "steps": (3,), "residual": torch.zeros(2, 65, 5, 5)},
        {"out": 1, "steps": (9,)},
        {"out": 2, "params": torch.zeros(2, 65)},
        {"out": 3},
        {"steps": (2,)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_bad_input_is_refused(changes):
    with pytest.raises((ValueError, RuntimeError)):
        call(**changes)


def test_sums_that_int32_cannot_hold_are_refused():
    wide = {"planes_x": 8, "planes_w": 8}
    Geometry.of(4608, 1, **wide).check()
    with pytest.raises(ValueError, match=r"reach .*, more than"):
        Geometry.of(40000, 1, **wide).check()
    with pytest.raises(ValueError, match="multiples of groups"):
        Geometry.of(4, 3, 2).check()
    with pytest.raises(ValueError, match="stride_h must be at least 1; got 0"):
        Geometry.of(4, 4, stride=(0, 1)).check()
