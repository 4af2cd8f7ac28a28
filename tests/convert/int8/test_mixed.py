"""Binary networks: 1-bit layers packed, stem, shortcuts and classifier in int8, in one call."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lowbit
from lowbit import models
from lowbit.observers import disable_observer
from tests.convert.int8._int8 import conv, images, sqnr, used

BINARY = {"input_quantization": "sign", "weight_quantization": "sign"}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor, int, int]] = {
    # the model, its input, how many layers go to int8, how many are packed
    "MLP": (lambda: models.MLP(1, 10, 8, (256, 256, 256), **BINARY), images(8, 1, 8), 2, 2),
    "LeNet": (lambda: models.LeNet(1, 10, 28, **BINARY), images(8, 1, 28), 2, 2),
    "ResNet18": (lambda: models.ResNet18(3, 10, **BINARY), images(1, size=32), 5, 16),
    "QuickNet": (lambda: models.QuickNet(3, 10, **BINARY), images(1, size=64), 8, 16),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_binary_network(name: str) -> None:
    """Compared with its fake-quantized form: a sign turned by int8's rounding is no error."""
    make, x, int8, packed = NETWORKS[name]
    model = lowbit.prepare_qat(used(make()))
    model(x.repeat(2, 1, 1, 1))
    model.eval().apply(disable_observer)
    converted, report = lowbit.convert(model, to="int8")
    assert (sum(row.int8 for row in report), sum(row.packed for row in report)) == (int8, packed)
    weighted = [row for row in report if row.kind != "BatchNorm2d"]
    assert all(row.bits == ("8x8" if row.int8 else "1x1") for row in weighted)
    assert report.bytes_after < report.bytes_before / 3.5
    assert sqnr(model(x), converted(x)) > 40


def test_which_layers_become_what() -> None:
    model = used(models.ResNet18(3, 10, **BINARY))
    prepared = lowbit.prepare(model)
    prepared(images(1, size=32))
    converted, report = lowbit.convert(prepared, to="int8")
    rows = {row.name: row for row in report}
    names = {name for name, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)}
    assert {name for name, row in rows.items() if row.int8} == names
    binary = {name for name, m in model.named_modules() if type(m) is lowbit.nn.QConv2d}
    assert {name for name, row in rows.items() if row.packed} == binary
    for name in binary:
        assert type(converted.get_submodule(name)).__module__.startswith("lowbit.nn.packed")
    for name in names:
        assert type(converted.get_submodule(name)).__module__.startswith("lowbit.nn.quantized")


def test_a_network_of_signs_after_an_int8_stem() -> None:
    """Only the stem and the head round: signs of the stem's output, far from 0, are the same."""
    from lowbit.nn import QConv2d

    torch.manual_seed(0)
    binary = QConv2d(64, 64, 3, padding=1, bias=False, **BINARY)
    model = used(nn.Sequential(conv(3, 64), binary, nn.BatchNorm2d(64), conv(64, 8)))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:, 0, 1, 1] = torch.where(torch.arange(64) % 3 == 0, -1.0, 1.0)
        model[0].bias.zero_()
    x = images().sign() * (1 + images(seed=2).abs())
    prepared = lowbit.prepare(model)
    prepared(x)
    converted, report = lowbit.convert(prepared, to="int8")
    assert [row.packed for row in sorted(report, key=lambda row: row.name)] == [False, True, False]
    assert sqnr(model(x), converted(x)) > 30


def test_without_prepare_the_rest_stays_in_float() -> None:
    model = used(models.LeNet(1, 10, 28, **BINARY))
    _, report = lowbit.convert(model)
    assert not any(row.int8 for row in report)
