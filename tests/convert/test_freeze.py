"""Layers that stay keep their values, and no latent weight."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lowbit
from lowbit import quantizers
from lowbit.convert._freeze import frozen_twin
from lowbit.nn import (
    QConv1d,
    QConv2d,
    QConv3d,
    QConvTranspose2d,
    QEmbedding,
    QEmbeddingBag,
    QLinear,
)
from tests.convert._networks import SIGN, integers

WEIGHTS = [
    name
    for name in quantizers.names()
    if quantizers.get(name).deterministic and not quantizers.get(name).act_scale
]
LAYERS = {
    "linear": (lambda **q: QLinear(12, 7, **q), (5, 12)),
    "conv1d": (lambda **q: QConv1d(6, 7, 3, padding=1, **q), (2, 6, 9)),
    "conv2d": (lambda **q: QConv2d(6, 8, 3, stride=2, padding=1, groups=2, **q), (2, 6, 9, 7)),
    "reflect": (lambda **q: QConv2d(6, 8, 3, padding=1, padding_mode="reflect", **q), (2, 6, 9, 7)),
    "same": (lambda **q: QConv2d(6, 8, 2, padding="same", bias=False, **q), (2, 6, 9, 7)),
    "conv3d": (lambda **q: QConv3d(4, 5, 3, **q), (2, 4, 5, 5, 5)),
    "transpose": (lambda **q: QConvTranspose2d(6, 5, 3, stride=2, **q), (2, 6, 5, 5)),
}


def latent(report) -> list[str]:
    return [row.name for row in report if not row.packed and not row.frozen]


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("inputs", [None, "sign", "dorefa_input"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_values_stay_and_the_weight_is_quantized_once(make, shape, inputs, weight):
    layer = make(input_quantization=inputs, weight_quantization=weight)
    x = integers(shape)
    layer.train()(x)
    layer.eval().fused = False  # the specification
    with torch.no_grad():
        expected, w = layer(x), layer._quantized_weight()
    frozen = frozen_twin(layer)
    assert frozen is not None
    assert torch.equal(frozen.weight, w)
    assert getattr(frozen, "weight_quantization", None) is None
    with torch.no_grad():
        assert torch.equal(frozen(x), expected)
    plain = inputs is None and not isinstance(layer, QConvTranspose2d)
    assert type(frozen).__module__.startswith("torch.nn") == plain


def test_the_fast_path_gives_the_trained_values_to_rounding():
    model = nn.Sequential(
        QConv2d(6, 8, 3, padding=1, **{**SIGN, "weight_quantization": "magnitude_aware_sign"}),
        QConv2d(8, 8, 3, padding=1, weight_quantization="sign"),
    ).eval()
    converted, report = lowbit.convert(model)
    assert [row.frozen for row in report] == [True, True]
    assert sum("frozen; " in line for line in str(report).splitlines()) == 2
    x = integers((2, 6, 9, 7))
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-5)
    assert model[0].weight_quantization is not None  # the trained model is left alone


def test_padding_with_ones_needs_the_layer_of_ours():
    layer = QConv2d(4, 4, 3, padding=1, weight_quantization="sign", pad_value=1).eval()
    with torch.no_grad():
        expected = layer(integers((1, 4, 5, 5)))
        frozen = frozen_twin(layer)
        assert torch.equal(frozen(integers((1, 4, 5, 5))), expected)
    assert type(frozen) is QConv2d


@pytest.mark.parametrize("make", [QEmbedding, QEmbeddingBag])
def test_tables_are_frozen_unless_looking_up_changes_them(make):
    layer = make(9, 5, weight_quantization="magnitude_aware_sign").eval()
    indices = torch.arange(9).view(3, 3)
    with torch.no_grad():
        expected = layer(indices)
        assert torch.equal(lowbit.convert(layer).model(indices), expected)
    assert frozen_twin(make(9, 5, max_norm=1.0, weight_quantization="sign")) is None


class Doubled(QLinear):
    pass


class Counted(quantizers.Quantizer):
    calls = 0

    def value(self, x):
        self.calls += 1
        return x.sign() * self.calls


def test_what_may_change_or_does_more_keeps_its_latent_weight():
    hooked = QLinear(4, 4, weight_quantization="sign")
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    parametrized = QLinear(4, 4, weight_quantization="sign")
    parametrize.register_parametrization(parametrized, "weight", nn.Identity())
    drawn, counted = (QLinear(4, 4, weight_quantization="sign") for _ in range(2))
    drawn.weight_quantization.deterministic = False
    counted.weight_quantization = Counted()
    model = nn.Sequential(
        hooked,
        parametrized,
        Doubled(4, 4, weight_quantization="sign"),
        QLinear(4, 4, weight_quantization={"name": "xnor", "act_scale": True}),
        QLinear(4, 4, input_quantization="sign"),
        drawn,
        counted,
    )
    report = lowbit.convert(model.eval()).report
    assert latent(report) == [str(i) for i in range(7)]
