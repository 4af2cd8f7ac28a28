"""Kernels and bytes are those of the model that ``lowbit.convert`` makes."""

import pytest
import torch
from torch import nn

import lowbit
from lowbit.models import FinnMLP, QuickNet, VGGSmall
from lowbit.nn import QConv2d, QEmbedding, QLinear
from tests.convert._networks import Plain, shaken
from tests.models._small import FAMILIES

SIGN = {"input_quantization": "sign", "weight_quantization": "sign"}


def size(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


@pytest.mark.parametrize(
    "name", ["resnet_e18", "meliusnet", "real_to_binary", "cnv", "binary_alexnet", "lenet_twn"]
)
def test_bytes_of_the_zoo_are_those_of_both_states(name):
    make, shape = FAMILIES[name]
    model = shaken(make(**SIGN))
    found = lowbit.summary(model, shape)
    assert found.bytes == size(model)
    assert found.packed_bytes == size(lowbit.convert(model).model)
    assert found.parameters == sum(p.numel() for p in model.parameters())


def test_each_packed_layer_has_the_bytes_of_its_own_entries():
    model = shaken(VGGSmall(width=64, **SIGN))
    found = lowbit.summary(model, (3, 32, 32))
    converted, report = lowbit.convert(model)
    assert sum(row.packed for row in report) >= 4
    for row in report:
        ours = found[row.name]
        assert ours.packed_bytes == size(converted.get_submodule(row.name)) == row.bytes_after
        assert ours.bytes == size(model.get_submodule(row.name))
    folded = {name: row.name for row in report for name in row.folded}
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and n in folded]
    assert len(norms) >= 4
    for name in norms:
        assert found[name].kernel == f"in {folded[name]}"
        assert found[name].packed_bytes == 0


def test_the_whole_of_quicknet_has_the_published_size_when_packed():
    model = QuickNet(channels=(64, 128), blocks=(1, 1), num_classes=10, **SIGN)
    found = lowbit.summary(model, (3, 32, 32))
    # Blurs, two numbers a channel of each norm, and a bit for each weight: nothing is lost.
    assert found.packed_bytes == found.nominal_bytes == size(lowbit.convert(model).model)


def test_the_kernel_is_that_of_the_report(monkeypatch):
    if not lowbit.kernels.available():
        pytest.skip("no compiled kernels")
    for isa in lowbit.kernels.isas():
        monkeypatch.setenv("LOWBIT_ISA", isa)
        model = QConv2d(256, 256, 3, padding=1, **SIGN)
        assert lowbit.summary(model, (256, 8, 8))[0].kernel == f"xnor {isa}"


def test_several_bits_run_as_planes():
    two = {"name": "dorefa_input", "bits": 2}
    layer = QConv2d(64, 64, 3, input_quantization=two, weight_quantization="sign")
    row = lowbit.summary(layer, (64, 8, 8))[0]
    assert row.kernel == f"planes 1x2 {lowbit.kernels.isa()}"
    assert row.macs.k_bit == 36 * 64 * 64 * 9


def test_a_layer_that_stays_says_why():
    model = nn.Sequential(QConv2d(3, 64, 3, **SIGN), nn.Conv2d(64, 8, 1))
    found = lowbit.summary(model, (3, 8, 8))
    assert [row.kernel for row in found] == ["float torch", "float torch"]
    assert found[0].why == lowbit.convert(model).report[0].why != ""
    assert found[1].why == ""
    assert f"stays as it is: 0: {found[0].why}" in str(found)


def test_a_quantizer_in_front_of_a_layer_counts_where_it_is_packed():
    model = FinnMLP(1, 10, 8, (128, 128), dropout=0.2, **SIGN)
    found = lowbit.summary(model, (1, 8, 8))
    for row in lowbit.convert(model).report:
        if row.packed:
            assert found[row.name].macs.float == 0


