"""QConfigs: what they take, and lowbit's quantizers in them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lowbit import observers, quantizers
from lowbit.functional.int8 import dequantize, quantize
from lowbit.observers import MinMaxObserver
from lowbit.qconfig import (
    QConfig,
    activation_is_memoryless,
    default_dynamic_qat_qconfig,
    default_qat_qconfig,
    get_default_qat_qconfig,
    get_default_qconfig,
    qconfig_equals,
)

AVERAGED = {"name": "int_k", "bits": 4, "signed": False, "symmetric": False}
AVERAGED |= {"range": "moving_average"}


def test_equal_parts_make_equal_qconfigs():
    one, two = (QConfig(MinMaxObserver, {"name": "int_k", "bits": 4}) for _ in range(2))
    assert qconfig_equals(one, two)
    assert qconfig_equals(copy.deepcopy(one), pickle.loads(pickle.dumps(two)))
    assert qconfig_equals(get_default_qconfig("x86"), get_default_qconfig("fbgemm"))
    assert not qconfig_equals(get_default_qconfig("x86"), get_default_qconfig("onednn"))
    assert not qconfig_equals(one, None)
    assert qconfig_equals(None, None)


def test_every_call_makes_another():
    config = QConfig("lsq", quantizers.get({"name": "lsq", "bits": 3}))
    assert config.weight().quantizer is not config.weight().quantizer
    assert config.weight().bits == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QConfig(MinMaxObserver(), MinMaxObserver), "not an instance"),
        (lambda: QConfig(MinMaxObserver, "int_q"), "did you mean 'int_k'"),
        (lambda: QConfig(MinMaxObserver, {"name": "int_k", "bits": 99}), "bits=99"),
        (lambda: QConfig(MinMaxObserver, 8), "got int: 8"),
        (lambda: get_default_qconfig("tpu"), "no backend 'tpu'; known: x86"),
        (lambda: get_default_qconfig("x86", 1), "no version 1"),
        (lambda: get_default_qat_qconfig("x86", 2), "no version 2; known: 0, 1"),
    ],
)
def test_what_cannot_be_is_refused_with_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_memoryless_activations_are_known():
    assert activation_is_memoryless(default_dynamic_qat_qconfig)
    assert not activation_is_memoryless(default_qat_qconfig)
    assert not activation_is_memoryless(QConfig(nn.Identity, nn.Identity))


UNIFORM = [
    *({"name": "int_k", "bits": bits, "per_channel": c} for bits in (2, 4, 8) for c in (0, 1)),
    {"name": "lsq", "bits": 3},
    {"name": "dorefa_weight", "bits": 4},
    "sign",
    "magnitude_aware_sign",
    "twn",
    "absmax_int8",
]


@pytest.mark.parametrize("spec", UNIFORM, ids=str)
def test_weights_of_a_uniform_quantizer_fit_int8(spec):
    if isinstance(spec, dict) and "per_channel" in spec:
        spec = {**spec, "per_channel": bool(spec["per_channel"])}
    fake = QConfig(MinMaxObserver, spec).weight()
    fake.bind(6, 0)
    weight = torch.randn(6, 40)
    y = fake(weight)
    scale, zero_point = fake.calculate_qparams()
    assert (zero_point == 0).all()
    axis = 0 if fake.is_per_channel else None
    scale, zero_point = (scale, zero_point) if axis == 0 else (scale[0], zero_point[0])
    codes = quantize(y.detach(), scale, zero_point, fake.dtype, axis)
    torch.testing.assert_close(dequantize(codes, scale, zero_point, axis), y, rtol=1e-5, atol=0)
    assert codes.unique().numel() > 1


@pytest.mark.parametrize("spec", ["identity", "adabin_weight"])
def test_weights_on_no_grid_are_told(spec):
    fake = QConfig(MinMaxObserver, spec).weight()
    fake.bind(6, 0)
    with pytest.raises(ValueError, match="follows from the weight"):
        fake.calculate_qparams()
    fake(torch.randn(6, 40))
    with pytest.raises(ValueError, match="int8 cannot hold them"):
        fake.calculate_qparams()


def test_the_ends_of_int8_are_its_own():
    fake = QConfig(MinMaxObserver, "identity").weight()
    fake.bind(1, 0)
    fake(torch.tensor([[-128.0, 1.0, 127.0]]))
    assert fake.calculate_qparams()[0].tolist() == [1]
    fake(torch.tensor([[-128.0, 1.0, 128.0]]))
    with pytest.raises(ValueError, match="from -128 to 127"):
        fake.calculate_qparams()


@pytest.mark.parametrize(
    "spec",
    [AVERAGED, {**AVERAGED, "bits": 8}, {"name": "lsq", "bits": 2}, "dorefa_input", "pact"],
    ids=str,
)
def test_activations_on_one_grid_fit_uint8(spec):
    fake = QConfig(spec, nn.Identity).activation()
    for _ in range(3):
        fake(torch.randn(500))
    fake.eval()
    scale, zero_point = fake.calculate_qparams()
    x = 3 * torch.randn(2000)
    codes = quantize(x, scale.item(), zero_point.item(), "uint8").clamp(0, fake.quant_max)
    y = dequantize(codes, scale.item(), zero_point.item())
    torch.testing.assert_close(y, fake(x).detach(), rtol=1e-5, atol=1e-6)
    assert fake.quant_max == 2**fake.bits - 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("int_k", "follows the range of each input"),
        ("sign", "does not round to the nearest"),
        ("identity", "uint8 cannot hold them"),
    ],
)
def test_other_activations_are_told(spec, words):
    fake = QConfig(spec, nn.Identity).activation()
    with pytest.raises(ValueError, match=words):
        fake.calculate_qparams()


def test_a_named_quantizer_is_switched_like_any_fake_quantizer():
    fake, x = QConfig(AVERAGED, nn.Identity).activation(), torch.randn(100)
    fake(x)
    fake.apply(observers.disable_observer)
    kept = copy.deepcopy(fake.state_dict())
    fake.train()
    fake(10 * x)
    assert all(torch.equal(kept[key], value) for key, value in fake.state_dict().items())
    fake.apply(observers.enable_observer)
    fake(10 * x)
    assert not all(torch.equal(kept[key], value) for key, value in fake.state_dict().items())
    fake.apply(observers.disable_fake_quant)
    assert fake(x) is x


def test_its_gradient_is_the_quantizers():
    spec = {"name": "int_k", "bits": 3}
    fake, quantizer = QConfig(MinMaxObserver, spec).weight(), quantizers.get(spec)
    a, b = (torch.linspace(-1, 2, 50).requires_grad_() for _ in range(2))
    fake(a).square().sum().backward()
    quantizer(b).square().sum().backward()
    assert torch.equal(a.grad, b.grad)
