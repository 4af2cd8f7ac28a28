"""Values and gradients of each quantizer against its paper's formula and hand-made numbers.

The formulas are written again in NumPy in ``_reference.py``; the numbers in ``BY_HAND`` guard
those in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lowbit.quantizers import Quantizer, get, names

from . import _reference as ref
from ._reference import Array

# Zeros of both signs, the thresholds of all methods and their neighbours, and values beyond.
EDGES = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
POSITIVE = [0.001, *EDGES, *np.nextafter(EDGES, 9), *np.nextafter(EDGES, 0), 1.614, 2.0, 3.0]
POINTS = np.array([0.0, -0.0, *POSITIVE, *(-v for v in POSITIVE)])


def weights(seed: int = 0, shape: tuple[int, ...] = (4, 3, 2, 2)) -> Array:
    """Random weights with zeros, ones and neighbours; the last row has a mean of exactly 0."""
    w = 0.8 * np.random.default_rng(seed).standard_normal(shape)
    flat = w.reshape(4, -1)
    flat[:3, :2] = [[0.0, -0.0], [1.0, -1.0], [1.7, -1.9]]
    flat[:3, 2] = [0.05, np.nextafter(1, 2), np.nextafter(1, 0)]
    flat[3] = np.resize([0.5, -0.5, 0.0, -0.0, 1.25, -1.25], flat.shape[1])
    return w


def upstream(x: Array) -> Array:
    """A gradient that differs from element to element and has both signs."""
    return np.random.default_rng(7).uniform(-1, 2, x.shape)


def quantizer_of(spec: Any, progress: float | None = None) -> Quantizer:
    quantizer = get(spec)
    assert quantizer is not None
    quantizer.bind(4, 0)
    quantizer.double()
    if progress is not None:
        quantizer.set_progress(progress)
    return quantizer


def run(quantizer: Quantizer, x: Array, g: Array) -> tuple[Tensor, Tensor]:
    """Value, and gradient of (g * value).sum(); parameters' gradients are left in .grad."""
    leaf = torch.tensor(x, requires_grad=True)
    y = quantizer(leaf)
    (torch.tensor(g) * y).sum().backward()
    return y.detach(), leaf.grad


def close(got: Tensor, expected: Any, rtol: float = 1e-6, what: str = "") -> None:
    torch.testing.assert_close(
        got.detach(),
        torch.as_tensor(np.asarray(expected, dtype=np.float64)),
        rtol=rtol,
        atol=1e-9,
        msg=lambda m: f"{what}: {m}",
    )


def check(quantizer: Quantizer, x: Array, expected: tuple[Array, Array], g: Array) -> None:
    value, dx = run(quantizer, x, g)
    close(value, expected[0], what="value")
    close(dx, expected[1], what="gradient")


def sole(quantizer: Quantizer) -> torch.nn.Parameter:
    (parameter,) = quantizer.parameters()
    return parameter


def put(parameter: Tensor, value: Any) -> None:
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(value, dtype=parameter.dtype).reshape(parameter.shape))


# Binary estimators: one formula for the value, one for the slope, any element alone.

Formula = Callable[[Array], Array]
ESTIMATORS: dict[str, tuple[Any, float | None, Formula, Formula]] = {
    "identity": ("identity", None, lambda x: x, np.ones_like),
    "sign": ("sign", None, ref.s, np.ones_like),
    "ste_sign": ("ste_sign", None, ref.s, ref.clip_slope),
    "ste_sign 1.25": (
        {"name": "ste_sign", "clip": 1.25},
        None,
        ref.s,
        lambda x: ref.clip_slope(x, 1.25),
    ),
    "approx_sign": ("approx_sign", None, ref.s, ref.approx_slope),
    "swish_sign": ("swish_sign", None, ref.s, ref.swish_slope),
    "swish_sign 10": (
        {"name": "swish_sign", "beta": 10.0},
        None,
        ref.s,
        lambda x: ref.swish_slope(x, 10.0),
    ),
    "ste_heaviside": ("ste_heaviside", None, lambda x: 1.0 * (x > 0), ref.clip_slope),
    "ste_tern": (
        "ste_tern",
        None,
        lambda x: np.sign(x) * (np.abs(x) > 0.05),
        ref.clip_slope,
    ),
}
for f in (0.0, 0.5, 1.0):
    ESTIMATORS |= {
        f"ede at {f}": ("ede", f, ref.s, lambda x, f=f: ref.ede_slope(x, f)),
        f"ede from 0.1 at {f}": (
            {"name": "ede", "t_min": 0.1},
            f,
            ref.s,
            lambda x, f=f: ref.ede_slope(x, f, t_min=0.1),
        ),
        f"reste at {f}": ("reste", f, ref.s, lambda x, f=f: ref.reste_slope(x, f)),
        f"rbnn_poly at {f}": (
            "rbnn_poly",
            f,
            ref.s,
            lambda x, f=f: ref.rbnn_slope(x, f, activations=False),
        ),
        f"rbnn_poly of inputs at {f}": (
            {"name": "rbnn_poly", "activation": True},
            f,
            ref.s,
            lambda x, f=f: ref.rbnn_slope(x, f, activations=True),
        ),
    }


@pytest.mark.parametrize("case", ESTIMATORS)
def test_estimator(case: str) -> None:
    spec, progress, value, slope = ESTIMATORS[case]
    quantizer = quantizer_of(spec, progress)
    g = upstream(POINTS)
    check(quantizer, POINTS, (value(POINTS), g * slope(POINTS)), g)


