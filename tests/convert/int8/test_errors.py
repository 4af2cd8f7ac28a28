"""Steps in the wrong order, and inputs that a converted model does not take."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lowbit
from tests.convert.int8._int8 import conv, images, sqnr, to_int8, used


def network() -> nn.Module:
    return used(
        nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 5))
    )


def test_calibration_forgotten() -> None:
    with pytest.raises(ValueError, match="has seen no data"):
        lowbit.convert(lowbit.prepare(network()), to="int8")
    with pytest.raises(ValueError, match="has seen no data"):
        lowbit.convert(lowbit.prepare_qat(network()), to="int8")


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
@pytest.mark.parametrize("prepare", [lowbit.prepare, lowbit.prepare_qat])
def test_what_is_no_number_in_a_batch(prepare: Callable[..., nn.Module], odd: float) -> None:
    prepared, x = prepare(network()), images()
    prepared(x)
    x[0, 0, 0, 0] = odd
    prepared(x)
    with pytest.raises(ValueError, match="has seen NaN or infinities"):
        lowbit.convert(prepared.eval(), to="int8")


@pytest.mark.parametrize(("layer", "words"), [(0, "has seen NaN"), (4, "the weight has NaN")])
def test_what_is_no_number_in_a_weight(layer: int, words: str) -> None:
    model = network()
    weight = model.get_submodule(str(layer)).get_parameter("weight")
    weight.data.view(-1)[0] = torch.nan
    prepared = lowbit.prepare(model)
    prepared(images())
    with pytest.raises(ValueError, match=words):
        lowbit.convert(prepared, to="int8")
    with pytest.raises(ValueError, match="the weight has NaN"):
        lowbit.quantize_dynamic(model, {"0", "4"})
    table = nn.Embedding(4, 8, _weight=torch.full((4, 8), torch.inf))
    with pytest.raises(ValueError, match="the weight has NaN or inf"):
        lowbit.quantize_dynamic(nn.Sequential(table), {"0"}, dtype=torch.quint8)


def test_convert_without_prepare() -> None:
    with pytest.raises(ValueError, match="prepare"):
        lowbit.convert(network(), to="int8")


def test_convert_twice() -> None:
    converted, _ = to_int8(network(), images())
    with pytest.raises(ValueError, match="no observers"):
        lowbit.convert(converted, to="int8")


@pytest.mark.parametrize("first", [lowbit.prepare, lowbit.prepare_qat])
@pytest.mark.parametrize("second", [lowbit.prepare, lowbit.prepare_qat])
def test_prepare_twice(first: type, second: type) -> None:
    with pytest.raises(ValueError, match="prepared already"):
        second(first(network()))


def test_nothing_to_quantize() -> None:
    with pytest.raises(ValueError, match="nothing to quantize"):
        lowbit.prepare(nn.Sequential(nn.ReLU(), nn.Flatten()))


def test_another_destination() -> None:
    with pytest.raises(ValueError, match="int8"):
        lowbit.convert(lowbit.prepare(network()), to="int4")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_an_input_of_another_dtype(dtype: torch.dtype) -> None:
    converted, _ = to_int8(network(), images())
    with pytest.raises(TypeError, match="float32"):
        converted(images().to(dtype))


def test_a_wrong_number_of_channels() -> None:
    converted, _ = to_int8(network(), images())
    with pytest.raises(ValueError, match="channels"):
        converted(images(2, 4))


INPUTS: dict[str, Tensor] = {
    "one": images(1),
    "channels_last": images().contiguous(memory_format=torch.channels_last),
    "flipped and transposed": images().flip(3).transpose(2, 3),
    "every second": images(16, size=32)[::2, :, ::2, ::2],
    "expanded": images(1).expand(4, 3, 16, 16),
    "with a gradient": images().requires_grad_(),
}


@pytest.mark.parametrize("name", INPUTS)
def test_layouts_of_the_input(name: str) -> None:
    model = network()
    converted, _ = to_int8(model, images(16))
    x = INPUTS[name]
    y = converted(x)
    assert y.dtype == torch.float32
    assert sqnr(model(x), y) > 30
    assert torch.equal(y, converted(x.detach().contiguous().clone()))


def test_a_batch_of_none() -> None:
    converted, _ = to_int8(network(), images())
    assert converted(images(0)).shape == (0, 5)


def test_each_image_for_itself() -> None:
    converted, _ = to_int8(network(), images())
    x = images()
    assert torch.equal(converted(x), torch.cat([converted(image[None]) for image in x]))


def test_gradient_modes_make_no_difference() -> None:
    model, x = network(), images()
    with torch.inference_mode():
        prepared = lowbit.prepare(model)
        prepared(x)
        converted, _ = lowbit.convert(prepared, to="int8")
    outside = converted(x)
    assert torch.equal(outside, to_int8(model, x).model(x))
    with torch.no_grad():
        assert torch.equal(outside, converted(x))
    assert not outside.requires_grad


def test_training_mode_changes_nothing_in_a_converted_model() -> None:
    model = used(nn.Sequential(conv(3, 8), nn.Dropout(0.5), nn.BatchNorm2d(8), conv(8, 4)))
    converted, _ = to_int8(model, images())
    evaluated = converted(images())
    assert sqnr(model(images()), converted.train()(images())) > 30
    assert torch.equal(evaluated, converted.eval()(images()))
