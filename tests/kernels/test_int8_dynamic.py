"""Dynamic int8 operators: what they compute, and that packed weights live as long as theirs."""

import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch

from lowbit import kernels
from lowbit.functional.int8 import dynamic, dynamic_qparams, quantize, recurrent
from lowbit.functional.int8.dynamic import Matrix
from lowbit.kernels import int8_dynamic
from lowbit.kernels.int8_dynamic import _available, _ops, _packed, _products

fast = pytest.mark.skipif(not int8_dynamic.available(), reason="no exact int8 products here")


def int_mm_takes_uint8():
    """Asked of torch itself: what lowbit finds out must not hide its own mistakes."""
    try:
        torch._int_mm(torch.ones(1, 64).byte(), torch.ones(64, 16).char())
    except RuntimeError:
        return False
    return True


WAYS = [
    pytest.param(
        _products.by_int_mm,
        marks=pytest.mark.skipif(not int_mm_takes_uint8(), reason="torch._int_mm takes no uint8"),
    ),
    _products.by_onednn,
]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(n, k, channels=False, zero_point=0, seed=0, bias=True):
    scale = torch.rand(n, dtype=torch.float64) / 100 + 0.001 if channels else torch.tensor(0.01)
    scale = scale.double()
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-128, 128, (n, k), generator=generator, dtype=torch.int8)
    points = torch.full(scale.shape, zero_point)
    return Matrix(values, scale, points, draw(n, seed=seed) if bias else None)


INPUTS = {
    "both signs": lambda: draw(9, 31),
    "positive": lambda: draw(9, 31).abs() + 2,
    "negative": lambda: -draw(9, 31).abs() - 2,
    "zeros": lambda: torch.zeros(9, 31),
    "tiny": lambda: draw(9, 31) * 1e-9,
    "huge": lambda: draw(9, 31) * 1e30,
    "ties": lambda: torch.arange(-9 * 15, 9 * 16).float().reshape(9, 31) / 2,
    "one row": lambda: draw(1, 31),
}


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("name", INPUTS)
def test_quantizing_gives_the_integers_of_the_specification(name, reduce_range):
    x = INPUTS[name]()
    codes, scale, zero_point = _products.quantized(x, reduce_range)
    assert (scale, zero_point) == dynamic_qparams(x, reduce_range)
    assert torch.equal(codes, quantize(x, scale, zero_point, torch.uint8))


@fast
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_both_products_are_the_specifications(way, rows, relu, channels, monkeypatch):
    monkeypatch.setattr(_products, "multiply", lambda *args: way(*args[:-1]))
    weight = matrix(20, 31, channels)
    x = draw(rows, 31)
    expected = dynamic.linear(x, weight, False, relu)
    found = int8_dynamic.linear(x, weight, False, relu)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6)
    # Without bias, and a scale of powers of two, nothing is rounded.
    weight = Matrix(weight.values, torch.tensor(1.0).double(), torch.tensor(0), None)
    codes = torch.randint(0, 256, (rows, 31), dtype=torch.uint8)
    sums = way(codes, 0.5, 77, _packed.find(weight), None, relu)
    exact = (codes.double() - 77) @ weight.values.double().T / 2
    assert torch.equal(sums.double(), exact.relu() if relu else exact)


@pytest.mark.parametrize("zero_point", [0, 3])
@pytest.mark.parametrize("gates", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [None, [3, 3, 2, 1, 1]])
def test_layers_are_those_of_the_specification(gates, reverse, sizes, zero_point):
    parts = {"lstm": 4, "gru": 3}.get(gates, 1)
    ih, hh = matrix(parts * 8, 5, True, zero_point), matrix(parts * 8, 8, seed=1)
    x = draw(5, 3, 5) if sizes is None else draw(sum(sizes), 5)
    sizes = None if sizes is None else torch.tensor(sizes)
    state = tuple(draw(3, 8, seed=s) for s in range(2 if gates == "lstm" else 1))
    expected = recurrent.layer(gates, x, sizes, state, ih, hh, reverse, dynamic.linear)
    found = int8_dynamic.layer(gates, x, sizes, state, ih, hh, reverse)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("rows", [1, 2, 7, 40, 300])
