"""Bad input raises, says what it was and what it should be, and never reads past an end."""

import functools
import re

import pytest
import torch

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.kernels import Geometry
from tests.kernels._layers import Layer, assert_same, layer_of, outcome, same_or_refused

G = Geometry.of(70, 65, 1, (3, 3), (1, 1), (1, 1), (1, 1))
zeros = torch.zeros
LAYER = layer_of(G, (5, 6), per_channel=False)
X, PACKED = LAYER.x, LAYER.packed
REFUSED = (ValueError, RuntimeError)


@functools.cache
def panel(isa: str) -> torch.Tensor:
    return LAYER.panel(isa)


def call(isa: str, **changes):
    given = {"x": X, "weight": panel(isa), "params": None, "thresholds": None, "residual": None}
    return kernels.bconv(**{**given, "geometry": G, "steps": (), "out": 0, **changes})


def said(error: pytest.ExceptionInfo, *words: str) -> None:
    """The message has them all; one that cannot even be read has none."""
    assert not isinstance(error.value, UnicodeError), error.value
    for word in words:
        assert re.search(word, str(error.value)), error.value


@functools.cache
def words_and_integers() -> tuple[torch.Tensor, ...]:
    return LAYER.words, LAYER.expected()


# What is wrong, and what the message must name.
CALLS = {
    "x of float64": ({"x": X.double()}, ["float32"]),
    "x of float16": ({"x": X.half()}, ["float32"]),
    "x of int32": ({"x": X.int()}, ["float32", "int64"]),
    "x of bool": ({"x": X > 0}, ["float32", "int64"]),
    "x of 71 channels": ({"x": zeros(2, 71, 5, 6)}, ["70", r"\(2, 71, 5, 6\)"]),
    "x of three words": ({"x": zeros(2, 3, 5, 6).long()}, ["2 words", r"\(2, 3, 5, 6\)"]),
    "x of one word": ({"x": zeros(2, 1, 5, 6).long()}, ["2 words", r"\(2, 1, 5, 6\)"]),
    "unpacked integers": ({"x": zeros(2, 70, 5, 6).long()}, ["2 words", r"\(2, 70, 5, 6\)"]),
    "x of one axis": ({"x": zeros(70)}, [r"\(n, c", r"\(70,?\)"]),
    "x of six axes": ({"x": zeros(2, 70, 1, 1, 5, 6)}, [r"\(2, 70, 1, 1, 5, 6\)"]),
    "x that is smaller than the kernel": ({"x": zeros(2, 70, 0, 6)}, ["0", "kernel"]),
    "thresholds of packed x": ({"x": PACKED, "thresholds": zeros(1)}, ["threshold", "packed"]),
    "two thresholds": ({"thresholds": zeros(2)}, [r"\(1, 70\)", r"\(2,?\)"]),
    "thresholds of 69 channels": ({"thresholds": zeros(1, 69)}, [r"\(1, 70\)", r"\(1, 69\)"]),
    "thresholds without an axis": ({"thresholds": torch.tensor(0.0)}, [r"\(1, 70\)", r"\(\)"]),
    "thresholds of float64": ({"thresholds": zeros(1).double()}, ["threshold", "float32"]),
    "weight of float": ({"weight": zeros(19584)}, ["weight"]),
    "weight of zeros": ({"weight": zeros(19584, dtype=torch.uint8)}, ["weight", "prepare"]),
    "weight of nothing": ({"weight": zeros(0, dtype=torch.uint8)}, ["weight", "prepare"]),
    "weight of words": ({"weight": LAYER.words}, ["weight"]),
    "params of integers": ({"params": zeros(2, 65)}, ["no params"]),
    "three rows": (
        {"out": 1, "steps": (1,), "params": zeros(3, 65)},
        [r"\(2, 65\)", r"\(3, 65\)"],
    ),
    "one row": ({"out": 1, "steps": (1,), "params": zeros(1, 65)}, [r"\(2, 65\)", r"\(1, 65\)"]),
    "no rows": ({"out": 1, "steps": (1,)}, ["params", "2"]),
    "rows of 64": ({"out": 1, "steps": (1,), "params": zeros(2, 64)}, [r"\(2, 65\)", r"\(2, 64\)"]),
    "params of one axis": ({"out": 1, "steps": (5,), "params": zeros(65)}, [r"\(1, 65\)"]),
    "params of float64": ({"out": 1, "steps": (1,), "params": zeros(2, 65).double()}, ["float32"]),
    "params of int32": ({"out": 1, "steps": (1,), "params": zeros(2, 65).int()}, ["float32"]),
    "params of no steps": ({"out": 1, "params": zeros(1, 65)}, ["no params"]),
    "no residual": ({"out": 1, "steps": (3,)}, ["residual"]),
    "a residual too many": ({"out": 1, "residual": zeros(2, 65, 5, 6)}, ["residual"]),
    "residual of another shape": (
        {"out": 1, "steps": (3,), "residual": zeros(2, 65, 5, 5)},
        [r"\(2, 65, 5, 5\)"],
    ),
    "residual of one image": (
        {"out": 1, "steps": (3,), "residual": zeros(1, 65, 5, 6)},
        [r"\(1, 65, 5, 6\)"],
    ),
    "residual of float64": (
        {"out": 1, "steps": (3,), "residual": zeros(2, 65, 5, 6).double()},
        ["residual", "float32"],
    ),
    "step 0": ({"out": 1, "steps": (0,)}, ["step", "0"]),
    "step -1": ({"out": 1, "steps": (-1,)}, ["step", "-1"]),
    "step 7": ({"out": 1, "steps": (7,)}, ["step", "7"]),
    "step 2^32 + 2": ({"out": 1, "steps": (2**32 + 2,)}, ["step", "4294967298"]),
    "a known step and then not": ({"out": 1, "steps": (2, 2, 9)}, ["step", "9"]),
    "out 3": ({"out": 3}, ["out is", "3"]),
    "out -1": ({"out": -1}, ["out is", "-1"]),
    "bits by floats": ({"out": 2, "params": zeros(2, 65)}, ["params", "int32"]),
    "bits by int64": ({"out": 2, "params": zeros(2, 65).long()}, ["params", "int32"]),
    "bits by nothing": ({"out": 2}, ["params", "2"]),
    "bits by one row": ({"out": 2, "params": zeros(1, 65).int()}, [r"\(2, 65\)", r"\(1, 65\)"]),
    "steps before bits": ({"out": 2, "params": zeros(2, 65).int(), "steps": (2,)}, ["steps"]),
    "steps before integers": ({"steps": (2,)}, ["steps"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(isa, name):
    changes, words = CALLS[name]
    with pytest.raises(REFUSED) as error:
        call(isa, **changes)
    said(error, *words)
    # What was refused has left nothing behind.
    assert_same(call(isa), words_and_integers()[1])


# Neighbours of the layer: (change, what the message names).
GEOMETRIES = {
    "stride 0": ({"stride_w": 0}, "stride.*0.*must be 1 to|at least 1; got 0"),
    "stride -1": ({"stride_h": -1}, "stride.*-1.*must be 1 to|at least 1; got -1"),
    "dilation 0": ({"dilation_w": 0}, "dilation.*0.*must be 1 to|at least 1; got 0"),
    "dilation -3": ({"dilation_h": -3}, "dilation.*-3.*must be 1 to|at least 1; got -3"),
    "kernel 0": ({"kernel_h": 0}, "kernel.*0.*must be 1 to|at least 1; got 0"),
    "padding -1": ({"before_h": -1}, "padding.*-1|at least 0; got -1"),
    "padding after -1": ({"after_w": -1}, "padding.*-1|at least 0; got -1"),
    "channels 0": ({"channels": 0}, "channels.*0"),
    "channels -70": ({"channels": -70}, "channels.*-70"),
    "no filters": ({"out_channels": 0}, "out_channels.*0"),
    "groups 0": ({"groups": 0}, "groups.*0"),
    "groups -1": ({"groups": -1}, "groups.*-1"),
    "groups 3": ({"groups": 3}, "groups.*3"),
    "no planes of x": ({"planes_x": 0}, "planes_x.*1 to 8|planes_x.*0"),
    "no planes of weights": ({"planes_w": 0}, "planes_w.*1 to 8|planes_w.*0"),
    "nine planes": ({"planes_w": 9}, "planes_w.*9"),
    "64 planes": ({"planes_x": 64}, "planes_x.*64"),
    "thermometer 2": ({"thermometer_x": 2}, "thermometer"),
    "thermometer -1": ({"thermometer_w": -1}, "thermometer"),
}
# Numbers that overflow 32 or 64 bits where they are multiplied; Python's do not.
HUGE = ["channels", "out_channels", "kernel_h", "stride_w", "dilation_h", "before_h", "after_w"]
HUGE += ["offset", "pad", "planes_x", "planes_w", "groups"]
for field in HUGE if kernels.available() else ():
    for value in (2**31, 2**62, -(2**63)):
        GEOMETRIES[f"{field} {value}"] = ({field: value}, r".{20}")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries_that_make_no_layer(isa, name):
    change, words = GEOMETRIES[name]
    wrong = G._replace(**change)
    with pytest.raises(REFUSED) as error:
        kernels.prepare(LAYER.words, wrong, isa)
    said(error, words)
    with pytest.raises(REFUSED):
        call(isa, geometry=wrong)


@pytest.mark.parametrize("count", [0, 1, 23, 25])
def test_a_geometry_has_all_its_numbers(isa, count):
    numbers = [*G, 0][:count]
    with pytest.raises((*REFUSED, TypeError)):
        kernels.prepare(LAYER.words, numbers, isa)


OTHERS = [{"out_channels": 64}, {"out_channels": 66}, {"kernel_h": 2}, {"kernel_h": 9}]
OTHERS += [{"kernel_h": 1, "kernel_w": 9}, {"planes_w": 2}, {"thermometer_w": 1, "planes_w": 2}]
OTHERS += [{"groups": 5}, {"channels": 128}, {"kernel_d": 3}]


@pytest.mark.parametrize("change", OTHERS, ids=str)
def test_the_weight_of_another_layer_is_refused(isa, change):
    other = G._replace(**change)
    x = zeros(2, other.channels, 5, 6)
    with pytest.raises(REFUSED) as error:
        call(isa, geometry=other, x=x)
    said(error, "prepared for|bytes")


SAME_WORDS = [{"pad": 1}, {"pad": 0}, {"stride_h": 2}, {"dilation_w": 2}, {"after_w": 3}]
SAME_WORDS += [{"offset": 1, "pad": 0}, {"planes_x": 2}, {"channels": 69}]


@pytest.mark.parametrize("change", SAME_WORDS, ids=str)
def test_a_weight_with_other_padding_is_refused_or_right(isa, change):
    other = G._replace(**change)
    rng = torch.Generator().manual_seed(0)
    t = torch.randn(3, generator=rng).sort().values if other.planes_x == 2 else None
    x = torch.randn(2, other.channels, 5, 6, generator=rng)
    expected = Layer(other, LAYER.words, x, t).expected()
    same_or_refused(
        lambda: call(isa, x=x, thresholds=t, geometry=other), expected, "prepared for|sums"
    )


def test_a_weight_cut_short_or_grown_is_refused(isa):
    whole = panel(isa)
    wrong = [whole[:n] for n in (0, 1, 7, 8, 40, 100, len(whole) // 2, len(whole) - 64)]
    wrong += [whole[:-1], whole[1:], torch.cat([whole, whole[:1]]), torch.cat([whole, whole])]
    for blob in wrong:
        with pytest.raises(REFUSED) as error:
            call(isa, weight=blob.clone())
        said(error, "weight|bytes|invalid for input of size|shape")


def test_a_weight_that_was_altered_is_refused_or_some_other_weight(isa):
    whole, shape = panel(isa), words_and_integers()[1].shape
    refused = 0
    for i in range(240):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            blob = whole.clone()
            blob[i] ^= flip
            got = outcome(functools.partial(call, isa, weight=blob))
            # A message that cannot be read is none.
            assert not isinstance(got, UnicodeError), (i, flip, got)
            assert isinstance(got, Exception) or got.shape == shape
            refused += isinstance(got, Exception)
    assert refused > 100


def test_memory_that_the_operators_do_not_read_is_refused_or_right(isa):
    v, weight = words_and_integers()[1].float(), panel(isa)
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(65, 2, generator=rng).t()
    residual = torch.randn(2, 65, 6, 5, generator=rng).transpose(2, 3)
    strided = torch.stack([weight, ~weight], 1)[:, 0]
    one = residual[:, :1].expand(2, 65, 5, 6)
    for changes, expected in (
        ({"weight": strided}, v.int()),
        ({"params": rows, "steps": (1,), "out": 1}, LAYER.expected(1, rows, None, [1])),
        ({"residual": residual, "steps": (3,), "out": 1}, v + residual),
        ({"residual": one, "steps": (3,), "out": 1}, v + one),
    ):
        same_or_refused(functools.partial(call, isa, **changes), expected, "contiguous")


WORDS = LAYER.words
PREPARED = {
    "64 filters": (WORDS[:, :64], [r"\(1, 65, 9, 2\)", r"\(1, 64, 9, 2\)"]),
    "one word": (WORDS[..., :1], [r"\(1, 65, 9, 2\)", r"\(1, 65, 9, 1\)"]),
    "without planes": (WORDS[0], [r"\(1, 65, 9, 2\)", r"\(65, 9, 2\)"]),
    "nothing": (WORDS[:0], [r"\(1, 65, 9, 2\)", r"\(0, 65, 9, 2\)"]),
    "of float": (WORDS.float(), ["int64"]),
    "of int32": (WORDS.int(), ["int64"]),
}


@pytest.mark.parametrize("name", PREPARED)
def test_words_of_another_layer(isa, name):
    words, said_words = PREPARED[name]
    with pytest.raises(REFUSED) as error:
        kernels.prepare(words.contiguous(), G, isa)
    said(error, *said_words)


def test_words_in_other_memory_are_refused_or_right(isa):
    turned = WORDS.transpose(1, 2).contiguous().transpose(1, 2)
    same_or_refused(lambda: kernels.prepare(turned, G, isa), panel(isa), "contiguous")


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 40_000, "planes_x": 8, "planes_w": 8},
        {"channels": 64, "offset": 2**26},
    ],
    ids=str,
)
def test_sums_that_int32_cannot_hold_are_refused(isa, options):
    g = Geometry.of(out_channels=1, **options)
    with pytest.raises(REFUSED) as error:
        kernels.prepare(zeros(g.planes_w, 1, 1, g.words).long(), g, isa)
    said(error, "sums", r"\d{9}")


@pytest.mark.parametrize(
    "change", [{"pad": -(2**26)}, {"offset": 2**26}, {"planes_x": 30}], ids=str
)
def test_sums_that_grow_after_the_weight_was_prepared_are_refused(isa, change):
    with pytest.raises(REFUSED) as error:
        call(isa, geometry=G._replace(**change))
    said(error, "sums|planes_x")


def test_sums_of_2_to_the_24_are_refused_or_right(isa):
    k = 2**24 + 128
    g = Geometry.of(k, 1)
    words = zeros(1, 1, 1, g.words).long()

    def deepest() -> torch.Tensor:
        x = -torch.ones(1, g.words).long()
        return kernels.bconv(x, kernels.prepare(words, g, isa), None, None, None, g)

    same_or_refused(deepest, torch.tensor([[-k]], dtype=torch.int32), "sums")


@pytest.mark.parametrize(("out", "groups"), [(66, 2), (70, 5), (160, 2)])
def test_packed_results_of_groups_that_share_words_are_refused_or_right(isa, out, groups):
    layer = layer_of(Geometry.of(70, out, groups), n=3)
    params, rows = zeros(2, out).int(), zeros(1, out)
    match = "64 filters|group"
    same_or_refused(lambda: layer.run(isa, 2, params), layer.expected(2, params), match)
    given = (layer.panel(isa), rows, layer.thresholds, None, layer.geometry)
    same_or_refused(
        lambda: kernels.bconv_both(layer.x, *given)[1], layer.expected(2, params), match
    )


# After a step of two rows; one more is that of the thresholds.
BOTH = {
    "no params": (None, ["params", "2"]),
    "one row": (zeros(1, 65), [r"\(2, 65\)", r"\(1, 65\)"]),
    "four rows": (zeros(4, 65), [r"\(2, 65\)", r"\(4, 65\)"]),
    "rows of 64": (zeros(3, 64), [r"\(3, 64\)"]),
    "float64": (zeros(3, 65).double(), ["float32"]),
    "int32": (zeros(3, 65).int(), ["float32"]),
}


@pytest.mark.parametrize("name", BOTH)
def test_both(isa, name):
    params, words = BOTH[name]
    with pytest.raises(REFUSED) as error:
        kernels.bconv_both(X, panel(isa), params, None, None, G, (1,))
    said(error, *words)


WHOLE = G.layer()
LAYERS = ["", " ", "70", "seventy", WHOLE.replace("65", "6x5"), WHOLE.replace("65", "65.0")]
LAYERS += [
    WHOLE.replace(" ", ","),
    WHOLE.rsplit(" ", 1)[0],
    WHOLE + " 1",
    WHOLE + " x",
    "é" + WHOLE,
]
LAYERS += [WHOLE.replace("65", "9" * 400), WHOLE.replace("65", "-65"), WHOLE.replace("65", "0x41")]
LAYERS += [WHOLE + " 2" * 100_000, "1 " * 100_000, WHOLE.replace("65", "--65"), "\0" + WHOLE, "-"]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: repr(layer[:80]))
def test_strings_that_are_no_layer(isa, layer):
    given = (X, panel(isa), None, None, None, layer)
    with pytest.raises(REFUSED) as error:
        torch.ops.lowbit.bconv(*given, 0, False)
    said(error, ".{20}")
    if layer not in (WHOLE + " 1", WHOLE + " 2" * 100_000):
        with pytest.raises(REFUSED):
            torch.ops.lowbit.bconv_both(*given, False)


PACKS = {
    "float64": ((X.double(),), ["float32"]),
    "int64": ((PACKED,), ["float32"]),
    "one axis": ((X[0, :, 0, 0],), [r"\(70,?\)"]),
    "six axes": ((X[None, None],), [r"\(1, 1, 2, 70, 5, 6\)"]),
    "groups 0": ((X, None, 1, False, 0), ["groups", "70", "0"]),
    "groups 3": ((X, None, 1, False, 3), ["groups", "70", "3"]),
    "groups -2": ((X, None, 1, False, -2), ["groups", "70", "-2"]),
    "planes without thresholds": ((X, None, 2), ["2 planes", "thresholds"]),
    "no planes": ((X, zeros(0), 0), ["planes", "0"]),
    "-1 planes": ((X, zeros(1), -1), ["planes", "-1"]),
    "64 planes": ((X, zeros(3), 64), ["planes", "64"]),
    "two thresholds": ((X, zeros(2)), [r"\(1, 70\)", r"\(2,?\)"]),
    "two of three thresholds": ((X, zeros(2), 2), [r"\(3, 70\)", r"\(2,?\)"]),
    "three of two thresholds": ((X, zeros(3), 2, True), [r"\(2, 70\)", r"\(3,?\)"]),
    "69 channels": ((X, zeros(1, 69)), [r"\(1, 70\)", r"\(1, 69\)"]),
    "thresholds of float64": ((X, zeros(1).double()), ["float32"]),
}


@pytest.mark.parametrize("name", PACKS)
def test_packs(isa, monkeypatch, name):
    monkeypatch.setenv("LOWBIT_ISA", isa)
    given, words = PACKS[name]
    with pytest.raises(REFUSED) as error:
        kernels.pack(*given)
    said(error, *words)


POOLS = {
    "float": ((X, (2, 2), (2, 2), (0, 0), (1, 1)), "int64"),
    "three axes": ((PACKED[0], (2, 2), (2, 2), (0, 0), (1, 1)), r"\(2, 5, 6\)"),
    "kernel 0": ((PACKED, (0, 2), (2, 2), (0, 0), (1, 1)), "kernel"),
    "kernel -2": ((PACKED, (-2, 2), (2, 2), (0, 0), (1, 1)), "kernel|pad"),
    "stride 0": ((PACKED, (2, 2), (0, 2), (0, 0), (1, 1)), "stride"),
    "stride -1": ((PACKED, (2, 2), (2, -1), (0, 0), (1, 1)), "stride"),
    "dilation 0": ((PACKED, (2, 2), (2, 2), (0, 0), (0, 1)), "dilation"),
    "dilation -1": ((PACKED, (2, 2), (2, 2), (0, 0), (-1, 1)), "dilation"),
    "dilation 2^40": ((PACKED, (2, 2), (2, 2), (0, 0), (2**40, 1)), "small|dilation|overflow"),
    "padding -1": ((PACKED, (2, 2), (2, 2), (-1, 0), (1, 1)), "pad"),
    "padding over half": ((PACKED, (2, 2), (2, 2), (2, 0), (1, 1)), "pad"),
    "kernel over the edge": ((PACKED, (9, 9), (2, 2), (0, 0), (1, 1)), "small"),
    "flip of one word": ((PACKED, (2, 2), (2, 2), (0, 0), (1, 1), False, zeros(1).long()), r"\(2"),
    "flip of float": ((PACKED, (2, 2), (2, 2), (0, 0), (1, 1), False, zeros(2)), "int64"),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name):
    given, words = POOLS[name]
    with pytest.raises(REFUSED) as error:
        kernels.max_pool_bits(*given)
    said(error, words)


@pytest.mark.parametrize("numbers", [(), (2,), (2, 2, 2)], ids=str)
def test_pools_have_two_numbers_each(numbers):
    if not kernels.available():
        pytest.skip("torch's own pooling takes one number for two")
    with pytest.raises(REFUSED, match="two numbers"):
        kernels.max_pool_bits(PACKED, numbers, (2, 2), (0, 0), (1, 1))


def test_zero_channels_and_pixels_pack_to_nothing(isa, monkeypatch):
    monkeypatch.setenv("LOWBIT_ISA", isa)
    for x in (X[:, :0], X[:, :, :0], X[:0]):
        assert_same(kernels.pack(x), spec.code(x, None, 1, False, 1))
