"""What int8 once got wrong without a word, or with the wrong one."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowbit
from lowbit import observers
from lowbit.qconfig import QConfig, default_dynamic_qconfig


def pooled() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    ).eval()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ["int_k", "lsq"])
def test_a_mean_is_rounded_where_training_rounds(bits, name):
    quantizer = {"name": name, "bits": bits}
    if name == "int_k":
        quantizer["range"] = "moving_average"
    trained = lowbit.prepare_qat(pooled(), QConfig(quantizer, {"name": "int_k", "bits": bits}))
    x = torch.randn(4, 3, 8, 8)
    trained(x)
    trained.eval().apply(observers.disable_observer)
    converted, _ = lowbit.convert(trained, to="int8")
    torch.testing.assert_close(converted(x), trained(x), rtol=1e-5, atol=1e-6)


def test_a_prepared_model_converts_after_pickling():
    x = torch.randn(4, 3, 8, 8)
    prepared = lowbit.prepare(pooled())
    prepared(x)
    again = pickle.loads(pickle.dumps(prepared))
    expected, _ = lowbit.convert(prepared, to="int8")
    assert torch.equal(lowbit.convert(again, to="int8").model(x), expected(x))


def test_quantizers_that_learn_are_for_training():
    with pytest.raises(ValueError, match=r"Lsq.* learns its grid in training.*prepare_qat"):
        lowbit.prepare(pooled(), QConfig("lsq", "lsq"))


def test_a_prepared_model_is_not_for_packing():
    with pytest.raises(ValueError, match=r"convert\(model, to='int8'\)"):
        lowbit.convert(lowbit.prepare(pooled()))


class ReadsAWeight(nn.Module):
    def __init__(self, layer) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), layer

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.a(x), self.b.weight) + self.b(x)


@pytest.mark.parametrize("to", ["int8", "packed"])
def test_a_layer_whose_weight_forward_reads_stays(to):
    signs = {"input_quantization": "sign", "weight_quantization": "sign"}
    layer = nn.Linear(64, 64) if to == "int8" else lowbit.nn.QLinear(64, 64, **signs)
    model, x = ReadsAWeight(layer).eval(), torch.randn(32, 64)
    prepared = lowbit.prepare(model) if to == "int8" else model
    prepared(x)
    converted, report = lowbit.convert(prepared, to=to)
    row = next(row for row in report if row.name == "b")
    assert not row.int8
    assert not row.packed
    assert (converted(x) - model(x)).abs().max() < 0.1


def test_a_mapping_of_dynamic_qconfigs_may_be_for_the_whole_model_or_none():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    dynamic = "lowbit.nn.quantized.dynamic.linear"
    whole = lowbit.quantize_dynamic(model, {"": default_dynamic_qconfig})
    assert [type(m).__module__ for m in whole] == [dynamic, dynamic]
    but_one = lowbit.quantize_dynamic(model, {"": default_dynamic_qconfig, "0": None})
    assert [type(m).__module__ for m in but_one] == ["torch.nn.modules.linear", dynamic]


def test_a_layer_after_a_float_operation_between_stubs_is_in_int8():
    model = nn.Sequential(
        *(lowbit.nn.QuantStub(), nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 4, 3)),
        lowbit.nn.DeQuantStub(),
    ).eval()
    prepared, x = lowbit.prepare(model), torch.randn(4, 3, 8, 8)
    prepared(x)
    converted, report = lowbit.convert(prepared, to="int8")
    assert [row.name for row in report if row.int8] == ["1", "3"]
    assert (converted(x) - model(x)).abs().max() < 0.05


def test_transposed_convolutions_train_and_convert():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    )
    trained, x = lowbit.prepare_qat(model), torch.randn(2, 3, 8, 8)
    trained(x).sum().backward()
    trained.eval()
    converted, report = lowbit.convert(trained, to="int8")
    assert all(row.int8 for row in report)
    assert (converted(x) - trained(x)).abs().max() < 0.05 * trained(x).abs().max()


def test_rows_come_in_the_order_of_the_model():
    signs = {"input_quantization": "sign", "weight_quantization": "sign"}
    model = lowbit.models.VGGSmall(width=32, **signs).eval()
    prepared = lowbit.prepare(model)
    prepared(torch.randn(2, 3, 32, 32))
    _, report = lowbit.convert(prepared, to="int8")
    names = [name for name, _ in model.named_modules()]
    places = [names.index(row.name) for row in report]
    assert places == sorted(places)
