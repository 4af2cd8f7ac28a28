"""Copies, files, compilers: a converted model is an nn.Module as any other."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

import lowbit
from tests.convert.int8._int8 import conv, images, model_of, sqnr, to_int8


def network(seed: int = 0) -> nn.Module:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.a(x)))
        y = torch.cat([torch.relu(self.b(y) + y), y], 1)
        return self.c(nn.functional.max_pool2d(y, 2).mean((2, 3)))

    torch.manual_seed(seed)
    layers = {"a": conv(3, 8), "norm": nn.BatchNorm2d(8), "b": conv(8, 8), "c": nn.Linear(16, 5)}
    return model_of(forward, **layers)


@pytest.fixture
def converted() -> nn.Module:
    return to_int8(network(), images()).model


def test_deep_copy_and_pickle(converted: nn.Module) -> None:
    x = images()
    wanted = converted(x)
    assert torch.equal(copy.deepcopy(converted)(x), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(converted))(x), wanted)


def test_state_dict_by_a_file_into_a_model_converted_from_other_weights(
    converted: nn.Module,
) -> None:
    file = io.BytesIO()
    torch.save(converted.state_dict(), file)
    file.seek(0)
    other = to_int8(network(1), 3 * images()).model
    x = images()
    assert not torch.equal(other(x), converted(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), converted(x))


def test_state_dict_holds_plain_int8_weights_at_the_names_of_the_layers(
    converted: nn.Module,
) -> None:
    state = converted.state_dict()
    for name in "abc":
        assert state[f"{name}.weight"].dtype == torch.int8
        assert state[f"{name}.bias"].dtype == torch.float32
        assert {"scale", "zero_point"} <= {k.split(".")[1] for k in state if k[:2] == name + "."}
    assert not any(value.is_quantized for value in state.values())


def test_whole_model_by_a_file(converted: nn.Module) -> None:
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(images()), converted(images()))


def test_compiled(converted: nn.Module) -> None:
    compiled = torch.compile(converted, fullgraph=True)
    assert sqnr(converted(images()), compiled(images())) > 60


def test_exported_with_any_batch_size(converted: nn.Module) -> None:
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(converted, (images(),), dynamic_shapes=sizes).module()
    for count in (8, 3):
        assert torch.equal(exported(images(count)), converted(images(count)))


def test_prepared_model_by_copy_and_by_state_dict(converted: nn.Module) -> None:
    x = images()
    prepared = lowbit.prepare(network())
    prepared(x)
    again = lowbit.prepare(network(1))
    again.load_state_dict(prepared.state_dict())
    for model in (copy.deepcopy(prepared), again):
        assert torch.equal(lowbit.convert(model, to="int8").model(x), converted(x))


def test_compiled_calibration_finds_the_same_scales(converted: nn.Module) -> None:
    x = images()
    prepared = lowbit.prepare(network())
    torch.compile(prepared, backend="eager")(x)
    assert torch.equal(lowbit.convert(prepared, to="int8").model(x), converted(x))
