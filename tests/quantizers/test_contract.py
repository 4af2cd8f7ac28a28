"""What every registered quantizer must do. A new file in the folder is tested by being there."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lowbit.functional import sign
from lowbit.quantizers import Quantizer, get, names
from lowbit.quantizers._base import SignBased
from lowbit.quantizers._initialise import DataInitialised
from lowbit.quantizers._registry import quantizers

CHANNELS = 4
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(CHANNELS, 6), (CHANNELS, 3, 2, 2)]

# Another test module may have registered classes of its own by now.
SHIPPED = [n for n in names() if quantizers.resolve(n).__module__.startswith("lowbit.")]

# The same contract under the arguments that lead through other code.
VARIANTS: list[dict[str, Any]] = [
    {"name": "adabin_input", "form": "paper"},
    {"name": "apot", "bits": 3, "signed": False},
    {"name": "apot", "bits": 3, "additive": False},
    {"name": "approx_sign", "unit_deviation": True},
    {"name": "approx_sign", "standardise": True},
    {"name": "dorefa_gradient", "bits": 1},
    {"name": "dorefa_input", "bits": 1},
    {"name": "dorefa_weight", "bits": 3},
    {"name": "dorefa_weight", "bits": 3, "grad": "stopmax"},
    {"name": "dorefa_weight", "bits": 3, "grad": "identity"},
    {"name": "elastic_sign", "signed": False},
    {"name": "elastic_sign", "shifted": True},
    {"name": "int_k", "bits": 3, "signed": False},
    {"name": "int_k", "bits": 4, "symmetric": False, "per_channel": True},
    {"name": "int_k", "bits": 4, "range": "moving_average", "symmetric": False},
    {"name": "int_k", "bits": 4, "range": "moving_average", "per_channel": True},
    {"name": "int_k", "bits": 4, "range": "learned"},
    {"name": "int_k", "bits": 4, "range": "learned", "symmetric": False, "per_channel": True},
    {"name": "lq", "bits": 1},
    {"name": "lq", "bits": 3, "signed": False},
    {"name": "lsq", "bits": 2, "signed": False},
    {"name": "lsq", "bits": 3, "per_channel": True},
    {"name": "lsq_plus", "bits": 3, "signed": False},
    {"name": "lsq_plus", "bits": 3, "per_channel": True},
    {"name": "pact", "bits": 1},
    {"name": "progressive_sign", "clip": 1.0},
    {"name": "progressive_sign", "final": 1e-6},
    {"name": "rbnn_poly", "activation": True},
    {"name": "rbnn_poly", "standardise": True},
    {"name": "rbnn_poly", "activation": True, "standardise": True},
    {"name": "rsign", "clip": 1.5},
    {"name": "ste_sign", "clip": 0.0},
    {"name": "ste_tern", "ternary_weight_networks": True},
    {"name": "stochastic_sign", "clip": 1.0},
    {"name": "twn", "granularity": "channel"},
    {"name": "twn", "scale": False},
    {"name": "xnor", "grad": "exact"},
    {"name": "xnor", "center": False, "times_n": True},
    {"name": "xnor", "act_scale": True},
    {"name": "xnor", "grad": "exact", "sign_zero": "ternary"},
]
TERNARY: list[dict[str, Any]] = [
    {"name": name, "sign_zero": "ternary"}
    for name in SHIPPED
    if issubclass(quantizers.resolve(name), SignBased)
]
SPECS: list[Any] = [*SHIPPED, *VARIANTS, *TERNARY]


def title(spec: Any) -> str:
    return spec if isinstance(spec, str) else " ".join(str(v) for v in spec.values())


def over(specs: list[Any]) -> pytest.MarkDecorator:
    params = [pytest.param(spec, id=title(spec)) for spec in specs]
    return pytest.mark.parametrize("spec", params)


def slow_over(specs: list[Any]) -> pytest.MarkDecorator:
    """The names always, their variants among the slow tests: tracing takes a second each."""
    marks = [() if isinstance(spec, str) else pytest.mark.slow for spec in specs]
    params = [
        pytest.param(spec, marks=mark, id=title(spec))
        for spec, mark in zip(specs, marks, strict=True)
    ]
    return pytest.mark.parametrize("spec", params)


def starts_from_data(spec: Any) -> bool:
    return any(isinstance(m, DataInitialised) for m in get(spec).modules())


def by_sample(spec: Any) -> bool:
    quantizer = get(spec)
    if quantizer.made_for == "gradient":
        return True
    return getattr(quantizer, "standardise", False) and getattr(quantizer, "activation", True)


by_name = pytest.mark.parametrize("name", SHIPPED)
every = over(SPECS)
local = over([spec for spec in SPECS if get(spec).is_local])


def make(spec: Any, channels: int = CHANNELS, axis: int = 0) -> Quantizer:
    """The quantizer as a layer holds it: told how its tensor is laid out."""
    quantizer = get(spec)
    assert quantizer is not None
    quantizer.bind(channels, axis)
    return quantizer


def data(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def warm(spec: Any, x: Tensor) -> Quantizer:
    """A quantizer after its first batch, so that nothing is left to initialise."""
    torch.manual_seed(0)
    quantizer = make(spec)
    quantizer(x)
    return quantizer


def gradient(quantizer: Quantizer, x: Tensor, g: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad((g * quantizer(x)).sum(), x)[0]


def assert_same(a: Quantizer, b: Quantizer, x: Tensor) -> None:
    """Same class, arguments, state and output, and no state shared."""
    assert type(a) is type(b)
    assert a.spec == b.spec
    mine, theirs = a.state_dict(), b.state_dict()
    assert list(mine) == list(theirs)
    for key, value in mine.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0, equal_nan=True)
        assert value.data_ptr() != theirs[key].data_ptr()
    torch.testing.assert_close(a.eval()(x), b.eval()(x), rtol=0, atol=0)


# What is written.


@by_name
def test_registered_name_is_attribute_and_file_name(name: str) -> None:
    cls = quantizers.resolve(name)
    assert cls.name == name
    assert cls.__module__ == f"lowbit.quantizers.{name}"


@by_name
def test_docstring_says_value_slope_arguments_and_source(name: str) -> None:
    cls = quantizers.resolve(name)
    text = inspect.getdoc(cls) or ""
    assert cls.__doc__ is not None, "the docstring is the class's own, not its base's"
    for part in (r"value\s", r"slope\s", "Source:"):
        assert re.search(rf"^{part}", text, re.MULTILINE), f"no line begins with {part!r}"
    # Inherited arguments are those of the class that has the __init__, and may be said there.
    owner = next(c for c in cls.__mro__ if "__init__" in vars(c))
    if owner is not cls:
        text += "\n" + (inspect.getdoc(owner) or "")
    arguments = inspect.signature(cls).parameters
    assert bool(re.search(r"^Arguments:", text, re.MULTILINE)) == bool(arguments)
    said = text.partition("Arguments:")[2]
    assert [a for a in arguments if not re.search(rf"\b{a}\b", said)] == []


@by_name
def test_made_for_is_what_name_and_first_line_say(name: str) -> None:
    cls = quantizers.resolve(name)
    assert cls.made_for in ("input", "weight", "gradient", "either")
    first = (inspect.getdoc(cls) or "").partition("\n")[0].lower()
    for role in ("input", "weight", "gradient"):
        # Of slopes they speak too: "a clipped gradient". Of what is quantized they begin with.
        said = rf"^{role}s\b" if role == "gradient" else rf"\b{role}s?\b"
        if name.endswith(f"_{role}") or re.search(said, first):
            assert cls.made_for == role


@every
def test_repr_shows_class_and_arguments(spec: Any) -> None:
    quantizer = get(spec)
    text = repr(quantizer)
    assert text.startswith(type(quantizer).__name__ + "(")
    for argument, parameter in inspect.signature(type(quantizer)).parameters.items():
        changed = getattr(quantizer, argument) != parameter.default
        assert (f"{argument}=" in text) == changed


@every
def test_spec_makes_an_equal_quantizer(spec: Any) -> None:
    quantizer = get(spec)
    again = get(quantizer.spec)
    assert again.spec == quantizer.spec
    assert set(quantizer.spec) == {"name", *inspect.signature(type(quantizer)).parameters}
    assert repr(again) == repr(quantizer)
    assert_same(again, quantizer, data(*SHAPES[0]))


# What comes out.


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_dtype_are_kept(spec: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = data(*shape, dtype=dtype)
    quantizer = warm(spec, x)
    for mode in (True, False):
        quantizer.train(mode)
        leaf = x.clone().requires_grad_()
        y = quantizer(leaf)
        y.sum().backward()
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert (leaf.grad.shape, leaf.grad.dtype) == (x.shape, dtype)
        assert y.isfinite().all()
        assert leaf.grad.isfinite().all()
        for told in (quantizer.value(x), quantizer.slope(x)):
            assert (told.shape, told.dtype) == (x.shape, dtype)
            assert told.isfinite().all()


@every
def test_at_most_two_to_the_bits_values_per_channel(spec: Any) -> None:
    # Row 0 is one channel of a weight and one token of an input alike.
    x = 2 * data(CHANNELS, 3000, seed=1)
    quantizer = warm(spec, x).eval()
    assert isinstance(quantizer.bits, int)
    values = quantizer(x)[0].unique()
    assert len(values) <= 2**quantizer.bits
    if quantizer.two_level:
        assert len(values) == 2


@every
def test_values_below_zero_come_out_only_where_signed(spec: Any) -> None:
    x = 2 * data(CHANNELS, 3000, seed=1)
    quantizer = warm(spec, x).eval()
    below = bool((quantizer(x) < 0).any())
    if quantizer.name == "lsq_plus" and not quantizer.signed:
        assert below  # the codes are unsigned; the offset learns where the inputs begin
    else:
        assert below == quantizer.signed


@over([spec for spec in SPECS if get(spec).levels is not None])
def test_levels_are_exactly_the_values_that_appear(spec: Any) -> None:
    quantizer = make(spec).double().eval()
    # Steps of 1/1024 add up to a mean of exactly 0, which some methods subtract.
    x = (torch.arange(-4096, 4097, dtype=torch.float64) / 1024).repeat(CHANNELS, 1)
    expected = torch.tensor(quantizer.levels, dtype=torch.float64)
    assert tuple(expected.sort().values.tolist()) == tuple(quantizer.levels)
    torch.testing.assert_close(quantizer(x).unique(), expected, rtol=1e-12, atol=1e-12)


@every
def test_value_is_what_comes_out(spec: Any) -> None:
    x = data(*SHAPES[1])
    quantizer = warm(spec, x).eval()
    torch.testing.assert_close(quantizer.value(x), quantizer(x), rtol=1e-12, atol=1e-12)


@every
def test_value_is_sign_means_sign(spec: Any) -> None:
    x = torch.cat([data(CHANNELS, 50), torch.zeros(CHANNELS, 1), -torch.zeros(CHANNELS, 1)], 1)
    quantizer = warm(spec, x).eval()
    same = torch.equal(quantizer(x), sign(x))
    if quantizer.value_is_sign:
        assert same
        assert quantizer.levels == (-1.0, 1.0)


@over(TERNARY)
def test_a_ternary_sign_of_zero_is_a_third_value(spec: Any) -> None:
    quantizer, plus = make(spec).eval(), make(spec["name"]).eval()
    assert (plus.sign_zero, plus.bits, quantizer.bits) == ("plus", 1, 2)
    assert not quantizer.two_level
    assert not quantizer.value_is_sign
    assert quantizer.pad_value == 0
    x = torch.tensor([[-0.5, -0.0, 0.0, 0.5]], dtype=torch.float64).repeat(CHANNELS, 1)
    y, two = quantizer(x), plus(x)
    assert torch.equal(y == 0, x == 0), "a symmetric row has a mean of exactly 0"
    assert torch.equal(y[x != 0], two[x != 0])
    assert (two[x == 0] > 0).all()
    torch.testing.assert_close(quantizer.slope(x), plus.slope(x), rtol=0, atol=0)


@over(TERNARY)
def test_sign_zero_is_one_of_two_words(spec: Any) -> None:
    with pytest.raises(ValueError, match="sign_zero one of plus, ternary; got sign_zero='minus'"):
        get({**spec, "sign_zero": "minus"})


@every
def test_the_magnitude_of_the_inputs_is_left_out_unless_asked_for(spec: Any) -> None:
    assert get(spec).act_scale == (isinstance(spec, dict) and spec.get("act_scale", False))


@every
def test_padding_is_minus_one_only_where_that_adds_no_third_value(spec: Any) -> None:
    quantizer = make(spec)
    assert quantizer.pad_value == (-1.0 if quantizer.levels == (-1.0, 1.0) else 0.0)


@every
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("fill", [0.0, 0.7], ids=["zero", "constant"])
def test_a_constant_tensor_gives_finite_values_and_gradients(
    spec: Any, shape: tuple[int, ...], fill: float
) -> None:
    x = torch.full(shape, fill, requires_grad=True)
    quantizer = make(spec, channels=shape[0])
    for mode in (True, True, False):  # the first batch, the next one, evaluation
        quantizer.train(mode)
        y = quantizer(x)
        y.sum().backward()
        assert y.isfinite().all()
        assert x.grad.isfinite().all()
    for key, parameter in quantizer.named_parameters():
        assert parameter.isfinite().all(), key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@every
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_nan_shows_in_the_output(spec: Any, mode: bool) -> None:
    x = data(CHANNELS, 6)
    quantizer = warm(spec, x).train(mode)
    x[1, 2] = torch.nan
    y = quantizer(x)
    assert y[1, 2].isnan()


@every
def test_evaluation_is_deterministic(spec: Any) -> None:
    x = data(*SHAPES[1])
    quantizer = warm(spec, x).eval()
    before = copy.deepcopy(quantizer.state_dict())
    first, second = quantizer(x), quantizer(x)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for key, value in quantizer.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@every
def test_training_is_random_only_where_said(spec: Any) -> None:
    x = data(CHANNELS, 200)
    quantizer = warm(spec, x)
    torch.manual_seed(1)
    twin = copy.deepcopy(quantizer)
    assert torch.equal(quantizer(x), twin(x)) == quantizer.deterministic


# What goes back.


@local
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_gradient_is_upstream_times_slope(spec: Any, mode: bool) -> None:
    x = torch.cat([data(CHANNELS, 20), torch.zeros(CHANNELS, 1), torch.ones(CHANNELS, 1)], 1)
    g = data(CHANNELS, 22, seed=2)
    quantizer = warm(spec, x).train(mode)
    expected = g * quantizer.slope(x)
    torch.testing.assert_close(gradient(quantizer, x, g), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(quantizer.pull(g, x), expected, rtol=1e-12, atol=1e-14)


@every
def test_slope_is_one_where_the_input_is_not_read(spec: Any) -> None:
    x = data(*SHAPES[0])
    quantizer = make(spec)
    if quantizer.is_local and not quantizer.slope_reads_input:
        torch.testing.assert_close(quantizer.slope(x), torch.ones_like(x), rtol=0, atol=0)


@every
def test_gradients_reach_input_and_parameters(spec: Any) -> None:
    x = data(*SHAPES[1])
    x[0, 0, 0, 0] = 0.0  # where even a clip of 0 lets the gradient through
    x.requires_grad_()
    quantizer = warm(spec, x.detach())
    (data(*SHAPES[1], seed=2) * quantizer(x)).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    for key, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@local
def test_the_gradient_has_a_gradient(spec: Any) -> None:
    """d/dx of (gradient of y^2) x, with gradient = 2 y slope(x) written out."""
    x = data(*SHAPES[0])
    quantizer = warm(spec, x).eval()
    x.requires_grad_()
    (first,) = torch.autograd.grad(quantizer(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * x).sum(), x)
    written_out = (2 * quantizer(x) * quantizer.slope(x) * x).sum()
    torch.testing.assert_close(second, torch.autograd.grad(written_out, x)[0])


class HalfGradient(Quantizer):
    """Nothing forward, as some methods do for a part of the training."""

    def value(self, x: Tensor) -> Tensor:
        return x

    def slope(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)


def test_a_value_may_be_the_input_itself() -> None:
    x, g = data(*SHAPES[0]), data(*SHAPES[0], seed=2)
    quantizer = HalfGradient()
    assert torch.equal(quantizer(x), x)
    assert torch.equal(gradient(quantizer, x, g), g / 2)


# What torch does with modules.


@every
def test_deepcopy_and_pickle(spec: Any) -> None:
    x = data(*SHAPES[0])
    quantizer = warm(spec, x)
    assert_same(copy.deepcopy(quantizer), quantizer, x)
    assert_same(pickle.loads(pickle.dumps(quantizer)), quantizer, x)


@every
def test_state_survives_a_checkpoint(spec: Any) -> None:
    x = data(*SHAPES[0])
    quantizer = warm(spec, x)
    quantizer.set_progress(0.4)
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    fresh = make(spec)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    # A first batch in training mode must not initialise again what the checkpoint holds.
    if quantizer.deterministic:
        y = 3 * data(*SHAPES[0], seed=3)
        torch.testing.assert_close(fresh(y), quantizer(y), rtol=0, atol=0)
    torch.testing.assert_close(fresh.slope(x), quantizer.slope(x), rtol=0, atol=0)
    assert_same(fresh, quantizer, x)


@every
def test_progress_is_state(spec: Any) -> None:
    """Whatever ``set_progress`` changes in value or slope is in the checkpoint."""
    x = data(CHANNELS, 50)
    quantizer = warm(spec, x)
    # Away from the ends, where a schedule has set in. Not every method has one.
    before, state = quantizer.slope(x), copy.deepcopy(quantizer.state_dict())
    quantizer.set_progress(0.9)
    if not torch.equal(before, quantizer.slope(x)):
        after = quantizer.state_dict()
        assert any(not torch.equal(value, after[key]) for key, value in state.items())


@every
def test_autocast_changes_nothing_but_speed(spec: Any) -> None:
    x = data(*SHAPES[1], dtype=torch.float32)
    g = data(*SHAPES[1], dtype=torch.float32, seed=2)
    quantizer = warm(spec, x).eval()
    expected = quantizer(x), gradient(quantizer, x, g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = quantizer(x)
        back = gradient(quantizer, x, g)
        assert quantizer(x.bfloat16()).dtype == torch.bfloat16
        gradient(quantizer, x.bfloat16(), g.bfloat16())
    torch.testing.assert_close(y, expected[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(back, expected[1], rtol=1e-5, atol=1e-5)


@every
def test_no_grad_and_inference_mode(spec: Any) -> None:
    x = data(*SHAPES[0])
    quantizer = warm(spec, x).eval()
    expected = quantizer(x)
    with torch.no_grad():
        torch.testing.assert_close(quantizer(x), expected, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(quantizer(x).clone(), expected, rtol=0, atol=0)


@every
def test_input_is_left_as_it_was(spec: Any) -> None:
    x = data(*SHAPES[0])
    before = x.clone()
    quantizer = warm(spec, x)
    gradient(quantizer, x, data(*SHAPES[0], seed=2))
    assert torch.equal(x, before)


@every
def test_a_transposed_input_gives_the_transposed_values(spec: Any) -> None:
    """Values depend on the tensor, not on its layout in memory."""
    x = data(*SHAPES[1])
    g = data(*SHAPES[1], seed=2)
    quantizer = warm(spec, x).eval()
    laid_out = x.to(memory_format=torch.channels_last)
    assert not laid_out.is_contiguous()
    torch.testing.assert_close(quantizer(laid_out), quantizer(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradient(quantizer, laid_out, g), gradient(quantizer, x, g), rtol=1e-9, atol=1e-12
    )


# The first axis is the sample's here, whatever the channels' is.
@over([spec for spec in SPECS if not by_sample(spec)])
@pytest.mark.parametrize("axis", [1, -3])
def test_channels_may_lie_along_the_second_axis(spec: Any, axis: int) -> None:
    """As in transposed convolutions and in inputs: the same values, transposed."""
    x, g = data(CHANNELS, 3, 2, 2), data(CHANNELS, 3, 2, 2, seed=2)
    quantizer = warm(spec, x).eval()
    torch.manual_seed(0)
    turned = make(spec, axis=axis)
    turned(x.transpose(0, 1))
    turned.eval()
    for got, expected in [
        (turned(x.transpose(0, 1)), quantizer(x)),
        (gradient(turned, x.transpose(0, 1), g.transpose(0, 1)), gradient(quantizer, x, g)),
    ]:
        torch.testing.assert_close(got.transpose(0, 1), expected, rtol=1e-6, atol=1e-9)


@every
def test_a_sign_scale_times_the_sign_is_the_value(spec: Any) -> None:
    x = data(*SHAPES[1])
    quantizer = warm(spec, x).eval()
    scale = quantizer.sign_scale(x)
    if scale is not None:
        signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
        torch.testing.assert_close(scale * signs, quantizer.value(x), rtol=0, atol=0)


# What compilers and transforms do with it.


def compiled_equals_eager(spec: Any, backend: str) -> None:
    torch._dynamo.reset()
    x = data(*SHAPES[1], dtype=torch.float32)
    g = data(*SHAPES[1], dtype=torch.float32, seed=2)
    quantizer = warm(spec, x)
    quantizer.train(quantizer.deterministic)
    twin = copy.deepcopy(quantizer)
    compiled = torch.compile(twin, fullgraph=True, backend=backend)
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = compiled(leaf), quantizer(other)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    (g * y).sum().backward()
    (g * expected).sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-5, atol=1e-6)
    theirs = dict(twin.named_parameters())
    for key, parameter in quantizer.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[key].grad, rtol=1e-5, atol=1e-6)
    theirs_too = dict(twin.named_buffers())
    for key, buffer in quantizer.named_buffers():
        torch.testing.assert_close(buffer, theirs_too[key], rtol=1e-5, atol=1e-6)


@slow_over(SPECS)
def test_compiled_in_one_graph(spec: Any) -> None:
    compiled_equals_eager(spec, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["approx_sign", "lsq"])
def test_compiled_by_inductor(spec: Any) -> None:
    compiled_equals_eager(spec, "inductor")


class Holder(nn.Module):
    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x) * 2


@every
def test_exported(spec: Any) -> None:
    x = data(*SHAPES[1], dtype=torch.float32)
    module = Holder(warm(spec, x)).eval()
    program = torch.export.export(module, (x,))
    y = data(*SHAPES[1], dtype=torch.float32, seed=3)
    torch.testing.assert_close(program.module()(y), module(y), rtol=1e-6, atol=1e-6)


@every
def test_functional_gradient(spec: Any) -> None:
    x, g = data(*SHAPES[0]), data(*SHAPES[0], seed=2)
    quantizer = warm(spec, x).eval()
    got = torch.func.grad(lambda t: (g * quantizer(t)).sum())(x)
    torch.testing.assert_close(got, gradient(quantizer, x, g), rtol=1e-12, atol=1e-14)


@local
def test_vmap_equals_a_loop(spec: Any) -> None:
    xs, g = data(5, *SHAPES[0]), data(*SHAPES[0], seed=2)
    quantizer = warm(spec, xs[0]).eval()
    expected = torch.stack([quantizer(x) for x in xs])
    torch.testing.assert_close(torch.vmap(quantizer)(xs), expected, rtol=0, atol=0)
    slopes = torch.vmap(torch.func.grad(lambda t: (g * quantizer(t)).sum()))(xs)
    expected = torch.stack([gradient(quantizer, x, g) for x in xs])
    torch.testing.assert_close(slopes, expected, rtol=1e-12, atol=1e-14)


# Parameters that start from data.

STARTED = [spec for spec in SPECS if starts_from_data(spec)]
initialised = over(STARTED)


def has_started(quantizer: Quantizer) -> bool:
    return all(m.initialised for m in quantizer.modules() if isinstance(m, DataInitialised))


@initialised
def test_only_the_first_training_batch_initialises(spec: Any) -> None:
    quantizer = make(spec).eval()
    made = copy.deepcopy(quantizer.state_dict())
    quantizer(data(*SHAPES[0]))
    for key, value in quantizer.state_dict().items():
        assert torch.equal(value, made[key]), f"{key} changed in evaluation"
    assert not has_started(quantizer)
    quantizer.train()(data(*SHAPES[0]))
    assert has_started(quantizer)
    first = {k: p.clone() for k, p in quantizer.named_parameters()}
    assert any(not torch.equal(p, made[k]) for k, p in first.items())
    quantizer(5 * data(*SHAPES[0], seed=3))
    for key, parameter in quantizer.named_parameters():
        assert torch.equal(parameter, first[key]), f"{key} initialised twice"


@initialised
def test_a_copy_of_an_initialised_quantizer_is_initialised(spec: Any) -> None:
    quantizer = warm(spec, data(*SHAPES[0]))
    for twin in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        twin.train()(5 * data(*SHAPES[0], seed=3))
        for key, parameter in quantizer.named_parameters():
            assert torch.equal(parameter, twin.get_parameter(key))


@initialised
def test_copied_buffers_say_that_parameters_have_started(spec: Any) -> None:
    """An average of weights is such a copy, made before the first batch and trained on later."""
    quantizer, average = warm(spec, data(*SHAPES[0])), make(spec)
    with torch.no_grad():
        for name, value in average.state_dict(keep_vars=True).items():
            value.copy_(quantizer.state_dict()[name])
    average.train()(5 * data(*SHAPES[0], seed=3))
    for key, parameter in quantizer.named_parameters():
        assert torch.equal(parameter, average.get_parameter(key))


@initialised
def test_loading_an_unused_checkpoint_leaves_initialisation_to_come(spec: Any) -> None:
    used, unused = warm(spec, data(*SHAPES[0])), make(spec)
    used.load_state_dict(unused.state_dict())
    used.train()(data(*SHAPES[0]))
    assert has_started(used)


@slow_over(STARTED)
def test_initialises_inside_a_compiled_graph(spec: Any) -> None:
    torch._dynamo.reset()
    x = data(*SHAPES[0], dtype=torch.float32)
    quantizer, twin = make(spec), make(spec)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), quantizer(x), rtol=1e-6, atol=1e-6)
    for key, parameter in quantizer.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(key))
