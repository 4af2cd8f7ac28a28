"""From observed and trained float modules, as torch.ao's from_float made them."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lowbit import observers
from lowbit.nn import qat
from lowbit.nn import quantized as nnq
from lowbit.qconfig import QConfig, get_default_qat_qconfig
from tests.golden.cases import array, cases

# The recorded quint4x2 layers keep the default dtype of 8 bits and return rows of 2 numbers.
GARBAGE = [f"Embedding.from_float.quint4x2.{name}" for name in ("rand", "pos", "tiny")]


def activation(engine: str) -> nn.Module:
    return observers.HistogramObserver(reduce_range=engine == "x86")


def qconfig(engine: str = "x86") -> SimpleNamespace:
    per_channel = observers.default_per_channel_weight_observer
    weight = per_channel if engine == "x86" else observers.default_weight_observer
    return SimpleNamespace(weight=weight, activation=lambda: activation(engine))


def observe(module: nn.Module, x: torch.Tensor, observer: nn.Module) -> torch.Tensor:
    """What the module returns, seen by its ``activation_post_process``."""
    y = module(x).detach()
    module.activation_post_process = observer
    return observer(y)


def quantize(x: torch.Tensor, observer: nn.Module) -> nnq.Quantize:
    stub = nn.Identity()
    observe(stub, x, observer)
    return nnq.Quantize.from_float(stub)


def of(*apis: str) -> list:
    found = [case for api in apis for case in cases(api, exact=True)]
    return [pytest.param(case, id=case.id) for case in found if case.error is None]


@pytest.mark.parametrize("case", of("Linear.from_float", "Conv1d.from_float", "Conv2d.from_float"))
def test_layers(case):
    inputs, out = case.inputs, case.out
    x, engine = inputs["input"], inputs["engine"]
    name = case.api.removesuffix(".from_float")
    o, c, *kernel = inputs["weight"].shape
    if name == "Linear":
        layer = nn.Linear(c, o)
    else:
        stride = 1 if x.shape[-1] == out["out"].shape[-1] else 2
        layer = getattr(nn, name)(c, o, kernel, stride=stride, padding=1)
    layer.weight, layer.bias = nn.Parameter(inputs["weight"]), nn.Parameter(inputs["bias"])
    layer.qconfig = qconfig(engine)
    observe(layer, x, activation(engine))
    first, found = quantize(x, activation(engine)), getattr(nnq, name).from_float(layer)
    assert (first.scale, first.zero_point) == (out["in_scale"], out["in_zero_point"])
    assert (found.scale, found.zero_point) == (out["scale"], out["zero_point"])
    assert found.weight().equal(out["weight"])
    assert torch.equal(found.bias(), out["bias"])
    assert found.limits is None  # torch looks for 7 bits, and takes 8
    assert torch.equal(found(first(x)).dequantize(), out["out"])


def shaped(name: str, x: torch.Tensor) -> nn.Module:
    """The float module that was recorded."""
    if name == "GroupNorm":
        return nn.GroupNorm(2, x.shape[1])
    if name == "ELU":
        return nn.ELU(1.2)
    return getattr(nn, name)(*([x.shape[1]] if "Norm" in name else []))


NORMS = ("BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d")


@pytest.mark.parametrize("case", of(*(f"{n}.from_float" for n in (*NORMS, "ELU", "Hardswish"))))
def test_norms_and_activations(case):
    x, out = case.inputs["input"], case.out
    module = shaped(out["type"], x).eval()
    observe(module, x, observers.MinMaxObserver())
    first = quantize(x, observers.MinMaxObserver())
    found = getattr(nnq, out["type"]).from_float(module)
    assert (first.scale, first.zero_point) == (out["in_scale"], out["in_zero_point"])
    assert (found.scale, found.zero_point) == (out["scale"], out["zero_point"])
    y = found(first(x)).dequantize()
    # At most one integer apart, near ties; the recording is of the dequantized output.
    steps = ((y - out["out"]) / out["scale"]).round()
    assert steps.abs().max() <= 1
    assert (steps != 0).sum() <= 1


@pytest.mark.parametrize("case", of("QFunctional.from_float"))
def test_qfunctional(case):
    x, y, out = case.inputs["x"], case.inputs["y"], case.out
    functional = nnq.FloatFunctional()
    functional.activation_post_process = observers.MinMaxObserver()
    functional.add(x, y)
    found = nnq.QFunctional.from_float(functional)
    assert (found.scale, found.zero_point) == (out["scale"], out["zero_point"])
    assert torch.equal(functional.add(x, y), out["out"])
    q = [quantize(part, observers.MinMaxObserver())(part) for part in (x, y)]
    exact = q[0].dequantize() + q[1].dequantize()
    assert (
        found.add(*q).dequantize() - exact
    ).abs().max() < found.scale  # and the ends of its range


def embedding(case, name: str) -> nn.Module:
    weight = case.inputs["weight"]
    mode = {} if name == "Embedding" else {"mode": "sum"}
    layer = getattr(nn, name)(*weight.shape, _weight=weight, **mode)
    four = observers.default_float_qparams_observer_4bit
    eight = observers.default_float_qparams_observer
    layer.qconfig = SimpleNamespace(weight=four if "quint4x2" in case.id else eight)
    return layer


@pytest.mark.parametrize("case", of("Embedding.from_float", "EmbeddingBag.from_float"))
def test_embeddings(case):
    name = case.api.removesuffix(".from_float")
    found = getattr(nnq, name).from_float(embedding(case, name))
    assert found.weight().equal(case.out["weight"])
    assert found.bits == (4 if "quint4x2" in case.id else 8)
    arguments = [case.inputs[key] for key in ("indices", "offsets") if key in case.inputs]
    y = found(*arguments)
    if case.id in GARBAGE:
        # Of the right width, and no further from the weight than half a step of 4 bits.
        expected, step = (
            case.inputs["weight"][arguments[0]],
            case.out["weight"].q_per_channel_scales(),
        )
        assert case.out["out"].shape[1] == 2
        assert (y - expected).abs().max() <= 0.51 * step.max()
    else:
        torch.testing.assert_close(y, case.out["out"], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", of("EmbeddingBag"))
def test_bags(case):
    inputs = dict(case.inputs)
    weight, dtype = inputs.pop("weight"), inputs.pop("dtype")
    layer = nn.EmbeddingBag(*weight.shape, _weight=weight, mode=inputs.pop("mode"))
    layer.include_last_offset = inputs.pop("include_last_offset")
    four = dtype == "quint4x2"
    observer = observers.default_float_qparams_observer
    observer = observers.default_float_qparams_observer_4bit if four else observer
    layer.qconfig = SimpleNamespace(weight=observer)
    found = nnq.EmbeddingBag.from_float(layer)
    y = found(**inputs)
    if layer.mode != "sum":  # torch sums, whatever the mode is: the float layer is the judge
        expected = layer(inputs["indices"].long(), inputs["offsets"])
        step = found.weight().q_per_channel_scales().max()
        assert (y - expected).abs().max() <= 0.6 * step
        found.mode = "sum"
        y = found(**inputs)
    torch.testing.assert_close(y, case.out, rtol=5e-5, atol=5e-6)


def test_an_embedding_without_an_observer_has_8_bits():
    layer = nn.Embedding(5, 4)
    layer.qconfig = None
    found = nnq.Embedding.from_float(layer)
    assert found.bits == 8
    assert (found.weight().dequantize() - layer.weight).abs().max() < 0.02


def test_embeddings_of_2_bits_have_four_levels():
    layer = nn.EmbeddingBag(5, 8, mode="mean")
    layer.qconfig = SimpleNamespace(weight=observers.default_float_qparams_observer_2bit)
    found = nnq.EmbeddingBag.from_float(layer)
    assert found.bits == 2
    assert found.weight().values.unique().tolist() == [0, 1, 2, 3]
    assert found.state_dict()["weight"].shape == (5, 8 // 4 + 4)


def linear() -> nn.Linear:
    layer = nn.Linear(4, 3)
    layer.qconfig = qconfig()
    return layer


def test_what_from_float_refuses():
    with pytest.raises(ValueError, match="has no qconfig"):
        nnq.Linear.from_float(nn.Linear(4, 3))
    with pytest.raises(TypeError, match=r"takes Linear, .* not Conv2d"):
        nnq.Linear.from_float(nn.Conv2d(4, 3, 1))
    with pytest.raises(ValueError, match="no activation_post_process"):
        nnq.Linear.from_float(linear())
    with pytest.raises(TypeError, match=r"a sequence of Linear, .* and ReLU, .* not Linear"):
        nnq.LinearReLU.from_float(linear())
    with pytest.raises(TypeError, match="takes Conv2d, not Sequential"):
        nnq.Conv2d.from_float(nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU()))
    with pytest.raises(ValueError, match="no qconfig"):
        nnq.Conv2d.from_float(nn.Conv2d(4, 3, 1))
    with pytest.raises(TypeError, match="takes a FloatFunctional, not Identity"):
        nnq.QFunctional.from_float(nn.Identity())
    with pytest.raises(ValueError, match="no activation_post_process"):
        nnq.QFunctional.from_float(nnq.FloatFunctional())
    with pytest.raises(TypeError, match="takes Embedding, not EmbeddingBag"):
        nnq.Embedding.from_float(nn.EmbeddingBag(4, 3))
    with pytest.raises(ValueError, match="no qconfig"):
        nnq.Embedding.from_float(nn.Embedding(4, 3))
    layer = nn.Embedding(4, 3)
    layer.qconfig = qconfig()
    with pytest.raises(ValueError, match="per_channel_affine_float_qparams, not per_"):
        nnq.Embedding.from_float(layer)
    layer = linear()
    layer.activation_post_process = observers.MinMaxObserver()
    layer.qconfig = SimpleNamespace(weight=observers.MinMaxObserver)
    with pytest.raises(ValueError, match="quantized to int8, not torch"):
        nnq.Linear.from_float(layer)
    same = nn.Conv2d(4, 3, 3, padding="same")
    same.qconfig = qconfig()
    with pytest.raises(ValueError, match="padding in numbers"):
        nnq.Conv2d.from_float(same)


def test_a_subclass_of_linear_is_not_taken_for_one():
    class Special(nn.Linear):
        pass

    layer = Special(4, 3)
    layer.qconfig = qconfig()
    with pytest.raises(TypeError, match="not Special"):
        nnq.Linear.from_float(layer)


def test_a_relu_in_the_layer_is_a_relu_after_it():
    torch.manual_seed(0)
    for kind, layer, x in (
        (nnq.LinearReLU, nn.Linear(4, 6), torch.randn(8, 4)),
        (nnq.ConvReLU1d, nn.Conv1d(4, 6, 3), torch.randn(2, 4, 9)),
        (nnq.ConvReLU2d, nn.Conv2d(4, 6, 3), torch.randn(2, 4, 9, 9)),
        (nnq.ConvReLU3d, nn.Conv3d(4, 6, 3), torch.randn(2, 4, 5, 5, 5)),
    ):
        pair = nn.Sequential(layer, nn.ReLU())
        pair.qconfig = qconfig()
        q = quantize(x, activation("x86"))(x)
        observe(pair, x, activation("x86"))
        fused = kind.from_float(pair)
        plain = kind.__mro__[1].from_float(_with(layer, pair))
        y = plain(q)
        assert (y.values < y.q_zero_point()).any() or y.q_zero_point() == 0
        assert fused(q).equal(y.with_values(y.values.clamp_min(y.q_zero_point())))
        assert (fused(q).dequantize() - pair(x)).abs().max() < 0.1


def _with(layer: nn.Module, pair: nn.Module) -> nn.Module:
    layer.qconfig, layer.activation_post_process = pair.qconfig, pair.activation_post_process
    return layer


def test_the_sum_is_quantized_once():
    torch.manual_seed(0)
    layer, x, other = (
        nn.Conv2d(4, 6, 3, padding=1),
        torch.randn(2, 4, 7, 7),
        torch.randn(2, 6, 7, 7),
    )
    layer.qconfig = qconfig("qnnpack")
    for kind, relu in ((nnq.ConvAdd2d, False), (nnq.ConvAddReLU2d, True)):
        real = layer(x) + other
        observe(nn.Identity(), real, seen := activation("qnnpack"))
        layer.activation_post_process = seen
        module = kind.from_float(layer)
        assert type(module) is kind
        q, r = (quantize(part, activation("qnnpack"))(part) for part in (x, other))
        exact = nn.functional.conv2d(
            q.dequantize(), module.weight().dequantize(), module.bias(), padding=1
        )
        exact = exact + r.dequantize()
        exact = exact.relu() if relu else exact
        # Half a step from the exact sum, where it does not saturate.
        error = (module(q, r).dequantize() - exact).abs()
        assert (error <= 0.5001 * module.scale).float().mean() > 0.99
        del layer.activation_post_process


class Fixed:
    """An observer that knows its scale."""

    def __init__(self, dtype: str, scheme: str, scale: float, quant_min: int, quant_max: int):
        self.dtype, self.qscheme, self.ch_axis = dtype, scheme, 0
        self.quant_min, self.quant_max = quant_min, quant_max
        self.scale = scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.shape = x.shape[:1] if self.qscheme.startswith("per_channel") else (1,)
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full(self.shape, self.scale), torch.zeros(self.shape)


@pytest.mark.parametrize("scheme", ["per_tensor_symmetric", "per_tensor_affine"])
def test_weights_stay_within_the_limits_of_their_observer(scheme):
    layer = nn.Linear(1, 5)
    layer.weight = nn.Parameter(torch.tensor([[-9.0], [-1.0], [0.0], [1.0], [9.0]]))
    layer.qconfig = SimpleNamespace(weight=lambda: Fixed("qint8", scheme, 0.5, -8, 7))
    layer.activation_post_process = observers.FixedQParamsObserver(0.1, 3)
    assert nnq.Linear.from_float(layer).weight().values.flatten().tolist() == [-8, -2, 0, 2, 7]


def test_rows_stay_within_the_limits_of_their_observer():
    layer = nn.Embedding(1, 4, _weight=torch.tensor([[-1.0, 1.0, 7.0, 9.0]]))
    scheme = "per_channel_affine_float_qparams"
    layer.qconfig = SimpleNamespace(weight=lambda: Fixed("quint4x2", scheme, 0.5, 0, 15))
    assert nnq.Embedding.from_float(layer).weight().values.tolist() == [[0, 2, 14, 15]]
    layer.qconfig = SimpleNamespace(weight=lambda: Fixed("quint8", scheme, 0.5, 0, 99))
    with pytest.raises(ValueError, match="from 0 to 99"):
        nnq.Embedding.from_float(layer)


def test_what_has_seen_the_weight_keeps_its_scale():
    for layer, kind, make in (
        (nn.Embedding(5, 4), nnq.Embedding, observers.default_float_qparams_observer),
        (nn.Linear(4, 5), nnq.Linear, observers.default_per_channel_weight_observer),
    ):
        observer = make()
        observer(3 * layer.weight)
        before = observer.calculate_qparams()
        layer.qconfig = SimpleNamespace(weight=lambda observer=observer: observer)
        layer.activation_post_process = observers.FixedQParamsObserver(0.1, 3)
        found = kind.from_float(layer).weight()
        assert torch.equal(found.q_per_channel_scales().float(), before[0])


def test_the_dtype_of_the_output_is_that_of_its_observer():
    for layer, kind, x in (
        (nn.Linear(4, 6), nnq.Linear, torch.randn(5, 4)),
        (nn.Conv2d(4, 6, 3), nnq.Conv2d, torch.randn(2, 4, 5, 5)),
    ):
        layer.qconfig = qconfig()
        y = observe(layer, x, observers.MinMaxObserver(dtype="qint8"))
        found = kind.from_float(layer)
        z = found(nnq.Quantize(0.03, 120, "quint8")(x))
        assert z.dtype == torch.int8
        assert (z.dequantize() - y).abs().max() < 0.1
        # And the next layer takes it.
        following = nnq.Linear(z.shape[-1], 2)
        assert following(z).dtype == torch.uint8


def test_signed_inputs_give_the_integers_of_unsigned_ones():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 6, 3), torch.randn(2, 4, 5, 5)
    layer.qconfig = qconfig()
    observe(layer, x, activation("qnnpack"))
    found = nnq.Conv2d.from_float(layer)
    unsigned = nnq.Quantize(0.03, 120, "quint8")(x)
    signed = nnq.Quantize(0.03, 120 - 128, "qint8")(x)
    assert found(signed).equal(found(unsigned))


def test_the_layout_of_a_convolution_is_kept():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 9)
    for float_type, kind in ((nn.Conv2d, nnq.Conv2d), (nn.ConvTranspose2d, nnq.ConvTranspose2d)):
        layer = float_type(4, 6, (2, 3), stride=2, padding=1, dilation=2, groups=2)
        layer.qconfig = qconfig("qnnpack")
        y = observe(layer, x, activation("qnnpack"))
        found = kind.from_float(layer)
        z = found(nnq.Quantize(0.03, 120, "quint8")(x)).dequantize()
        assert z.shape == y.shape
        assert (z - y).abs().max() < 0.15


def test_bags_leave_their_padding_out():
    layer = nn.EmbeddingBag(5, 4, mode="mean", padding_idx=2)
    layer.qconfig = None
    indices = torch.tensor([[2, 1], [3, 2], [0, 4]])
    found = nnq.EmbeddingBag.from_float(layer)(indices)
    assert (found - layer(indices)).abs().max() < 0.03
    assert layer.weight[1].sub(found[0]).abs().max() < 0.03


def test_transposed_convolutions_have_scales_of_their_outputs():
    torch.manual_seed(0)
    layer, x = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 5, 5)
    layer.qconfig = qconfig()
    y = observe(layer, x, activation("qnnpack"))
    found = nnq.ConvTranspose2d.from_float(layer)
    assert found.weight().q_per_channel_axis() == 1
    assert found.weight().q_per_channel_scales().shape == (6,)
    q = quantize(x, activation("qnnpack"))(x)
    assert (found(q).dequantize() - y).abs().max() < 3 * found.scale


def test_prelu_has_a_weight_in_uint8():
    layer, x = nn.PReLU(3), torch.randn(4, 3)
    layer.weight = nn.Parameter(torch.tensor([0.1, 0.5, 1.0]))
    layer.qconfig = SimpleNamespace(weight=observers.MinMaxObserver)
    y = observe(layer, x, activation("qnnpack"))
    found = nnq.PReLU.from_float(layer)
    assert (found.weight.dequantize() - layer.weight).abs().max() < 1 / 255
    q = quantize(x, activation("qnnpack"))(x)
    assert (found(q).dequantize() - y).abs().max() < 2 * found.scale
    layer.qconfig = qconfig("qnnpack")
    with pytest.raises(ValueError, match="quantized to uint8"):
        nnq.PReLU.from_float(layer)


@pytest.mark.parametrize("kind", ["LeakyReLU", "Sigmoid", "Softmax", "ELU", "Hardswish"])
def test_other_activations_are_near_the_float_ones(kind):
    torch.manual_seed(0)
    layer, x = getattr(nn, kind)(), torch.randn(6, 5)
    if kind == "Softmax":
        layer.dim = 1
    y = observe(layer, x, activation("qnnpack"))
    q = quantize(x, activation("qnnpack"))(x)
    found = getattr(nnq, kind).from_float(layer)
    assert (found(q).dequantize() - y).abs().max() < q.q_scale() + found.scale
    again = getattr(nnq, kind).from_reference(layer, found.scale, found.zero_point)
    assert again(q).equal(found(q))


def test_a_reference_layer_keeps_its_weight():
    torch.manual_seed(0)
    reference, conv = nn.Linear(4, 3), nn.Conv2d(4, 3, 2)
    for ref, kind in ((reference, nnq.Linear), (conv, nnq.Conv2d)):
        ref.qconfig = qconfig()
        ref.activation_post_process = observers.FixedQParamsObserver(0.125, 3)
        expected = kind.from_float(ref)
        ref.get_quantized_weight = expected.weight
        found = kind.from_reference(ref, 0.125, 3)
        assert found.weight().equal(expected.weight())
        x = nnq.Quantize(0.05, 100, "quint8")(
            torch.randn(2, 4, 3, 3)[..., 0, 0] if kind is nnq.Linear else torch.randn(2, 4, 3, 3)
        )
        assert found(x).equal(expected(x))


def test_from_float_copies_the_bias():
    layer = linear()
    observe(layer, torch.randn(5, 4), observers.MinMaxObserver())
    found = nnq.Linear.from_float(layer)
    before = found.bias().clone()
    with torch.no_grad():
        layer.bias.add_(1)
    assert torch.equal(found.bias(), before)


def test_the_recorded_garbage_is_garbage():
    ids = {case.id for case in cases("Embedding.from_float")}
    assert set(GARBAGE) <= ids
    assert array("Embedding.from_float.quint4x2.rand|out.out").shape[1] == 2


def train(layer: nn.Module, x: torch.Tensor, bits: int) -> nn.Module:
    """The layer in eval mode, after some batches; its output is quantized to so many bits."""
    quantizer = {"name": "int_k", "bits": bits, "range": "moving_average"}
    layer.activation_post_process = QConfig(activation=quantizer, weight="int_k").activation()
    layer.train()
    for _ in range(3):
        layer.activation_post_process(layer(x))
    return layer.eval()


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("weight", [{"name": "int_k", "bits": 4}, "sign", "default"])
@pytest.mark.parametrize("kind", ["Linear", "ConvReLU2d", "ConvBn2d", "ConvBnReLU2d"])
def test_trained_layers_return_what_they_did(kind, weight, bits):
    torch.manual_seed(0)
    config = get_default_qat_qconfig("onednn")
    if weight != "default":
        config = QConfig(activation="int_k", weight=weight)
    if kind == "Linear":
        layer, x = qat.Linear(6, 5, qconfig=config), torch.randn(40, 6)
    else:
        layer, x = getattr(qat, kind)(4, 6, 3, qconfig=config), torch.randn(6, 4, 8, 8)
    train(layer, x, bits)
    q = nnq.Quantize(2.0**-5, 128, "quint8")(x)
    expected = layer.activation_post_process(layer(q.dequantize()))
    converted = getattr(nnq, kind.replace("Bn", "")).from_float(layer)
    steps = ((converted(q).dequantize() - expected) / converted.scale).round()
    layer.weight_fake_quant.disable_observer()
    weight = layer.folded()[0] if hasattr(layer, "folded") else layer.weight
    torch.testing.assert_close(
        converted.weight().dequantize(), layer.weight_fake_quant(weight.detach())
    )
    # Sums in float32 may fall on the other side of a tie.
    assert steps.abs().max() <= 1
    assert (steps != 0).float().mean() < 0.002
    assert len(converted(q).values.unique()) <= 2**bits
    assert (converted.limits is None) == (bits == 8)
    again = copy.deepcopy(converted)
    again.limits = None
    again.load_state_dict(converted.state_dict())
    assert again(q).equal(converted(q))


def test_layers_with_and_without_relu_are_not_mistaken():
    config = get_default_qat_qconfig("onednn")
    with pytest.raises(TypeError, match="takes Conv2d, not ConvReLU2d"):
        nnq.Conv2d.from_float(qat.ConvReLU2d(4, 6, 3, qconfig=config))
    with pytest.raises(TypeError, match=r"Conv2d and ReLU, .* not ConvBn2d"):
        nnq.ConvReLU2d.from_float(qat.ConvBn2d(4, 6, 3, qconfig=config))


@pytest.mark.parametrize("kind", ["ELU", "Hardswish", "LeakyReLU", "Sigmoid", "Softmax"])
def test_activations_have_the_limits_that_they_were_trained_with(kind):
    torch.manual_seed(0)
    layer, x = getattr(nn, kind)(), torch.randn(7, 9)
    train(layer, x, 4)
    q = nnq.Quantize(2.0**-5, 128, "quint8")(4 * x)
    expected = layer.activation_post_process(layer(q.dequantize()))
    found = getattr(nnq, kind).from_float(layer)(q)
    assert found.values.max() <= 15
    assert (found.dequantize() - expected).abs().max() <= found.q_scale() * 1.01


def test_sums_and_norms_have_the_limits_that_they_were_trained_with():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 6)
    q = nnq.Quantize(2.0**-5, 128, "quint8")(3 * x)
    for layer, kind in (
        (nn.BatchNorm2d(4), nnq.BatchNorm2d),
        (nn.GroupNorm(2, 4), nnq.GroupNorm),
        (nn.Identity(), nnq.Quantize),
    ):
        found = kind.from_float(train(layer, x, 2))
        y = found(q.dequantize() if kind is nnq.Quantize else q)
        assert y.values.max() == 3
        assert found.limits == (0, 3)
    functional = nnq.FloatFunctional()
    functional.activation_post_process = train(nn.Identity(), x, 4).activation_post_process
    found = nnq.QFunctional.from_float(functional)
    assert found.add(q, q).values.max() == found.cat([q, q]).values.max() == 15
