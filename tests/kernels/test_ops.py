"""Outputs, steps and memory of the operators, as the specification has them."""

import functools
import itertools
import random

import pytest
import torch

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.functional.packed_conv import AFFINE, HARDTANH, PRELU, RELU, RESIDUAL, SHIFT
from lowbit.kernels import Geometry
from tests.kernels._layers import (
    Layer,
    assert_layout,
    assert_same,
    drawn,
    layer_of,
    pack_channels,
    same_or_refused,
    sums,
)

INF, NAN = float("inf"), float("nan")
# Not a number, the infinities, both zeros, a denormal, the largest, and ordinary ones.
SPECIAL = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1e-42, -1e-42, 3.4e38, -3.4e38, 1.5, -2.5])


def drawn_steps(rng: random.Random) -> list[int]:
    return [rng.choice(sorted(spec.ROWS)) for _ in range(rng.choice([0, 1, 1, 2, 3, 4, 6]))]


def drawn_residual(rng: torch.Generator, shape: torch.Size, channels_last: bool) -> torch.Tensor:
    if not channels_last:
        return torch.randn(shape, generator=rng)
    last = torch.randn(shape[0], *shape[2:], shape[1], generator=rng)
    return last.movedim(-1, 1)


def params_of(layer: Layer, v: torch.Tensor, steps: list[int], more: int = 0) -> torch.Tensor:
    """Rows of the size that the sums have, so that clamps and signs go either way."""
    rng = torch.Generator().manual_seed(len(steps))
    rows = torch.randn(spec.rows_of(steps) + more, layer.geometry.out_channels, generator=rng)
    if steps and steps[0] == AFFINE:
        rows[0] /= max(1.0, v.float().std(correction=0).item())
    return rows


# A group of several must fill whole words of packed results.
def fills_words(g: Geometry) -> bool:
    return g.groups == 1 or g.out_channels // g.groups % 64 == 0


@functools.cache
def floats(seed: int):
    """Drawn steps after a drawn layer, with what comes out and its signs."""
    layer, v = drawn(seed), sums(seed)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    steps = drawn_steps(rng)
    params = params_of(layer, v, steps, more=1)
    residual = None
    if RESIDUAL in steps:
        residual = drawn_residual(generator, v.shape, rng.random() < 0.5)
    given = (layer.words, params, layer.thresholds, residual, layer.geometry, steps)
    y, bits = spec.packed_conv_both(layer.x, *given)
    return steps, params, residual, y, bits


@pytest.mark.parametrize("seed", range(96))
def test_drawn_steps(isa, seed):
    layer, panel = drawn(seed), drawn(seed).panel(isa)
    steps, params, residual, y, bits = floats(seed)
    rows = params[:-1] if len(params) > 1 else None
    for channels_last in (False, True):
        got = layer.run(isa, spec.FLOAT, rows, residual, steps, channels_last, panel)
        assert_same(got, y)
        assert_layout(got, channels_last)
        if not fills_words(layer.geometry):
            continue
        for x, thresholds in ((layer.x, layer.thresholds), (layer.packed, None)):
            both = kernels.bconv_both(
                x, panel, params, thresholds, residual, layer.geometry, steps, channels_last
            )
            assert_same(both[0], y)
            assert_layout(both[0], channels_last)
            assert_same(both[1], bits)
            assert both[1].is_contiguous()