# name, input, value, slope: computed by hand, to four places or exactly.
BY_HAND = [
    ("identity", [-0.3, 0.0, 7.0], [-0.3, 0.0, 7.0], [1, 1, 1]),
    ("sign", [-7.0, -0.0, 0.0, 0.1], [-1, 1, 1, 1], [1, 1, 1, 1]),
    ("ste_sign", [-1.01, -1.0, -0.0, 0.0, 1.0, 1.01], [-1, -1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]),
    ("approx_sign", [-1.0, -0.75, 0.0, 0.25, 2.0], [-1, -1, 1, 1, 1], [0, 0.5, 2, 1.5, 0]),
    # beta (2 - bx tanh(bx/2)) / (1 + cosh bx) at bx = 0 and 2: 5, 5 (2 - 2 .761594) / 4.762196
    ("swish_sign", [0.0, 0.4, -0.4], [1, 1, -1], [5, 0.500622, 0.500622]),
    # At the start t = .001 and k = 1000: a slope of 1 - tanh^2(.001 x), 1 to six places.
    ("ede", [-1.0, 0.0, 1.0], [-1, 1, 1], [0.999999, 1, 0.999999]),
    ("reste", [-1.6, -1.5, 0.05, 0.1, 1.5], [-1, -1, 1, 1, 1], [0, 1, 1, 1, 1]),
    # At the start t = .01 and k = 100: 100 (.0141421 - .0001 |x|).
    ("rbnn_poly", [-1.0, 0.0, 2.0], [-1, 1, 1], [1.404214, 1.414214, 1.394214]),
    # Inputs start with t = k = 1: sqrt 2 - |x|.
    ({"name": "rbnn_poly", "activation": True}, [-1.0, 0.0, 1.5], [-1, 1, 1],
     [0.414214, 1.414214, 0]),
    # Centring takes 0.5 from both rows' mean over the (two) input channels: W = 0.5, -0.5 and
    # alpha = n^-1 sum|W| = 0.5; (1/2 + 0.5) (1 - 1/2).
    ("xnor", [1.0, 0.0], [0.5, -0.5], [0.5, 0.5]),
    ("magnitude_aware_sign", [-1.5, -0.5, 0.0, 2.0], [-1, -1, 1, 1], [0, 1, 1, 0]),
    ("magnitude_aware_sign", [-0.5, -0.5, 0.0, 1.0], [-0.5, -0.5, 0.5, 0.5], [0.5] * 4),
    ("bireal_weight", [-0.5, -0.5, 0.0, 1.0], [-0.5, -0.5, 0.5, 0.5], [1] * 4),
    ("ste_heaviside", [-0.5, 0.0, 0.5, 1.0, 1.1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 0]),
    ("ste_tern", [-0.06, -0.05, 0.0, 0.05, 0.06, 2], [-1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 0]),
    ("hwgq", [-1.0, 0.0, 0.1, 0.8, 0.82, 1.34, 1.35, 1.614, 1.62, 9.0],
     [0, 0, 0.538, 0.538, 1.076, 1.076, 1.614, 1.614, 1.614, 1.614],
     [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]),
    ({"name": "dorefa_input", "bits": 1}, [-0.1, 0.0, 0.4, 0.6, 1.0, 1.1],
     [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0]),
    ({"name": "dorefa_input", "bits": 2}, [-0.1, 0.0, 0.16, 0.17, 0.5001, 0.84, 1.1],
     [0, 0, 0, 1 / 3, 2 / 3, 1, 1], [0, 1, 1, 1, 1, 1, 0]),
    ({"name": "dorefa_weight", "bits": 1}, [-3.0, -0.5, 0.0, 0.5], [-1, -1, 1, 1], [1, 1, 1, 1]),
    # E|w - ...|: mean 0.5, E|w| = 1.5; the sign is that of w - 0.5.
    ("bitnet_binary", [-2.0, 0.0, 1.0, 3.0], [-1.5, -1.5, 1.5, 1.5], [1, 1, 1, 1]),
    ("bitnet_binary", [-3.0, 0.0, 3.0], [-2, 2, 2], [1, 1, 1]),  # the mean itself counts as above
    # gamma = 1: ties go to the even neighbour, 0.5 to 0 and 1.5 to 2, which is clipped to 1.
    ("bitnet_ternary", [0.5, -0.5, 1.5, -1.5], [0, 0, 1, -1], [1, 1, 1, 1]),
    ("bitnet_ternary", [0.6, -0.2, 3.0, -0.2], [1, 0, 1, 0], [1, 1, 1, 1]),
    # Delta = .7 * 1 is not passed by .7 itself; alpha is the mean of 1.3, 1.3 and 2.
    ("twn", [0.7, 1.3, -0.7, -1.3, 0.0, 2.0], [0, 4.6 / 3, 0, -4.6 / 3, 0, 4.6 / 3], [1] * 6),
    ("ttq", [1.0, 0.05, -0.05, 0.06, -0.5], [1, 0, 0, 1, -1], [1, 1, 1, 1, 1]),
    # 127 / 2.54 = 50 steps per unit.
    ("absmax_int8", [2.54, -2.54, 0.011, -0.009, 0.0], [2.54, -2.54, 0.02, 0, 0], [1] * 5),
]  # fmt: skip


# The sign of 0 is 0 in the code of these methods; at 0 the slopes are the same as above.
TERNARY_BY_HAND = [
    ("sign", [-7.0, -0.0, 0.0, 0.1], [-1, 0, 0, 1], [1, 1, 1, 1]),
    ("ste_sign", [-1.01, -0.0, 0.0, 1.0], [-1, 0, 0, 1], [0, 1, 1, 1]),
    ("approx_sign", [-0.75, -0.0, 0.0, 2.0], [-1, 0, 0, 1], [0.5, 2, 2, 0]),
    ("swish_sign", [-0.0, 0.0, 0.4], [0, 0, 1], [5, 5, 0.500622]),
    ("ede", [-1.0, -0.0, 0.0], [-1, 0, 0], [0.999999, 1, 1]),
    ("reste", [-1.6, -0.0, 0.0, 0.1], [-1, 0, 0, 1], [0, 1, 1, 1]),
    ("rbnn_poly", [-1.0, -0.0, 0.0], [-1, 0, 0], [1.404214, 1.414214, 1.414214]),
    ("rsign", [-0.75, -0.0, 0.0, 2.0], [-1, 0, 0, 1], [0.5, 2, 2, 0]),
    ("bireal_weight", [-0.5, -0.5, 0.0, 1.0], [-0.5, -0.5, 0, 0.5], [1] * 4),
    ("magnitude_aware_sign", [-0.5, -0.5, 0.0, 1.0], [-0.5, -0.5, 0, 0.5], [0.5] * 4),
    ("bitnet_binary", [-3.0, 0.0, 3.0], [-2, 0, 2], [1, 1, 1]),
    # alpha = 2/3 of n = 3 weights, all of which are input channels: (1/3 + 2/3 1[|W| < 1]) 2/3.
    ("xnor", [1.0, 0.0, -1.0], [2 / 3, 0, -2 / 3], [2 / 9, 2 / 3, 2 / 9]),
    ("adabin_input", [-0.5, 0.0, 2.0], [-1, 0, 1], [1, 2, 0]),
    # The first batch sets alpha = 2 E|x| = 1.
    ("elastic_sign", [-0.5, 0.0, 1.0], [-1, 0, 1], [1, 1, 1]),
]
BY_HAND += [({"name": n, "sign_zero": "ternary"}, *row) for n, *row in TERNARY_BY_HAND]


