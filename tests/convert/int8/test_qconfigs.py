"""What a qconfig may be, and what is said about other ones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowbit
from lowbit import qconfig as q
from lowbit.observers import MinMaxObserver, PerChannelMinMaxObserver
from tests.convert.int8._int8 import conv, images, sqnr, to_int8, used


def network() -> nn.Module:
    torch.manual_seed(3)
    return used(
        nn.Sequential(
            conv(3, 8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            conv(8, 8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    )


SIGNED = q.QConfig(
    MinMaxObserver.with_args(dtype="int8"),
    PerChannelMinMaxObserver.with_args(dtype="int8", qscheme="per_channel_symmetric"),
)
QCONFIGS: dict[str, Any] = {
    "none": None,
    **{name: name for name in ("x86", "fbgemm", "onednn", "qnnpack")},
    "one weight scale": q.default_qconfig,
    "7 bits": q.default_per_channel_qconfig,
    "int8 symmetric": q.default_per_channel_symmetric_qnnpack_qconfig,
    "int8 symmetric, one scale": q.default_symmetric_qnnpack_qconfig,
    "int8 activations": SIGNED,
    "fake quantization": q.default_qat_qconfig,
}


@pytest.mark.parametrize("name", QCONFIGS)
def test_a_qconfig(name: str) -> None:
    model, x = network(), images()
    converted, report = to_int8(model, x, qconfig=QCONFIGS[name])
    assert all(row.int8 for row in report)
    assert sqnr(model(x), converted(x)) > 38


def test_int8_activations_give_the_numbers_of_uint8() -> None:
    """The sign bit is flipped; ranges and codes are the same."""
    model, x = network(), images()
    signed, _ = to_int8(model, x, qconfig=SIGNED)
    unsigned, _ = to_int8(model, x)
    assert torch.equal(signed(x), unsigned(x))


@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
def test_qconfigs_of_torch_ao(engine: str) -> None:
    ao = pytest.importorskip("torch.ao.quantization")
    model, x = network(), images()
    theirs, _ = to_int8(model, x, qconfig=ao.get_default_qconfig(engine))
    ours, _ = to_int8(model, x, qconfig=engine)
    assert torch.equal(theirs(x), ours(x))


def test_seven_bits_use_half_of_the_codes() -> None:
    """``reduce_range``: codes end at 127, so that steps are twice as large."""
    model, x = network(), images()
    seven, _ = to_int8(model, x, qconfig="x86")
    eight, _ = to_int8(model, x, qconfig="onednn")
    name = next(n for n, m in seven.named_modules() if type(m).__name__ == "Quantize")
    ratio = seven.get_submodule(name).scale / eight.get_submodule(name).scale
    assert 1.8 < float(ratio) < 2.2
    assert sqnr(model(x), eight(x)) > sqnr(model(x), seven(x))


def test_one_weight_scale_or_one_for_each_channel() -> None:
    model, x = network(), images()
    tensor, _ = to_int8(model, x, qconfig=q.default_qconfig)
    channel, _ = to_int8(model, x, qconfig=q.default_per_channel_qconfig)
    assert tensor.state_dict()["0.weight_scale"].numel() == 1
    assert channel.state_dict()["0.weight_scale"].shape == (8,)


NONE_BY: list[Any] = [{"7": None}, {nn.Linear: None}, {nn.Linear: None, "": q.default_qconfig}]


@pytest.mark.parametrize("mapping", NONE_BY)
def test_none_keeps_a_layer_in_float(mapping: Any) -> None:
    model, x = network(), images()
    converted, report = to_int8(model, x, qconfig=mapping)
    assert [row.name for row in report if not row.int8] == ["7"]
    assert type(converted.get_submodule("7")) is nn.Linear
    assert sqnr(model(x), converted(x)) > 38


def test_a_name_beats_a_class_and_a_class_the_rest() -> None:
    mapping = {"3": None, nn.Conv2d: q.default_per_channel_qconfig, "": q.default_qconfig}
    converted, report = to_int8(network(), images(), qconfig=mapping)
    assert [row.name for row in report if not row.int8] == ["3"]
    scales = {k: v.numel() for k, v in converted.state_dict().items() if "weight_scale" in k}
    assert scales == {"0.weight_scale": 8, "7.weight_scale": 1}


def test_qconfig_attributes_as_in_torch_ao() -> None:
    model, x = network(), images()
    model.qconfig = q.get_default_qconfig("onednn")
    model[3].qconfig = None
    converted, report = to_int8(model, x)
    assert [row.name for row in report if not row.int8] == ["3"]
    assert sqnr(model(x), converted(x)) > 38


@pytest.mark.parametrize(
    ("qconfig", "error", "words"),
    [
        ("x68", ValueError, "x86"),
        ({"nope": None}, ValueError, "nope"),
        ({"": None}, ValueError, "nothing to quantize"),
        (5, TypeError, "QConfig"),
        ({"": 5}, TypeError, "QConfig"),
        (q.default_dynamic_qconfig, ValueError, "nothing to quantize"),
        (q.default_weight_only_qconfig, ValueError, "nothing to quantize"),
    ],
)
def test_other_qconfigs_are_refused(qconfig: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lowbit.prepare(network(), qconfig)


def test_prepare_leaves_the_model_as_it_was() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = lowbit.prepare(model)
    prepared(images())
    lowbit.convert(prepared, to="int8")
    assert model.training
    assert not prepared.training
    assert type(model[0]) is nn.Conv2d
    assert not [m for m in model.modules() if hasattr(m, "qconfig")]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_more_data_widens_the_ranges_and_conversion_can_be_repeated() -> None:
    model, x = network(), images()
    prepared = lowbit.prepare(model)

    def outputs() -> Tensor:
        return lowbit.convert(prepared, to="int8").model(x)

    prepared(x)
    first = outputs()
    assert torch.equal(outputs(), first)
    prepared(100 * x)
    assert sqnr(model(x), outputs()) < 20 < sqnr(model(x), first)
