"""Copies, pickles, state dicts, devices and dtypes of quantized modules."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from lowbit.nn import quantized as nnq
from lowbit.qtensor import QTensor
from tests.golden.cases import cases
from tests.nn.quantized._models import activation, normal, residual_net, weighted

MODULES = {
    "Linear": (lambda: nnq.Linear(4, 3), (5, 4)),
    "LinearReLU": (lambda: nnq.LinearReLU(4, 3, bias_=False), (5, 4)),
    "Conv1d": (lambda: nnq.Conv1d(4, 3, 2), (5, 4, 6)),
    "Conv2d": (lambda: nnq.Conv2d(4, 6, 3, 2, 1, groups=2), (5, 4, 6, 6)),
    "Conv3d": (lambda: nnq.Conv3d(4, 3, 2, bias=False), (2, 4, 3, 3, 3)),
    "ConvTranspose2d": (lambda: nnq.ConvTranspose2d(4, 3, 2, 2), (5, 4, 6, 6)),
}


def module(name: str, axis: int | None = 0) -> nn.Module:
    made = MODULES[name][0]()
    return weighted(made, None if axis is None else made.channel_axis)


def saved(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("axis", [None, 0])
def test_a_state_dict_of_plain_tensors_is_all_of_a_layer(name, axis):
    layer, x = module(name, axis), activation(*MODULES[name][1])
    state = saved(layer.state_dict())
    assert all(type(value) is torch.Tensor for value in state.values())
    names = {"weight", "weight_scale", "weight_zero_point", "scale", "zero_point"}
    assert set(state) == names | ({"bias"} if layer.bias() is not None else set())
    assert state["weight"].dtype == torch.int8
    other = MODULES[name][0]()
    assert not other(x).equal(layer(x))
    assert other.load_state_dict(state) == nn.Module().load_state_dict({})
    assert other(x).equal(layer(x))
    assert (other.scale, other.zero_point) == (layer.scale, layer.zero_point)
    # What was loaded is no view of the file's tensors.
    state["weight"].zero_()
    assert other(x).equal(layer(x))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "again", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_return_the_same_integers(name, again):
    layer, x = module(name), activation(*MODULES[name][1])
    assert again(layer)(x).equal(layer(x))


def test_a_model_in_float16_leaves_integers_and_scales_alone():
    model, x = residual_net(), normal(2, 3, 8, 8)
    expected = model(x)
    before = {key: value.dtype for key, value in model.conv.state_dict().items()}
    model.conv.half()
    model.fc.to(torch.bfloat16)
    assert {key: value.dtype for key, value in model.conv.state_dict().items()} == before
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", MODULES)
def test_a_layer_moves_to_another_device(name):
    state = module(name).to("meta").state_dict()
    plain = {"scale", "zero_point"}  # numbers
    assert all(value.is_meta or key in plain for key, value in state.items())


def test_a_model_loads_the_state_of_another():
    model, x = residual_net(), normal(2, 3, 8, 8)
    model.add.scale = 0.2
    state = saved(model.state_dict())
    other = residual_net()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(state)
    assert torch.equal(other(x), model(x))


def test_a_model_on_the_meta_device_gets_its_weights_by_assignment():
    layer, x = module("Linear"), activation(5, 4)
    with torch.device("meta"):
        empty = nnq.Linear(4, 3)
    assert empty.state_dict()["weight"].is_meta
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert empty(x).equal(layer(x))


def test_what_is_missing_or_unexpected_is_told():
    state = module("Linear").state_dict()
    del state["weight_scale"], state["scale"]
    state["strange"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_scale") as error:
        nnq.Linear(4, 3).load_state_dict(state)
    assert '"scale"' in str(error.value)
    assert 'Unexpected key(s) in state_dict: "strange"' in str(error.value)
    state = module("Linear").state_dict()
    with pytest.raises(RuntimeError, match=r"shape \(2, 4\), not \(3, 4\)"):
        nnq.Linear(4, 2).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"bias"'):
        nnq.Linear(4, 3, bias_=False).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key.*"bias"'):
        nnq.Linear(4, 3).load_state_dict({k: v for k, v in state.items() if k != "bias"})
    del state["weight"]
    assert "weight" in nnq.Linear(4, 3).load_state_dict(state, strict=False).missing_keys


@pytest.mark.parametrize("case", cases("Conv2d.state_dict") + cases("BatchNorm2d.state_dict"))
def test_keys_of_torch_are_among_ours(case):
    made = {"Conv2d": nnq.Conv2d(3, 4, 3), "BatchNorm2d": nnq.BatchNorm2d(4)}
    keys = set(made[case.api.split(".")[0]].state_dict())
    # Scales and zero points of the weight are inside torch's quantized tensor.
    assert keys - set(case.out) <= {"weight_scale", "weight_zero_point"}
    assert set(case.out) <= keys


@pytest.mark.parametrize("dtype", ["quint8", "quint4x2", "quint2x4"])
def test_embeddings_save_and_load(dtype):
    bits = {"quint8": 8, "quint4x2": 4, "quint2x4": 2}[dtype]
    codes = torch.randint(0, 2**bits, (6, 8), dtype=torch.uint8)
    layer = nnq.Embedding(6, 8, dtype=dtype)
    layer.set_weight(QTensor(codes, 0.1 + torch.arange(6), torch.arange(6) + 0.5, 0))
    state, indices = saved(layer.state_dict()), torch.tensor([[0, 5], [2, 2]])
    assert set(state) == {"weight", "weight_scale", "weight_zero_point"}
    other = nnq.Embedding(6, 8, dtype=dtype)
    assert not torch.equal(other(indices), layer(indices))
    other.load_state_dict(state)
    assert torch.equal(other(indices), layer(indices))
    assert other.weight().equal(layer.weight())
    assert torch.equal(copy.deepcopy(layer).half()(indices), layer(indices))
    with pytest.raises(RuntimeError, match="shapes"):
        nnq.Embedding(5, 8, dtype=dtype).load_state_dict(state)


def test_prelu_saves_its_slopes():
    layer, x = nnq.PReLU(0.1, 5, 3), activation(2, 3)
    other = nnq.PReLU(0.1, 5, 3)
    layer.set_weight(QTensor(torch.tensor([3, 90, 200], dtype=torch.uint8), 0.01, 2))
    other.load_state_dict(saved(layer.state_dict()))
    assert other.weight.equal(layer.weight)
    assert other(x).equal(layer(x))


def test_scales_are_numbers_and_take_tensors():
    layer = nnq.Linear(4, 3)
    layer.scale, layer.zero_point = torch.tensor([0.25]), torch.tensor(7)
    assert (layer.scale, layer.zero_point) == (0.25, 7)
    assert type(layer.scale) is float
    assert "scale=0.25, zero_point=7" in repr(layer)


def test_modules_print_what_they_are():
    printed = repr(residual_net())
    for part in (
        "QuantizedConvReLU2d(3, 16, kernel_size=(3, 3), stride=(1, 1), scale=0.1, zero_point=100",
        "groups=2, bias=False",
        "QuantizedLinear(in_features=16, out_features=10",
        "Quantize(scale=0.029999999329447746, zero_point=117, dtype=torch.uint8)",
    ):
        assert part in printed


def test_a_changed_weight_changes_the_result():
    layer, x = module("Conv2d"), activation(*MODULES["Conv2d"][1])
    before = layer(x)
    layer.weight().values[0] = 0
    after = layer(x)
    assert not after.values[:, 0].equal(before.values[:, 0])
    assert after.values[:, 1:].equal(before.values[:, 1:])