@pytest.mark.parametrize(("spec", "x", "value", "slope"), BY_HAND, ids=lambda v: str(v)[:40])
def test_by_hand(spec: Any, x: list[float], value: list[float], slope: list[float]) -> None:
    quantizer = get(spec)
    quantizer.bind(1, 0)
    quantizer.double()
    w = np.array([x])
    g = upstream(w)
    got, dx = run(quantizer, w, g)
    close(got, [value], rtol=1e-5)
    close(dx, g * np.array([slope]), rtol=1e-5)


# Binary weights with a scale per channel or per tensor.


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 6)], ids=str)
class TestBinaryWeights:
    def test_magnitude_aware_sign_scales_its_gradient(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        expected = ref.magnitude(w, g, ref.clip_slope(w), scale_gradient=True)
        check(quantizer_of("magnitude_aware_sign"), w, expected, g)

    def test_bireal_weight_does_not(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        expected = ref.magnitude(w, g, ref.clip_slope(w), scale_gradient=False)
        check(quantizer_of("bireal_weight"), w, expected, g)

    @pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
    def test_libra(self, shape: tuple[int, ...], progress: float) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        expected = ref.libra(w, g, lambda z: ref.ede_slope(z, progress))
        check(quantizer_of("libra", progress), w, expected, g)

    @pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
    def test_adabin_weight(self, shape: tuple[int, ...], progress: float) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        expected = ref.adabin_weight(w, g, lambda z: ref.ede_slope(z, progress))
        check(quantizer_of({"name": "adabin_weight", "t_min": 1e-3}, progress), w, expected, g)

    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("grad", ["paper", "exact"])
    def test_xnor(self, shape: tuple[int, ...], grad: str, center: bool) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        value, dx = ref.xnor(w, g, grad, center)
        if center:
            dx = dx * (1 - 1 / shape[1])
        for times_n in (False, True):
            quantizer = quantizer_of(
                {"name": "xnor", "grad": grad, "center": center, "times_n": times_n}
            )
            check(quantizer, w, (value, dx * w[0].size if times_n else dx), g)

    @pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
    def test_recu(self, shape: tuple[int, ...], progress: float) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        a = (0.99 - 0.85) / (math.e - 1)
        tau = a * math.exp(progress) + 0.85 - a
        expected = ref.recu(w, g, tau)
        assert np.any(expected[1]), "nothing inside the clamp"
        check(quantizer_of("recu", progress), w, expected, g)

    def test_siman(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        expected = ref.siman(w, g)
        assert np.all(expected[0].reshape(4, -1).sum(1) == 0), "half of each filter"
        check(quantizer_of("siman"), w, expected, g)

    def test_bitnet_binary(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        value = np.abs(w).mean() * ref.s(w - w.mean())
        check(quantizer_of("bitnet_binary"), w, (value, g), g)

    def test_dorefa_one_bit_has_one_scale_and_no_clip(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        value = np.abs(w).mean() * ref.s(w)
        check(quantizer_of({"name": "dorefa_weight", "bits": 1}), w, (value, g), g)


@pytest.mark.parametrize("name", ["recu", "libra", "adabin_weight"])
def test_weights_at_the_mean_of_their_channel_may_be_a_third_value(name: str) -> None:
    """-1, 0, 1: deviations 1 (of n - 1) and sqrt(2/3) (of n); 2^round(log2 2/3) is 1/2."""
    quantizer = quantizer_of({"name": name, "sign_zero": "ternary"})
    scale = {"recu": 1.0, "libra": 0.5, "adabin_weight": math.sqrt(2 / 3)}[name]
    w = np.array([[-1.0, 0.0, 1.0]])
    close(run(quantizer, w, w)[0], scale * w)


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 6)], ids=str)
def test_gradients_across_elements_take_the_ternary_sign_too(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same formulas, with the sign whose value at 0 is 0: the last row's mean is 0."""
    monkeypatch.setattr(ref, "s", np.sign)
    w = weights(shape=shape)
    g = upstream(w)

    def ternary(name: str, **arguments: Any) -> Quantizer:
        return quantizer_of({"name": name, "sign_zero": "ternary", **arguments})

    value, dx = ref.xnor(w, g, "exact", center=False)
    assert np.any(value == 0)
    check(ternary("xnor", grad="exact", center=False), w, (value, dx), g)
    check(ternary("libra"), w, ref.libra(w, g, lambda z: ref.ede_slope(z, 0.0)), g)
    check(ternary("recu"), w, ref.recu(w, g, 0.85), g)
    adabin = ref.adabin_weight(w, g, lambda z: ref.ede_slope(z, 0.0))
    check(ternary("adabin_weight"), w, adabin, g)
    value, dx, dalpha, dbeta = ref.adabin_input(w, g, 1.0, 0.0, "code")
    inputs = ternary("adabin_input")
    check(inputs, w, (value, dx), g)
    close(inputs.scale.grad.squeeze(), dalpha, what="alpha")
    close(inputs.offset.grad.squeeze(), dbeta, what="beta")
    elastic = ternary("elastic_sign").eval()
    put(elastic.scale, 0.5)
    value, dx, dalpha = ref.elastic_sign(w, g, 0.5)
    check(elastic, w, (value, dx), g)
    close(elastic.scale.grad.squeeze(), dalpha, what="alpha")


@pytest.mark.parametrize("sign_zero", ["plus", "ternary"])
def test_exact_xnor_s_slope_is_the_diagonal_of_its_gradient(sign_zero: str) -> None:
    quantizer = quantizer_of({"name": "xnor", "grad": "exact", "sign_zero": sign_zero})
    w = torch.tensor([[1.0, 0.0, -1.0], [0.5, -0.25, 0.125]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(quantizer, w).reshape(w.numel(), w.numel())
    torch.testing.assert_close(jacobian.diagonal(), quantizer.slope(w).flatten())


@pytest.mark.parametrize("name", ["progressive_sign", "stochastic_sign"])
def test_evaluation_may_take_the_ternary_sign(name: str) -> None:
    quantizer = quantizer_of({"name": name, "sign_zero": "ternary"}).eval()
    close(run(quantizer, POINTS, POINTS)[0], np.sign(POINTS))


def test_elastic_sign_has_no_sign_of_zero_where_it_takes_no_signs() -> None:
    with pytest.raises(ValueError, match="no signs where signed=False"):
        get({"name": "elastic_sign", "signed": False, "sign_zero": "ternary"})


# Inputs scaled or standardised by sample. The axis is that of a layer's channels.
SAMPLES = [((5, 4, 3, 2), -3), ((5, 4, 3, 2), 0), ((5, 6), -1), ((5, 6), 0)]


@pytest.mark.parametrize(("shape", "axis"), SAMPLES)
def test_approx_sign_with_unit_deviation_trains_on_x_over_the_deviation_of_its_sample(
    shape: tuple[int, ...], axis: int
) -> None:
    x = 3 * np.random.default_rng(4).standard_normal(shape) + 0.4
    g = upstream(x)
    deviation = ref.rows(x, np.sqrt(x.reshape(5, -1).var(1, ddof=1) + 1e-5))
    z, n = x / deviation, x[0].size
    pull = g * ref.approx_slope(z)
    # d deviation / dx = (x - mean) / ((n - 1) deviation)
    through = n * ref.row_mean(pull * x) * (x - ref.row_mean(x)) / ((n - 1) * deviation**3)
    quantizer = get({"name": "approx_sign", "unit_deviation": True})
    quantizer.bind(shape[axis], axis)
    check(quantizer, x, (ref.s(x), pull / deviation - through), g)
    close(quantizer.slope(torch.tensor(x)), ref.approx_slope(z) / deviation, what="slope")
    check(quantizer.eval(), x, (ref.s(x), g * ref.approx_slope(x)), g)


@pytest.mark.parametrize(("shape", "axis"), SAMPLES)
def test_approx_sign_may_standardise(shape: tuple[int, ...], axis: int) -> None:
    x = 3 * np.random.default_rng(4).standard_normal(shape) + 0.4
    g = upstream(x)
    quantizer = get({"name": "approx_sign", "standardise": True})
    quantizer.bind(shape[axis], axis)
    z, _ = ref.standardised(x, g, eps=1e-5)
    dx = ref.standardised(x, g * ref.approx_slope(z), eps=1e-5)[1]
    for mode in (True, False):
        check(quantizer.train(mode), x, (ref.s(x - ref.row_mean(x)), dx), g)


def test_approx_sign_scales_its_inputs_in_one_way() -> None:
    with pytest.raises(ValueError, match="not both"):
        get({"name": "approx_sign", "standardise": True, "unit_deviation": True})
    with pytest.raises(ValueError, match="needs standardise true or false; got standardise='no'"):
        get({"name": "approx_sign", "standardise": "no"})


def test_siman_of_an_odd_number_and_of_equal_magnitudes() -> None:
    """Mean 0: the two largest of five are +1; of four equal magnitudes, the first two."""
    w = torch.tensor([[3.0, -1.0, 0.5, -2.0, -0.5]])
    assert quantizer_of("siman")(w.double()).tolist() == [[1.0, -1.0, -1.0, 1.0, -1.0]]
    w = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    assert quantizer_of("siman")(w.double()).tolist() == [[1.0, 1.0, -1.0, -1.0]]


@pytest.mark.parametrize("activation", [True, False], ids=["inputs", "weights"])
@pytest.mark.parametrize(("shape", "axis"), SAMPLES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_rbnn_poly_may_standardise(
    shape: tuple[int, ...], axis: int, activation: bool, progress: float
) -> None:
    x = 3 * np.random.default_rng(4).standard_normal(shape) + 0.4
    g = upstream(x)
    quantizer = get({"name": "rbnn_poly", "activation": activation, "standardise": True})
    quantizer.bind(shape[axis], axis if activation else 0)
    quantizer.double()
    quantizer.set_progress(progress)
    z, _ = ref.standardised(x, g)
    dx = ref.standardised(x, g * ref.rbnn_slope(z, progress, activation))[1]
    assert np.any(dx)
    for mode in (True, False):
        check(quantizer.train(mode), x, (ref.s(x - ref.row_mean(x)), dx), g)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "approx_sign", "unit_deviation": True},
        {"name": "approx_sign", "standardise": True},
        {"name": "rbnn_poly", "activation": True, "standardise": True},
    ],
    ids=lambda spec: spec["name"],
)
def test_an_unbatched_input_of_a_layer_is_one_sample(spec: Any) -> None:
    x = np.random.default_rng(4).standard_normal((4, 3, 2)) * [[[1.0]], [[2.0]], [[3.0]], [[4.0]]]
    g = upstream(x)
    quantizer = get(spec)
    quantizer.bind(4, -3)
    quantizer.double()
    batch = [t.squeeze(0) for t in run(quantizer, x[None], g[None])]
    for got, expected in zip(run(quantizer, x, g), batch, strict=True):
        close(got, expected)


def test_ede_sharpens() -> None:
    """t = 1e-3, 0.1, 10 and k t = 1, 1, 10: the slope at 0, by hand."""
    for progress, slope in [(0.0, 1.0), (0.5, 1.0), (1.0, 10.0)]:
        quantizer = quantizer_of("ede", progress)
        close(quantizer.slope(torch.zeros(1, dtype=torch.float64)), [slope])


def test_reste_o_reaches_its_end() -> None:
    """o = 1, 1 + 2 (1 - cos(pi / 4)) and 3; at o = 3 the slope at 1 is 1/3."""
    one = torch.ones(1, dtype=torch.float64)
    for progress, o in [(0.0, 1.0), (0.5, 1.5857864376), (1.0, 3.0)]:
        close(quantizer_of("reste", progress).slope(one), [1 / o])


# Ternary.


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 6)], ids=str)
class TestTernary:
    def test_twn_by_layer(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        check(quantizer_of("twn"), w, (ref.twn(w, 0.7, per_row=False), g), g)

    @pytest.mark.parametrize("factor", [0.7, 0.75])
    def test_twn_by_channel(self, shape: tuple[int, ...], factor: float) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        quantizer = quantizer_of({"name": "twn", "granularity": "channel", "factor": factor})
        check(quantizer, w, (ref.twn(w, factor, per_row=True), g), g)

    def test_twn_without_scale(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        value = np.sign(ref.twn(w, 0.7, per_row=False))
        check(quantizer_of({"name": "twn", "scale": False}), w, (value, g), g)

    def test_bitnet_ternary(self, shape: tuple[int, ...]) -> None:
        w = weights(shape=shape)
        g = upstream(w)
        check(quantizer_of("bitnet_ternary"), w, (ref.absmean_ternary(w), g), g)


def test_ttq_and_its_two_scales() -> None:
    w = weights()
    w[2, 0, 0, 0] = 2.0  # so that the threshold is 0.1 exactly
    w[0, 1, 0, 0], w[0, 1, 0, 1] = 0.1, -0.1
    g = upstream(w)
    quantizer = quantizer_of("ttq")
    scales = dict(quantizer.named_parameters())
    positive, negative = scales["positive_scale"], scales["negative_scale"]
    assert (positive.item(), negative.item()) == (1, 1)
    put(positive, 0.7)
    put(negative, 1.9)
    value, dx, dwp, dwn = ref.ttq(w, g, 0.7, 1.9, 0.05)
    check(quantizer, w, (value, dx), g)
    close(positive.grad.squeeze(), dwp, what="Wp")
    close(negative.grad.squeeze(), dwn, what="Wn")


# Multi-bit.


@pytest.mark.parametrize("grad", ["full", "stopmax", "identity"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dorefa_weight(bits: int, grad: str) -> None:
    w = weights()
    g = upstream(w)
    quantizer = quantizer_of({"name": "dorefa_weight", "bits": bits, "grad": grad})
    check(quantizer, w, ref.dorefa_weight(w, g, bits, grad), g)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_dorefa_input(bits: int) -> None:
    g = upstream(POINTS)
    value = ref.q_k(np.clip(POINTS, 0, 1), bits)
    dx = g * ((POINTS >= 0) & (POINTS <= 1))
    check(quantizer_of({"name": "dorefa_input", "bits": bits}), POINTS, (value, dx), g)


def test_tanh() -> None:
    g = upstream(POINTS)
    value = np.tanh(POINTS)
    check(quantizer_of({"name": "tanh"}), POINTS, (value, g / np.cosh(POINTS) ** 2), g)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 2, 2)])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_dorefa_gradient(bits: int, shape: tuple[int, ...]) -> None:
    g = np.random.default_rng(bits).normal(size=shape) * 1e-3
    quantizer = quantizer_of({"name": "dorefa_gradient", "bits": bits})
    close(quantizer.eval()(torch.from_numpy(g)), ref.dorefa_gradient(g, bits, np.zeros(shape)))
    torch.manual_seed(bits)
    u = torch.rand(shape, dtype=torch.float64).numpy() - 0.5
    torch.manual_seed(bits)
    close(quantizer.train()(torch.from_numpy(g)), ref.dorefa_gradient(g, bits, u))


def test_dorefa_gradient_is_right_on_average_and_keeps_zeros_and_overflows() -> None:
    quantizer = quantizer_of({"name": "dorefa_gradient", "bits": 2})
    g = torch.tensor([[1.0, -0.4, 0.0, 0.1]])
    torch.manual_seed(0)
    mean = torch.stack([quantizer(g) for _ in range(20_000)]).mean(0)
    # A draw is one of two values 2/3 apart: its deviation is at most 1/3, a mean's 1/424.
    torch.testing.assert_close(mean, g, rtol=0, atol=0.012)
    assert torch.equal(quantizer(torch.zeros(2, 3)), torch.zeros(2, 3))
    for broken in (float("inf"), float("nan")):
        rows = quantizer(torch.tensor([[1.0, broken], [1.0, -1.0]]))
        assert not rows[0].isfinite().any()
        assert torch.equal(rows[1], torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("alpha", [1.25, 1.5, 6.0])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pact_and_its_clip(bits: int, alpha: float) -> None:
    g = upstream(POINTS)
    quantizer = quantizer_of({"name": "pact", "bits": bits})
    put(sole(quantizer), alpha)
    value, dx, dalpha = ref.pact(POINTS, g, alpha, bits)
    check(quantizer, POINTS, (value, dx), g)
    close(sole(quantizer).grad.squeeze(), dalpha, what="alpha")


def test_pact_by_hand() -> None:
    """alpha = 3 and two bits: the levels are 0, 1, 2, 3; alpha itself counts on both sides."""
    quantizer = quantizer_of({"name": "pact", "bits": 2})
    put(sole(quantizer), 3.0)
    x = np.array([[-1.0, 0.0, 0.6, 2.4, 3.0, 4.0]])
    value, dx = run(quantizer, x, np.ones_like(x))
    assert value.tolist() == [[0, 0, 1, 2, 3, 3]]
    assert dx.tolist() == [[0, 1, 1, 1, 1, 0]]
    assert sole(quantizer).grad.item() == 2


def grid(signed: bool, bits: int) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
class TestLsq:
    def test_starts_from_twice_the_mean(self, bits: int, signed: bool) -> None:
        high = grid(signed, bits)[1]
        quantizer = quantizer_of({"name": "lsq", "bits": bits, "signed": signed})
        run(quantizer, POINTS, POINTS)
        close(sole(quantizer).squeeze(), 2 * np.abs(POINTS).mean() / math.sqrt(high))

    def test_value_and_gradients(self, bits: int, signed: bool) -> None:
        low, high = grid(signed, bits)
        quantizer = quantizer_of({"name": "lsq", "bits": bits, "signed": signed}).eval()
        for step in (0.25, 0.5, 1.5 / high):  # with points exactly on both ends of the range
            x = np.append(POINTS, [low * step, high * step])
            g = upstream(x)
            quantizer.zero_grad()
            put(sole(quantizer), step)
            value, dx, dstep, _ = ref.lsq(x, g, np.array(step), low, high, x.size)
            check(quantizer, x, (value, dx), g)
            close(sole(quantizer).grad.squeeze(), dstep.sum(), what="step")

    def test_a_step_per_channel(self, bits: int, signed: bool) -> None:
        low, high = grid(signed, bits)
        quantizer = get({"name": "lsq", "bits": bits, "signed": signed, "per_channel": True})
        quantizer.bind(4, 0)
        quantizer.double()
        w = weights()
        g = upstream(w)
        value, dx = run(quantizer, w, g)
        step = 2 * ref.row_mean(np.abs(w)) / math.sqrt(high)
        close(sole(quantizer), step.ravel(), what="step")
        quantizer.zero_grad()
        put(sole(quantizer), step.ravel())  # to double precision
        value, dx, dstep, _ = ref.lsq(w, g, step, low, high, w[0].size)
        check(quantizer, w, (value, dx), g)
        close(sole(quantizer).grad, dstep.reshape(4, -1).sum(1), what="step's gradient")


def test_lsq_by_hand() -> None:
    """Two bits, signed: codes -2 to 1, step 1. 1.5 is beyond the top, 0.5 rounds to even."""
    quantizer = quantizer_of({"name": "lsq", "bits": 2}).eval()
    put(sole(quantizer), 1.0)
    x = np.array([[-3.0, -2.0, -0.25, 0.5, 1.0, 1.5]])
    value, dx = run(quantizer, x, np.ones_like(x))
    assert value.tolist() == [[-2, -2, 0, 0, 1, 1]]
    assert dx.tolist() == [[0, 1, 1, 1, 1, 0]]
    # -2 below; 0, 0.25, -0.5, 0 inside; 1 above; over the root of N Qp = 6.
    close(sole(quantizer).grad.squeeze(), (-2 + 0.25 - 0.5 + 1) / math.sqrt(6))


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("bits", [2, 4, 8])
class TestLsqPlus:
    @pytest.mark.parametrize("beta", [0.0, -0.3, 0.7])
    def test_value_and_gradients(self, bits: int, signed: bool, beta: float) -> None:
        low, high = grid(signed, bits)
        quantizer = quantizer_of({"name": "lsq_plus", "bits": bits, "signed": signed}).eval()
        step = 1.5 / high
        named = dict(quantizer.named_parameters())
        put(named["step"], step)
        put(named["offset"], beta)
        g = upstream(POINTS)
        value, dx, dstep, dbeta = ref.lsq(POINTS, g, np.array(step), low, high, POINTS.size, beta)
        check(quantizer, POINTS, (value, dx), g)
        close(named["step"].grad.squeeze(), dstep.sum(), what="step")
        close(named["offset"].grad.squeeze(), dbeta.sum(), what="offset")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_lsq_plus_weights_start_from_mean_and_deviation(bits: int) -> None:
    w = 0.2 - np.random.default_rng(1).standard_normal((100, 100))
    quantizer = get({"name": "lsq_plus", "bits": bits}).double()
    run(quantizer, w, w)
    spread = max(abs(w.mean() - 3 * w.std()), abs(w.mean() + 3 * w.std()))
    step = dict(quantizer.named_parameters())["step"]
    # n or n - 1 in the deviation is one part in 20 000 here.
    close(step.squeeze(), spread / 2 ** (bits - 1), rtol=1e-4)


# The sums that two or more tables of powers of two make, divided by the largest.
APOT = {
    1: [0, 1],
    2: [0, 0.25, 0.5, 1],
    3: [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1],
    4: [0, 1 / 48, 1 / 24, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 3 / 16, 1 / 4, 1 / 3, 3 / 8, 1 / 2,
        2 / 3, 11 / 16, 3 / 4, 1],
}  # fmt: skip


@pytest.mark.parametrize("alpha", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_apot_weights(bits: int, alpha: float) -> None:
    w = weights()
    g = upstream(w)
    quantizer = quantizer_of({"name": "apot", "bits": bits})
    put(sole(quantizer), alpha)
    levels = [sign * v for v in APOT[bits - 1] for sign in (-1, 1)]
    deviation = w.std(ddof=1)
    value, dx, dalpha = ref.apot((w - w.mean()) / deviation, g, alpha, levels)
    check(quantizer, w, (value, dx / deviation), g)
    close(sole(quantizer).grad.squeeze(), dalpha, what="alpha")


@pytest.mark.parametrize("alpha", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_apot_inputs(bits: int, alpha: float) -> None:
    x = POINTS[POINTS >= 0]
    x = np.append(x, [alpha, 1.01 * alpha])
    g = upstream(x)
    quantizer = quantizer_of({"name": "apot", "bits": bits, "signed": False})
    put(sole(quantizer), alpha)
    value, _, dalpha = ref.apot(x, g, alpha, APOT[bits])
    check(quantizer, x, (value, g * (x <= alpha)), g)
    close(sole(quantizer).grad.squeeze(), dalpha, what="alpha")


def test_apot_plain_powers() -> None:
    quantizer = get({"name": "apot", "bits": 3, "signed": False, "additive": False}).double()
    put(sole(quantizer), 1.0)
    x = torch.linspace(-0.5, 1.5, 4001, dtype=torch.float64)
    close(quantizer(x).unique(), [0, *(2.0**-i for i in range(6, -1, -1))])


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_lq_weights_have_a_basis_for_each_channel(bits: int) -> None:
    w, g = weights(), upstream(weights())
    quantizer = quantizer_of({"name": "lq", "bits": bits})
    basis = np.tile(0.6745 * w.std() / 2 ** (bits - 1) * 2.0 ** np.arange(bits), (4, 1))
    for _ in range(3):  # each training forward uses the basis, and moves it
        expected, fitted = zip(*(ref.lq(w[i], basis[i], True) for i in range(4)), strict=True)
        check(quantizer.train(), w, (np.stack(expected), g), g)
        basis = 0.9 * basis + 0.1 * np.stack(fitted)
        close(quantizer.state_dict()["basis"], basis, what="basis")
    quantizer.eval()
    expected, _ = zip(*(ref.lq(w[i], basis[i], True) for i in range(4)), strict=True)
    check(quantizer, w, (np.stack(expected), g), g)
    close(quantizer.state_dict()["basis"], basis, what="basis after evaluation")


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_lq_inputs_have_one_basis(bits: int) -> None:
    x = np.append(POINTS, np.random.default_rng(5).standard_normal(50))
    g = upstream(x)
    quantizer = quantizer_of({"name": "lq", "bits": bits, "signed": False, "momentum": 0.5})
    basis = 1.349 / (2**bits - 1) * 2.0 ** np.arange(bits)
    for _ in range(3):
        expected, fitted = ref.lq(x, basis, False)
        check(quantizer, x, (expected, g * (x <= basis.sum())), g)
        basis = 0.5 * basis + 0.5 * fitted
        close(quantizer.state_dict()["basis"][0], basis, what="basis")


def test_lq_by_hand() -> None:
    """Basis 1 and 2: levels 0 to 3, thresholds halfway, and 0.5 belongs to the smaller level."""
    quantizer = quantizer_of({"name": "lq", "bits": 2, "signed": False, "momentum": 0.0})
    put(quantizer.state_dict()["basis"], [1.0, 2.0])
    x = np.array([-1.0, 0.5, 0.6, 1.4, 1.6, 2.6, 5.0])
    value, dx = run(quantizer, x, np.ones_like(x))
    assert value.tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert dx.tolist() == [1, 1, 1, 1, 1, 1, 0]
    # Codes 10, 10, 01, 11, 11: [4 2; 2 3] b = [9.6, 9.2].
    close(quantizer.state_dict()["basis"][0], [1.3, 2.2], rtol=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9])
def test_rbnn_turns_weights_before_their_sign(progress: float) -> None:
    w, g = weights(), upstream(weights())
    quantizer = quantizer_of("rbnn_rotate", progress)
    run(quantizer, w, g)  # makes the rotations
    state = quantizer.state_dict()
    left, right = state["left"].numpy().copy(), state["right"].numpy().copy()
    assert (left.shape, right.shape) == ((3, 3), (4, 4))
    theta = np.array([0.3, -0.8, 1.2, 2.5])
    put(sole(quantizer), theta)
    quantizer.zero_grad()

    def slope(x: Array) -> Array:
        return ref.rbnn_slope(x, progress, activations=False)

    value, dx, dtheta = ref.rbnn_rotate(w, g, theta, left, right, slope)
    check(quantizer, w, (value, dx), g)
    close(sole(quantizer).grad, dtheta, what="theta")
    close(quantizer.state_dict()["left"], left, what="rotation in the same epoch")


def test_rbnn_fits_its_rotations_once_an_epoch() -> None:
    w = weights()
    quantizer = quantizer_of("rbnn_rotate")
    run(quantizer, w, w)
    before = [quantizer.state_dict()[n].numpy().copy() for n in ("left", "right")]
    moved = weights(seed=3)
    run(quantizer, moved, w)
    quantizer.eval()
    quantizer.set_progress(0.1)
    run(quantizer, moved, w)
    for name, old in zip(("left", "right"), before, strict=True):
        close(quantizer.state_dict()[name], old, what="before the next epoch's first step")
    z = ref.standardised(moved, moved)[0].reshape(4, 3, 4)
    run(quantizer.train(), moved, w)
    fitted = [quantizer.state_dict()[n].numpy() for n in ("left", "right")]
    for found, expected in zip(fitted, ref.rbnn_fit(z, *before), strict=True):
        close(torch.tensor(found), expected, what="rotation")
        close(torch.tensor(found @ found.T), np.eye(len(found)), what="orthogonal")
    near = [np.abs(np.einsum("ji,njk,kl->nil", *(r[0], z, r[1]))).sum() for r in (before, fitted)]
    assert near[1] > near[0], "turned weights are nearer to the corners"


def test_hwgq_keeps_the_nearest_centre() -> None:
    g = upstream(POINTS)
    value = np.where(POINTS > 0, ref.nearest(POINTS, [0.538, 1.076, 1.614]), 0)
    check(quantizer_of("hwgq"), POINTS, (value, g * ((POINTS > 0) & (POINTS <= 1.614))), g)


RANGES = [(8, True, True), (8, True, False), (4, False, True), (4, False, False), (2, True, False)]


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("narrow", [False, True], ids=["", "narrow"])
@pytest.mark.parametrize(("bits", "signed", "symmetric"), RANGES)
def test_int_k(bits: int, signed: bool, symmetric: bool, narrow: bool, per_channel: bool) -> None:
    w = 0.3 + weights(seed=2)
    g = upstream(w)
    low, high = grid(signed, bits)
    low += narrow
    scale, zero = ref.affine(w, low, high, signed, symmetric, per_channel)
    value, inside = ref.uniform(w, scale, zero, low, high)
    quantizer = quantizer_of(
        {
            "name": "int_k",
            "bits": bits,
            "signed": signed,
            "symmetric": symmetric,
            "narrow_range": narrow,
            "per_channel": per_channel,
        }
    )
    check(quantizer, w, (value, g * inside), g)


def test_int_k_by_hand() -> None:
    """-1 to 2 in four codes: a step of 1, the zero point at -1, and 0 is exactly 0."""
    quantizer = quantizer_of({"name": "int_k", "bits": 2, "symmetric": False})
    x = torch.tensor([[-1.0, -0.4, -0.0, 0.4, 0.6, 1.5, 2.0]], dtype=torch.float64)
    assert quantizer(x).tolist() == [[-1, 0, 0, 0, 1, 2, 2]]
    # The range holds 0 even where the data do not: 3 codes of step 2 above 0.
    assert quantizer(torch.tensor([[5.0, 6.0]])).tolist() == [[4, 6]]


def test_int_k_moving_average_follows_training_only() -> None:
    spec = {"name": "int_k", "symmetric": False, "range": "moving_average", "momentum": 0.1}
    quantizer = quantizer_of(spec)
    first, second, other = np.array([-1.0, 0.3, 2.0]), np.array([-3.0, 0.1, 4.0]), POINTS
    for lowest, highest, batch in [(-1.0, 2.0, first), (-1.2, 2.2, second)]:
        quantizer.train()(torch.tensor(batch))
        ends = np.array([lowest, highest])
        scale, zero = ref.affine(ends, -128, 127, True, False, False)
        for _ in range(2):  # evaluation does not move it
            g = upstream(other)
            value, inside = ref.uniform(other, scale, zero, -128, 127)
            check(quantizer.eval(), other, (value, g * inside), g)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_int_k_learned_scale(bits: int) -> None:
    quantizer = quantizer_of({"name": "int_k", "bits": bits, "range": "learned"})
    low, high = grid(True, bits)
    run(quantizer, POINTS, POINTS)
    (scale,) = (p for n, p in quantizer.named_parameters() if "scale" in n)
    close(scale.squeeze(), 3.0 / ((high - low) / 2), what="first scale")
    quantizer.zero_grad()
    step = 1.4 / high
    put(scale, step)
    # Away from the half steps at both ends, where in range may be meant before or after rounding.
    z = POINTS / step
    x = POINTS[((z <= high) | (z > high + 0.5)) & ((z >= low) | (z < low - 0.5))]
    g = upstream(x)
    value, dx, dstep, _ = ref.lsq(x, g, np.array(step), low, high, x.size)
    check(quantizer, x, (value, dx), g)
    close(scale.grad.squeeze(), dstep.sum(), what="scale")


def test_absmax_int8_has_one_scale_for_each_token() -> None:
    x = np.random.default_rng(5).standard_normal((2, 3, 8)) * [[[1.0], [30.0], [0.0]]]
    x[0, 0, :2] = [4.0, -4.0]
    g = upstream(x)
    scale = 127 / np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5)
    value = np.clip(np.round(x * scale), -128, 127) / scale
    check(quantizer_of("absmax_int8"), x, (value, g), g)


# Learned scales and shifts of binary values.


@pytest.mark.parametrize("clip", [None, 1.5])
def test_rsign_shifts_each_channel(clip: float | None) -> None:
    x = np.random.default_rng(3).standard_normal((5, 4, 3, 2))
    bias = np.array([0.3, -0.7, 0.0, 1.2])
    x[0, :, 0, 0] = -bias  # exactly at the shifted zero
    x[1, :, 0, 0] = 1 - bias
    g = upstream(x)
    quantizer = get({"name": "rsign", "clip": clip})
    quantizer.bind(4, -3)
    quantizer.double()
    assert sole(quantizer).flatten().tolist() == [0, 0, 0, 0]
    put(sole(quantizer), bias)
    shifted = x + bias[:, None, None]
    dx = g * (ref.approx_slope(shifted) if clip is None else ref.clip_slope(shifted, clip))
    check(quantizer, x, (ref.s(shifted), dx), g)
    close(sole(quantizer).grad.flatten(), dx.sum((0, 2, 3)), what="bias")
    # The same without the batch axis.
    close(quantizer(torch.tensor(x[0])), ref.s(shifted[0]))


TILED = np.tile(POINTS, (4, 1))  # four channels


@pytest.mark.parametrize("shift", [None, [0.0, 0.25, -0.5, 1.5]], ids=["", "shifted"])
@pytest.mark.parametrize("alpha", [0.5, 1.25])
def test_elastic_sign_and_its_scale(alpha: float, shift: list[float] | None) -> None:
    g = upstream(TILED)
    shifted = shift is not None
    quantizer = quantizer_of({"name": "elastic_sign", "shifted": shifted})
    named = dict(quantizer.named_parameters())
    assert set(named) == ({"scale", "shift"} if shifted else {"scale"})
    run(quantizer, TILED, g)
    close(named["scale"].squeeze(), 2 * np.abs(POINTS).mean(), what="first alpha")
    quantizer.zero_grad()
    put(named["scale"], alpha)
    x = TILED
    if shifted:
        assert named["shift"].tolist() == [0, 0, 0, 0]
        put(named["shift"], shift)
        x = TILED + np.array(shift)[:, None]
    value, dx, dalpha = ref.elastic_sign(x, g, alpha)
    check(quantizer, TILED, (value, dx), g)
    close(named["scale"].grad.squeeze(), dalpha, what="alpha")
    if shifted:
        close(named["shift"].grad, dx.sum(1), what="shift")


def test_elastic_sign_unsigned() -> None:
    g = upstream(TILED)
    quantizer = quantizer_of({"name": "elastic_sign", "signed": False})
    scale = dict(quantizer.named_parameters())["scale"]
    run(quantizer, TILED, g)
    close(scale.squeeze(), 4 * np.abs(POINTS).mean(), what="first alpha")
    put(scale, 0.5)
    value, dx = run(quantizer, TILED, g)
    close(value, 0.5 * np.clip(np.round(TILED / 0.5), 0, 1))
    # Below 0 the value does not move with x: there the rule for 0 <= x / alpha <= 1 holds.
    close(dx, g * ((TILED >= 0) & (TILED <= 0.5)))


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 0.25), (2.0, -0.5)])
def test_adabin_input_and_its_scale_and_offset(form: str, alpha: float, beta: float) -> None:
    """The paper's a s((x - b) / a) + b, or the code's a (s((x - b) / a) + b)."""
    g = upstream(POINTS)
    quantizer = get({"name": "adabin_input", "form": form}).double()
    named = dict(quantizer.named_parameters())
    assert (named["scale"].item(), named["offset"].item()) == (1, 0)
    put(named["scale"], alpha)
    put(named["offset"], beta)
    value, dx, dalpha, dbeta = ref.adabin_input(POINTS, g, alpha, beta, form)
    check(quantizer, POINTS, (value, dx), g)
    close(named["scale"].grad.squeeze(), dalpha, what="scale")
    close(named["offset"].grad.squeeze(), dbeta, what="offset")