@pytest.mark.parametrize("zero_point", [0, -5])
def test_every_instruction_set_gives_the_specifications_bits(isa, rows, zero_point, monkeypatch):
    if kernels.available():
        monkeypatch.setenv("LOWBIT_ISA", isa)
    for seed, (n, k) in enumerate([(1, 1), (48, 64), (100, 33), (7, 500)]):
        weight = matrix(n, k, seed % 2 == 0, zero_point, seed)
        for name in ("both signs", "positive", "negative", "zeros", "tiny", "huge"):
            x = INPUTS[name]().flatten().repeat(rows * k // 279 + 1)[: rows * k].view(rows, k)
            for options in ((True, False), (False, True)):
                expected = dynamic.linear(x, weight, *options)
                assert torch.equal(int8_dynamic.linear(x, weight, *options), expected)


@pytest.mark.skipif(not kernels.available(), reason="lowbit has no compiled library here")
@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("gates", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_one_step_is_within_some_units_of_the_last_place(isa, gates, batch, monkeypatch):
    """Products are exact; lowbit's own exp and tanh are within 3 units of the true values."""
    monkeypatch.setenv("LOWBIT_ISA", isa)
    parts = {"lstm": 4, "gru": 3}.get(gates, 1)
    ih, hh = matrix(parts * 40, 21, True), matrix(parts * 40, 40, seed=1)
    x = draw(1, batch, 21)
    state = tuple(draw(batch, 40, seed=s) / 4 for s in range(2 if gates == "lstm" else 1))
    expected = recurrent.layer(gates, x, None, state, ih, hh, False, dynamic.linear)
    found = int8_dynamic.layer(gates, x, None, state, ih, hh)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-7)


def test_a_state_without_a_range_gives_nan():
    ih, hh = matrix(32, 5), matrix(32, 8, seed=1)
    state = (draw(2, 8), draw(2, 8))
    state[0][1, 3] = torch.nan
    assert all(
        y.isnan().all() for y in int8_dynamic.layer("lstm", draw(3, 2, 5), None, state, ih, hh)
    )


def test_operators_pass_opcheck():
    ops, weight, hh = torch.ops.lowbit, matrix(12, 5, True), matrix(12, 3)
    torch.library.opcheck(ops.qlinear_dynamic.default, (draw(4, 5), *weight, True, True))
    kernel = Matrix(weight.values.reshape(12, 5, 1), *weight[1:])
    layout = ([1], [1], [1], 1)
    args = (draw(2, 5, 7), *kernel, *layout, None, True)
    torch.library.opcheck(ops.qconv_dynamic.default, args)
    kernel = Matrix(kernel.values.transpose(0, 1).contiguous(), *weight[1:])
    args = (draw(2, 5, 7), *kernel, *layout, [0], True)
    torch.library.opcheck(ops.qconv_dynamic.default, args)
    state = [draw(2, 3), draw(2, 3)]
    for sizes, x in ((None, draw(4, 2, 5)), (torch.tensor([2, 1]), draw(3, 5))):
        args = (x, sizes, state, *weight, *hh, "lstm", False, True)
        torch.library.opcheck(ops.qrecurrent_dynamic.default, args)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_input_without_a_range_gives_nan(bad):
    x = draw(3, 5)
    x[1, 2] = bad
    assert int8_dynamic.linear(x, matrix(4, 5)).isnan().all()
    assert dynamic.linear(x, matrix(4, 5)).isnan().all()


def test_no_rows_give_no_rows():
    assert int8_dynamic.linear(torch.zeros(0, 5), matrix(4, 5)).shape == (0, 4)


def test_sums_that_int32_cannot_hold_take_the_specification():
    values = torch.full((1, 70000), 127, dtype=torch.int8)
    weight = Matrix(values, torch.tensor(1.0).double(), torch.tensor(0), None)
    assert _packed.find(weight) is None


@pytest.fixture
def small():
    return Matrix(
        torch.ones(2, 3, dtype=torch.int8), torch.tensor(0.5).double(), torch.tensor(0), None
    )


@fast
@pytest.mark.parametrize("few", [0, 2**21])
def test_a_weight_is_packed_once_and_anew_when_written_to(small, few, monkeypatch):
    monkeypatch.setattr(_products, "FEW_PRODUCTS", few)
    x = torch.tensor([[-1.0, 1.0, 3.0]] * 2)
    before = int8_dynamic.linear(x, small)
    packed = _packed.find(small)
    assert _packed.find(small) is packed
    small.values.mul_(2)
    assert torch.equal(int8_dynamic.linear(x, small), 2 * before)
    small.scale.mul_(2)
    assert torch.equal(int8_dynamic.linear(x, small), 4 * before)
    small.zero_point.add_(2)
    assert torch.equal(int8_dynamic.linear(x, small), 0 * before)


@fast
@pytest.mark.skipif(not int_mm_takes_uint8(), reason="torch._int_mm takes no uint8")
def test_where_torch_has_int_mm_it_is_found_exact():
    assert _available.int_mm_available()


@fast
def test_a_packed_weight_dies_with_the_weight():
    weight = matrix(4, 5)
    _ops.project(draw(2, 5), weight)
    key, alive = id(weight.values), weakref.ref(weight.values)
    assert key in _packed._kept
    del weight
    gc.collect()
    assert alive() is None
    assert key not in _packed._kept


@fast
def test_weights_made_in_inference_mode_may_be_written_to():
    with torch.inference_mode():
        weight = matrix(4, 5, bias=False)
        before = int8_dynamic.linear(draw(2, 5), weight)
        weight.values.zero_()
        after = int8_dynamic.linear(draw(2, 5), weight)
    assert before.abs().max() > 0
    assert after.abs().max() == 0


WITHOUT_VNNI = """
import torch, warnings
from lowbit.functional.int8 import dynamic
from lowbit.functional.int8.dynamic import Matrix
from lowbit.kernels import int8_dynamic
from lowbit.kernels.int8_dynamic._available import int_mm_available
from lowbit.kernels.int8_dynamic._ops import project
assert not int8_dynamic.available()
assert not int_mm_available()
weight = Matrix(torch.full((16, 64), 127).char(), torch.tensor(0.5).double(), torch.tensor(0), None)
x = torch.linspace(0, 1, 128).reshape(2, 64)
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    for _ in range(2):
        y = project(x, weight, False)
assert torch.equal(y, dynamic.linear(x, weight, False))
assert torch.equal(y, int8_dynamic.linear(x, weight, False))
assert sum("plain torch here" in str(w.message) for w in found) == 1, found
"""


def test_without_exact_products_the_specification_runs_after_one_warning():
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", WITHOUT_VNNI], check=True, env=environment)