def test_a_converted_model_is_summed_as_it_is():
    model = shaken(Plain([nn.BatchNorm2d(64), nn.ReLU()], 64))
    converted, _ = lowbit.convert(model)
    before = lowbit.summary(model, (32, 9, 9))
    after = lowbit.summary(converted, (32, 9, 9))
    assert after.macs == before.macs
    assert after.bytes == after.packed_bytes == before.packed_bytes == size(converted)
    assert [row.kernel for row in after] == [f"xnor {lowbit.kernels.isa()}"] * 2
    assert [row.weights for row in after] == [64 * 32 * 9, 64 * 32 * 9]
    # Bits go from one to the other; they stand for 64 channels.
    assert after[0].output == (1, 64, 9, 9)


def test_packed_tables_and_linear_layers_are_known():
    model = nn.Sequential(QEmbedding(10, 64, weight_quantization="sign"), QLinear(64, 2048, **SIGN))
    converted, _ = lowbit.convert(model, keep_slower=True)
    found = lowbit.summary(converted, (3,), dtype=torch.long)
    assert [row.kernel for row in found] == ["packed table", f"xnor {lowbit.kernels.isa()}"]
    assert found.macs.one_bit == 3 * 64 * 2048
    assert found.bytes == size(converted)


@pytest.fixture(scope="module")
def prepared():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        QConv2d(16, 32, 3, padding=1, bias=False, **SIGN),
        nn.BatchNorm2d(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    prepared = lowbit.prepare(model.eval())
    prepared(torch.randn(4, 3, 8, 8))
    return prepared


def test_a_prepared_model_is_summed_as_its_int8_one(prepared):
    found = lowbit.summary(prepared, (3, 8, 8))
    assert found.macs.int8 == 64 * 16 * 27 + 320
    assert found.macs.one_bit == 64 * 32 * 16 * 9
    assert found.macs.float == found.macs.k_bit == 0
    assert found["0"].kernel.startswith("int8 ")
    assert found["3"].kernel == f"xnor {lowbit.kernels.isa()}"
    converted = lowbit.convert(prepared, to="int8").model
    assert found.bytes == size(prepared)
    assert found.packed_bytes == size(converted)
    after = lowbit.summary(converted, (3, 8, 8))
    assert after.macs == found.macs
    assert after.bytes == after.packed_bytes == size(converted)
    assert after["0"].kernel == found["0"].kernel


def test_without_scales_there_is_no_size_and_a_note_says_why():
    found = lowbit.summary(lowbit.prepare(nn.Sequential(nn.Linear(4, 3)).eval()), (4,))
    assert found.packed_bytes is None
    assert found.compression is None
    assert "has seen no data" in found.notes[0]
    assert found[0].kernel == ""


def test_without_values_there_is_no_size_and_a_note_says_why():
    with torch.device("meta"):
        model = nn.Sequential(QConv2d(64, 64, 3, **SIGN))
    found = lowbit.summary(model, (64, 8, 8))
    assert found.macs.one_bit == 36 * 64 * 64 * 9
    assert found.packed_bytes is None
    assert "meta" in found.notes[0]


def test_dynamic_layers_multiply_int8():
    model = nn.Sequential(nn.Linear(8, 6), nn.LSTM(6, 4))
    dynamic = lowbit.quantize_dynamic(model)
    example = torch.randn(5, 2, 8)
    found = lowbit.summary(dynamic, example)
    assert found.macs.int8 == lowbit.summary(model, example).macs.float
    assert found.parameters == lowbit.summary(model, example).parameters
    assert [row.kernel for row in found] == ["int8 dynamic"] * 2


class Branching(nn.Module):
    """One layer under two names, in a forward that torch.fx cannot follow."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x if x.sum() > 1e30 else self.b(self.a(x))


def test_an_int8_layer_under_two_names_is_one():
    prepared = lowbit.prepare(Branching().eval())
    prepared(torch.randn(2, 3, 8, 8))
    converted = lowbit.convert(prepared, to="int8").model
    found = lowbit.summary(converted, (3, 8, 8))
    assert [row.name for row in found] == ["a.quantize", "a.layer"]
    # A scale and a zero point, 8 bytes each, are in the state under both names.
    assert size(converted) == found.bytes + found["a.quantize"].bytes + found["a.layer"].bytes