@pytest.mark.parametrize("seed", range(96))
def test_drawn_thresholds_of_the_sums(isa, seed):
    layer, v = drawn(seed), sums(seed)
    g = layer.geometry
    if not fills_words(g):
        g = g._replace(groups=1, channels=g.channels // g.groups)
        c = g.channels
        layer = layer_of(g, layer.x.shape[2:], len(layer.x), seed, c % 2 == 0)
        v = layer.expected()
    generator = torch.Generator().manual_seed(seed)
    # Sums themselves, so that equal and below are told apart; never; always.
    t = v.movedim(1, 0).flatten(1)
    t = t[:, torch.randint(t.shape[1], (1,), generator=generator)].flatten().clone()
    t[::7], t[3::7] = -(2**31), 2**31 - 1
    flip = torch.randint(0, 2, (g.out_channels,), generator=generator).int()
    over = (-1, *[1] * (v.ndim - 2))
    expected = pack_channels((v < t.view(over)) ^ flip.view(over).bool())
    for packed in (False, True):
        got = layer.run(isa, spec.BITS, torch.stack([t, flip]), packed=packed)
        assert_same(got, expected)
        assert got.is_contiguous()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_of_whole_words_give_packed_results(isa, groups):
    g = Geometry.of(33 * groups, 128 * groups, groups, (3, 3), before=(1, 1), after=(1, 1))
    layer = layer_of(g, (3, 5))
    params = torch.stack([torch.arange(128 * groups) % 9 - 4, torch.arange(128 * groups) % 2]).int()
    assert_same(layer.run(isa, spec.BITS, params), layer.expected(spec.BITS, params))


@functools.cache
def plain(dims: int) -> tuple[Layer, torch.Tensor]:
    g = Geometry.of(70, 67, kernel=[3] * dims, before=[1] * dims, after=[1] * dims)
    layer = layer_of(g, (2, 3, 19)[3 - dims :])
    return layer, layer.expected()


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
@pytest.mark.parametrize("step", sorted(spec.ROWS))
def test_each_step_alone_with_a_residual_in_either_layout(isa, step, dims):
    layer, v = plain(dims)
    panel, params = layer.panel(isa), params_of(layer, v, [step])
    for residual_last, channels_last in itertools.product([False, True], repeat=2):
        generator = torch.Generator().manual_seed(step)
        residual = drawn_residual(generator, v.shape, residual_last) if step == RESIDUAL else None
        rows = params if len(params) else None
        got = layer.run(isa, spec.FLOAT, rows, residual, [step], channels_last, panel)
        assert_same(got, layer.expected(spec.FLOAT, rows, residual, [step]))


def test_floats_without_steps_are_the_sums(isa):
    layer, v = plain(2)
    assert_same(layer.run(isa, spec.FLOAT), v.float())
    assert_same(layer.run(isa, spec.FLOAT, torch.empty(0, 67)), v.float())


def test_many_steps(isa):
    layer, v = plain(2)
    steps = [AFFINE, PRELU, RESIDUAL, SHIFT, AFFINE, RELU, SHIFT, RESIDUAL, AFFINE, SHIFT, PRELU]
    params, residual = params_of(layer, v, steps), torch.randn(v.shape)
    expected = layer.expected(spec.FLOAT, params, residual, steps)
    assert expected.abs().max() > 1
    for channels_last in (False, True):
        got = layer.run(isa, spec.FLOAT, params, residual, steps, channels_last)
        assert_same(got, expected)


def test_the_affine_step_rounds_once(isa):
    # Rounded twice, 1 + 2^-23 times 67 and what cancels it leave 0.
    words = torch.zeros(1, 33, 1, 2).long()
    layer = Layer(Geometry.of(67, 33), words, torch.ones(2, 67))
    scale = torch.full((33,), 1 + 2.0**-23)
    bias = -(67.0 * scale)
    rows = torch.stack([scale, bias])
    exact = 67 * (1 + 2.0**-23) - -bias[0].double().item()
    assert exact != 0
    assert_same(layer.run(isa, spec.FLOAT, rows, steps=[AFFINE]), torch.full((2, 33), exact))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "steps", [[], [RELU], [HARDTANH], [PRELU], [SHIFT], [AFFINE], [PRELU, HARDTANH, RELU]], ids=str
)
def test_nan_infinities_and_zeros_of_a_residual(isa, steps, channels_last):
    layer, v = plain(2)
    steps = [RESIDUAL, *steps]
    residual = SPECIAL[torch.arange(v.numel()) % len(SPECIAL)].view(v.shape)
    params = params_of(layer, v, steps, more=1)
    rows = params[:-1] if len(params) > 1 else None
    expected = layer.expected(spec.FLOAT, rows, residual, steps)
    assert torch.equal(expected.isnan(), residual.isnan())
    panel = layer.panel(isa)
    got = layer.run(isa, spec.FLOAT, rows, residual, steps, channels_last, panel)
    assert_same(got, expected)
    y, bits = kernels.bconv_both(
        layer.x, panel, params, layer.thresholds, residual, layer.geometry, steps, channels_last
    )
    assert_same(y, expected)
    assert_same(bits, pack_channels(expected < params[-1].view(-1, 1, 1)))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("step", [AFFINE, PRELU, SHIFT])
