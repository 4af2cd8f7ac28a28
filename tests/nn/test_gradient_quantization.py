"""Gradients as a plain layer makes them of the quantized gradient to its output."""

import copy

import pytest
import torch
from torch import nn

import lowbit
import lowbit.nn as qnn
from lowbit.nn import quantize_gradients

LEVELS = {"name": "int_k", "bits": 3}  # says the same each time
BITS_2 = {"name": "dorefa_gradient", "bits": 2}
SIGN = {"input_quantization": "sign", "weight_quantization": "sign"}
LAYERS = [
    (lambda **k: qnn.QLinear(6, 5, **k), (3, 6)),
    (lambda **k: qnn.QLinear(6, 5, **k), (6,)),
    (lambda **k: qnn.QLinear(6, 5, **k), (2, 3, 6)),
    (lambda **k: qnn.QConv1d(4, 5, 3, padding=1, **k), (2, 4, 7)),
    (lambda **k: qnn.QConv2d(4, 6, 3, padding=1, groups=2, **k), (2, 4, 5, 5)),
    (lambda **k: qnn.QConv2d(4, 6, 3, **k), (4, 5, 5)),
    (lambda **k: qnn.QConv3d(2, 3, 2, **k), (2, 2, 4, 4, 4)),
    (lambda **k: qnn.QConvTranspose2d(4, 6, 2, stride=2, **k), (2, 4, 5, 5)),
]
layers = pytest.mark.parametrize(("make", "shape"), LAYERS)


def gradients(layer, x, g):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    layer(x).backward(g)
    return [x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "quantization",
    [
        SIGN,
        {},
        {"input_quantization": "dorefa_input", "weight_quantization": "lsq"},
        {"input_quantization": "sign", "weight_quantization": {"name": "xnor", "act_scale": True}},
    ],
    ids=["sign", "float", "k bits", "scaled by inputs"],
)
@layers
def test_gradients_are_made_of_the_quantized_one(make, shape, quantization, fused):
    scaled = "xnor" in str(quantization)
    if scaled and isinstance(make(), qnn.QConvTranspose2d):
        pytest.skip("transposed convolutions have no scale by their inputs")
    layer = make(gradient_quantization=LEVELS, gradient_cancellation_threshold=1.0, **quantization)
    layer.fused = fused
    plain = copy.deepcopy(layer)
    plain.set_gradient_quantization(None)
    x = torch.randn(shape)
    y = layer(x)
    torch.testing.assert_close(y, plain(x), rtol=0, atol=0)
    g = torch.randn_like(y)
    expected = gradients(plain, x, layer.gradient_quantization(g))
    for mine, theirs in zip(gradients(layer, x, g), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert not torch.equal(gradients(layer, x, g)[-1], gradients(plain, x, g)[-1])  # the bias


@layers
def test_a_sample_is_scaled_by_its_own_range(make, shape):
    layer = make(gradient_quantization=BITS_2)
    x = torch.randn(shape)
    y = layer(x).detach()
    seen = []

    def look(module, arguments, result):
        seen.append((arguments[0], result))

    layer.gradient_quantization.register_forward_hook(look)
    layer(x.requires_grad_()).backward(torch.randn_like(y))
    ((given, made),) = seen
    channels = {qnn.QLinear: 1, qnn.QConv1d: 2, qnn.QConv3d: 4}.get(type(layer), 3)
    own = tuple(range(given.ndim - channels, given.ndim))
    largest = given.abs().amax(own, keepdim=True)
    torch.testing.assert_close(made.abs().amax(own, keepdim=True), largest)
    steps = made / largest  # of -1, -1/3, 1/3 and 1
    torch.testing.assert_close((3 * steps).round() / 3, steps)


def test_a_models_layers_get_one_each_and_its_checkpoint_and_outputs_stay():
    model = lowbit.models.DoReFaAlexNet(
        image_size=80, channels=(8,) * 5, features=16, input_quantization="dorefa_input",
        weight_quantization="dorefa_weight",
    )  # fmt: skip
    x = torch.randn(2, 3, 80, 80)
    before, keys = model.eval()(x), list(model.state_dict())
    assert quantize_gradients(model, "dorefa_gradient") == 6
    held = [m.gradient_quantization for m in model.modules() if isinstance(m, qnn.QuantizedLayer)]
    assert len({id(q) for q in held}) == 6
    assert list(model.state_dict()) == keys
    assert torch.equal(model(x), before)
    quantize_gradients(model, None)
    assert all(m.gradient_quantization is None for m in model.modules()
               if isinstance(m, qnn.QuantizedLayer))  # fmt: skip


def test_a_model_packs_as_without():
    model = lowbit.models.MLP(1, 10, 8, (128, 128), **SIGN).eval()
    x = torch.randn(4, 1, 8, 8)
    plain = lowbit.convert(model, example=x)
    quantize_gradients(model, "dorefa_gradient")
    packed = lowbit.convert(model, example=x)
    assert str(packed[1]) == str(plain[1])
    assert torch.equal(packed[0](x), plain[0](x))


def test_embeddings_and_torchs_own_layers_are_left_alone():
    model = nn.Sequential(qnn.QEmbedding(5, 4, weight_quantization="sign"), nn.Linear(4, 2))
    assert quantize_gradients(model, "dorefa_gradient") == 0
    with pytest.raises(ValueError, match="QEmbedding takes no gradient_quantization"):
        model[0].set_gradient_quantization("dorefa_gradient")


def test_a_quantizer_that_keeps_something_is_refused():
    with pytest.raises(ValueError, match=r"keeps .*step.*dorefa_gradient"):
        qnn.QLinear(2, 2, gradient_quantization="lsq")
    with pytest.raises(ValueError, match="dorefa_gradient"):  # the nearest name
        qnn.QLinear(2, 2, gradient_quantization="dorefa_gradiant")


@pytest.mark.filterwarnings("ignore")
def test_compiled_gradients_are_the_same():
    layer = qnn.QLinear(6, 5, gradient_quantization=LEVELS, **SIGN)
    x, g = torch.randn(3, 6), torch.randn(3, 5)
    expected = gradients(layer, x, g)
    for mine, theirs in zip(gradients(torch.compile(layer), x, g), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