# Values that depend on the mode or on chance.


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9])
def test_progressive_sign_steepens_in_training_and_is_sign_in_evaluation(progress: float) -> None:
    g = upstream(POINTS)
    quantizer = quantizer_of("progressive_sign", progress)
    value, _ = run(quantizer, POINTS, g)
    close(value, np.clip(POINTS / (1 - progress), -1, 1))
    value, _ = run(quantizer.eval(), POINTS, g)
    close(value, ref.s(POINTS))


@pytest.mark.parametrize(("epoch", "width"), [(0, 1.0), (1, 0.9), (20, 0.9**20), (50, 0.01)])
def test_progressive_sign_s_ramp_may_lose_the_same_share_in_every_epoch(
    epoch: int, width: float
) -> None:
    spec = {"name": "progressive_sign", "final": 0.9**50, "eps": 0.01}
    g = upstream(POINTS)
    value, dx = run(quantizer_of(spec, epoch / 50), POINTS, g)
    close(value, np.clip(POINTS / width, -1, 1), rtol=1e-6)  # the fraction is kept in float32
    close(dx, g)


@pytest.mark.parametrize("name", ["progressive_sign", "stochastic_sign"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_straight_through_or_clipped(name: str, mode: bool) -> None:
    torch.manual_seed(0)
    g = upstream(POINTS)
    close(run(quantizer_of(name, 0.5).train(mode), POINTS, g)[1], g)
    clipped = quantizer_of({"name": name, "clip": 1.0}, 0.5).train(mode)
    close(run(clipped, POINTS, g)[1], g * ref.clip_slope(POINTS))


def test_progressive_sign_ends_as_sign() -> None:
    quantizer = quantizer_of("progressive_sign", 1.0)
    x = np.array([-1.0, -0.01, 0.01, 1.0])
    close(run(quantizer, x, x)[0], [-1, -1, 1, 1])


@pytest.mark.parametrize(("x", "share"), [(-1.0, 0), (-0.5, 0.25), (0.0, 0.5), (0.6, 0.8), (1, 1)])
def test_stochastic_sign_is_plus_one_with_the_hard_sigmoid_s_probability(
    x: float, share: float
) -> None:
    torch.manual_seed(0)
    quantizer = quantizer_of("stochastic_sign")
    n = 20_000
    y = quantizer(torch.full((n,), float(x)))
    assert set(y.tolist()) <= {-1.0, 1.0}
    # Five standard deviations of a binomial share.
    assert abs((y > 0).double().mean() - share) <= 5 * math.sqrt(share * (1 - share) / n)


def test_stochastic_sign_beyond_one_is_certain_and_evaluation_is_sign() -> None:
    torch.manual_seed(0)
    quantizer = quantizer_of("stochastic_sign")
    x = torch.tensor([-9.0, -1.5, 1.5, 9.0]).repeat(100)
    assert torch.equal(quantizer(x), x.sign())
    quantizer.eval()
    close(quantizer(torch.tensor(POINTS)), ref.s(POINTS))


def test_every_name_is_tested_here() -> None:
    """A quantizer that is added brings its golden row, or a test that names it."""
    with open(__file__) as file:
        text = file.read()
    shipped = [n for n in names() if type(get(n)).__module__.startswith("lowbit.")]
    assert [n for n in shipped if f'"{n}"' not in text] == []