def test_nan_infinities_and_zeros_of_params(isa, step, channels_last):
    layer, _ = plain(2)
    rows = spec.ROWS[step]
    params = torch.stack([SPECIAL[torch.arange(67) // 11**row % 11] for row in range(rows)])
    got = layer.run(isa, spec.FLOAT, params, None, [step], channels_last)
    assert_same(got, layer.expected(spec.FLOAT, params, None, [step]))


@pytest.mark.parametrize("steps", [[], [AFFINE], [RELU], [SHIFT, PRELU]], ids=str)
def test_signs_of_both_without_a_row_of_their_own(isa, steps):
    layer, v = plain(2)
    params = params_of(layer, v, steps)
    y = layer.expected(spec.FLOAT, params if len(params) else None, None, steps)
    for rows in [params] if len(params) else [params, None]:
        both = kernels.bconv_both(
            layer.x, layer.panel(isa), rows, layer.thresholds, None, layer.geometry, steps
        )
        assert_same(both[0], y)
        assert_same(both[1], pack_channels(y < 0))


def test_a_last_row_of_nan_or_infinities_is_never_or_always_above(isa):
    layer, v = plain(2)
    last = torch.tensor([NAN, INF, -INF]).repeat(23)[:67]
    _, bits = kernels.bconv_both(
        layer.x, layer.panel(isa), last.view(1, -1), layer.thresholds, None, layer.geometry
    )
    always = (last == INF).view(1, -1, 1, 1).expand(v.shape)
    assert_same(bits, pack_channels(always))


@pytest.mark.parametrize("channels_last", [False, True])
def test_zeros_are_positive_and_a_nan_is_too(isa, channels_last):
    g = Geometry.of(70, 33, kernel=(3, 3), before=(1, 1), after=(1, 1))
    x = SPECIAL[torch.arange(2 * 70 * 35) % len(SPECIAL)].view(2, 70, 5, 7)
    signs = torch.where(x < 0, -1.0, 1.0)
    layer = layer_of(g, (5, 7), per_channel=False)
    expected = layer._replace(x=signs).expected()
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    for layout in (False, True):
        assert_same(layer._replace(x=x).run(isa, channels_last=layout), expected)


def test_nan_and_infinities_are_above_and_below_thresholds(isa):
    g = Geometry.of(70, 33, planes_x=2, kernel=(3,))
    layer = layer_of(g, (9,))
    x = SPECIAL[torch.arange(2 * 70 * 9) % len(SPECIAL)].view(2, 70, 9)
    thresholds = layer.thresholds.clone()
    thresholds[0, ::5], thresholds[2, 1::5] = -INF, INF
    layer = layer._replace(x=x, thresholds=thresholds)
    assert_same(layer.run(isa), layer.expected())
    assert_same(layer.run(isa, packed=True), layer.expected())


def memories(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same values, elsewhere in memory."""
    n, c, *spatial = x.shape
    offset = x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    wider = x.new_full((n, c + 3, *spatial), 7)
    wider[:, 2:-1] = x
    last_of_wider = wider.movedim(1, -1).contiguous().movedim(-1, 1)
    every_other = torch.stack([x, x.neg()], -1)[..., 0]
    batches = torch.stack([x, x.neg()], 1)[:, 0]
    return {
        "offset": offset,
        "channels last": last,
        "channels last, offset": offset.new_empty(x.numel() + 1)[1:]
        .view(last.movedim(1, -1).shape)
        .copy_(last.movedim(1, -1))
        .movedim(-1, 1),
        "some of the channels": wider[:, 2:-1],
        "some of the channels, last": last_of_wider[:, 2:-1],
        "every other": every_other,
        "every other image": batches,
        "reversed axes": x.permute(*reversed(range(x.ndim)))
        .contiguous()
        .permute(*reversed(range(x.ndim))),
    }


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_memory_of_the_input(isa, dims):
    layer, v = plain(dims)
    panel, g = layer.panel(isa), layer.geometry
    for name, x in memories(layer.x).items():
        assert torch.equal(x, layer.x), name
        got = kernels.bconv(x, panel, None, layer.thresholds, None, g)
        assert torch.equal(got, v), name
    for x in memories(layer.packed).values():
        # Words lie as pack leaves them; others may be refused.
        same_or_refused(
            functools.partial(kernels.bconv, x, panel, None, None, None, g), v, "contiguous"
        )
        assert_same(kernels.bconv(x.contiguous(), panel, None, None, None, g), v)


def test_images_that_share_memory(isa):
    layer, _ = plain(2)
    one = layer._replace(x=layer.x[:1].expand(3, -1, -1, -1))
    assert_same(one.run(isa), one.expected())
    flat = layer._replace(x=layer.x[:, :, :1, :1].expand(-1, -1, 3, 19))
    assert_same(flat.run(isa), flat.expected())


@pytest.mark.parametrize("offset", [1, 4, 32])
def test_memory_of_the_weight(isa, offset):
    layer, v = plain(2)
    panel = layer.panel(isa)
    elsewhere = torch.zeros(len(panel) + offset, dtype=torch.uint8)[offset:].copy_(panel)
    assert_same(layer.run(isa, panel=elsewhere), v)


def test_memory_of_the_rest(isa):
    layer, v = plain(2)
    params, residual, steps = torch.randn(2, 67), torch.randn(v.shape), [AFFINE, RESIDUAL]
    y = layer.expected(spec.FLOAT, params, residual, steps)
    panel = layer.panel(isa)

    def moved(t: torch.Tensor) -> torch.Tensor:
        return t.new_empty(t.numel() + 1)[1:].view(t.shape).copy_(t)

    rows = torch.cat([params, params])[1:3].flip(0).contiguous()
    assert torch.equal(rows, params)
    elsewhere = layer._replace(thresholds=moved(layer.thresholds))
    got = elsewhere.run(isa, spec.FLOAT, moved(params), moved(residual), steps, panel=panel)
    assert_same(got, y)
    last = moved(residual.movedim(1, -1)).movedim(-1, 1)
    assert_same(layer.run(isa, spec.FLOAT, params, last, steps, panel=panel), y)


def test_inputs_are_left_alone(isa):
    layer, v = plain(2)
    params, residual, panel = torch.randn(3, 67), torch.randn(v.shape), layer.panel(isa)
    given = (layer.x, panel, params, layer.thresholds, residual, layer.packed, layer.words)
    before = [t.clone() for t in given]
    steps = [AFFINE, RESIDUAL, HARDTANH]
    first = layer.run(isa, spec.FLOAT, params[:2], residual, steps)
    kernels.bconv_both(*given[:5], layer.geometry, steps)
    kernels.bconv(given[5], panel, None, None, None, layer.geometry)
    again = layer.run(isa, spec.FLOAT, params[:2], residual, steps)
    assert_same(first, again)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
