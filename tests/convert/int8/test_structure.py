"""Models with stubs, without a traceable forward, with several inputs and outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowbit
from lowbit import qconfig as q
from lowbit.nn import DeQuantStub, QuantStub
from lowbit.nn import quantized as nnq
from tests.convert.int8._int8 import classes, conv, images, model_of, sqnr, to_int8, used

BOUND = 33.0


def stubs(torch_ao: bool) -> tuple[Any, Any]:
    if not torch_ao:
        return QuantStub, DeQuantStub
    ao = pytest.importorskip("torch.ao.quantization")
    return ao.QuantStub, ao.DeQuantStub


@pytest.mark.parametrize("torch_ao", [False, True])
def test_int8_between_the_stubs_alone(torch_ao: bool) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.quant(self.before(x))
        y = torch.relu(self.a(x))
        return self.after(self.dequant(self.b(y) + y).mean((2, 3)))

    quant, dequant = stubs(torch_ao)
    layers = {"before": conv(3, 3), "a": conv(3, 8), "b": conv(8, 8), "after": nn.Linear(8, 5)}
    model = model_of(forward, quant=quant(), dequant=dequant(), **layers)
    x = images()
    converted, report = to_int8(model, x)
    assert {row.name for row in report if row.int8} == {"a", "b"}
    assert type(converted.get_submodule("before")) is nn.Conv2d
    assert type(converted.get_submodule("after")) is nn.Linear
    assert sqnr(model(x), converted(x)) > BOUND


@pytest.mark.parametrize("torch_ao", [False, True])
def test_two_regions_with_float_between(torch_ao: bool) -> None:
    quant, dequant = stubs(torch_ao)

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.dequant(self.a(self.quant(x)))
        y = torch.sigmoid(y) * 3
        return self.dequant_again(self.b(self.quant_again(y)))

    regions = {"quant": quant(), "dequant": dequant()}
    again = {"quant_again": quant(), "dequant_again": dequant()}
    model = model_of(forward, a=conv(3, 8), b=conv(8, 8), **regions, **again)
    x = images()
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report)
    assert sqnr(model(x), converted(x)) > BOUND


def test_a_layer_without_qconfig_in_a_region() -> None:
    model = nn.Sequential(
        QuantStub(), conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8), DeQuantStub()
    ).eval()
    model.qconfig = q.get_default_qconfig("onednn")
    model[3].qconfig = None
    x = images()
    converted, report = to_int8(model, x)
    rows = {row.name: row for row in report}
    assert rows["1"].int8
    assert not rows["3"].int8
    assert sqnr(model(x), converted(x)) > BOUND


class Untraceable(nn.Module):
    """Its way depends on its values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), nn.Linear(8, 5)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(conv(3, 3), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.a(self.block(x))))
        if y.mean() > 0:
            y = y + self.b(y)
        for _ in range(int(x.shape[0] > 2)):
            y = self.b(y)
        return self.c(y.mean((2, 3)))


def test_a_forward_that_torch_fx_cannot_follow() -> None:
    model, x = used(Untraceable()), images()
    converted, report = to_int8(model, x)
    assert type(converted) is Untraceable
    assert {row.name for row in report if row.int8} == {"a", "b", "c", "block.0", "block.3"}
    assert "cannot follow" in report.folding
    assert sqnr(model(x), converted(x)) > BOUND


def test_a_layer_that_no_data_reached_stays_in_float() -> None:
    class Auxiliary(Untraceable):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(8, 5)

    model, x = used(Auxiliary()), images()
    converted, report = to_int8(model, x)
    assert [row.name for row in report if not row.int8] == ["unused"]
    assert type(converted.unused) is nn.Linear
    assert converted.unused(torch.ones(1, 8)).shape == (1, 5)
    assert sqnr(model(x), converted(x)) > BOUND


def test_a_stub_quantizes_once() -> None:
    model = nn.Sequential(QuantStub(), conv(3, 8), nn.ReLU(), conv(8, 8), DeQuantStub()).eval()
    converted, _ = to_int8(model, images())
    found = list(classes(converted).values())
    assert (found.count("Quantize"), found.count("DeQuantize")) == (1, 1)


def test_encoder_layers_of_torch() -> None:
    encoder = nn.TransformerEncoderLayer(20, 2, 32, batch_first=True).eval()
    x = torch.randn(8, 5, 20)
    for model, taken in ((encoder, 2), (nn.Sequential(encoder, nn.Linear(20, 4)).eval(), 1)):
        converted, report = to_int8(model, x)
        assert sum(row.int8 for row in report) == taken
        with torch.no_grad():
            assert sqnr(model(x), converted(x)) > BOUND


def test_stubs_in_a_forward_that_torch_fx_cannot_follow() -> None:
    class Stubs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.a, self.b = conv(3, 8), conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e9:
                return x
            return self.dequant(self.b(torch.relu(self.a(self.quant(x)))))

    model, x = used(Stubs()), images()
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report)
    assert sqnr(model(x), converted(x)) > BOUND


def test_two_inputs_of_different_ranges() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x) + self.a(y))

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8))
    x, y = images(), 20 * images(seed=2)
    converted, _ = to_int8(model, x, y)
    assert sqnr(model(x, y), converted(x, y)) > 30


def test_outputs_in_dicts_lists_and_tuples() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.a(x)
        return {"features": y, "rest": [self.b(y), (y, x)], "size": y.shape[0]}

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8))
    x = images()
    wanted, found = model(x), to_int8(model, x).model(x)
    assert type(found) is dict
    assert found["size"] == 8
    assert torch.equal(found["rest"][1][1], x)
    assert sqnr(wanted["features"], found["features"]) > BOUND
    assert sqnr(wanted["rest"][0], found["rest"][0]) > BOUND
    assert torch.equal(found["features"], found["rest"][1][0])


def test_an_input_in_a_dict() -> None:
    def forward(self: Any, batch: dict[str, Tensor]) -> Tensor:
        return self.a(batch["image"])

    model = model_of(forward, a=conv(3, 8))
    x = {"image": images()}
    converted, _ = to_int8(model, x)
    assert sqnr(model(x), converted(x)) > BOUND


def test_arguments_by_name_and_with_defaults() -> None:
    def forward(self: Any, x: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> Tensor:
        y = self.a(x) * scale
        if mask is not None:
            y = y * mask
        return self.b(y)

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8))
    x, mask = images(), (images(channels=8) > 0).float()
    prepared = lowbit.prepare(model)
    prepared(x=x)
    prepared(x, 2.0, mask=mask)
    converted, _ = lowbit.convert(prepared, to="int8")
    assert sqnr(model(x), converted(x=x)) > BOUND
    assert sqnr(model(x, mask=mask), converted(x, mask=mask)) > BOUND


def test_example_fixes_the_arguments_that_it_leaves_out() -> None:
    def forward(self: Any, x: Tensor, flip: bool = False) -> Tensor:
        return self.b(torch.relu(self.a(x.flip(3) if flip else x)))

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8))
    x = images()
    prepared = lowbit.prepare(model, example=x)
    prepared(x)
    converted, report = lowbit.convert(prepared, to="int8")
    assert not report.folding
    assert sqnr(model(x), converted(x)) > BOUND


def test_names_and_classes_of_a_converted_model() -> None:
    model = used(
        nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 5))
    )
    converted, _ = to_int8(model, images())
    found = classes(converted)
    assert type(converted).__name__ == "GraphModule"
    assert (found["0"], found["4"]) == ("ConvReLU2d", "Linear")
    assert [name for name in found.values() if name == "Quantize"] == ["Quantize"]
    assert isinstance(converted.get_submodule("4"), nnq.Linear)


def test_values_between_layers_are_integers() -> None:
    model = nn.Sequential(conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8)).eval()
    converted, report = to_int8(model, images())
    seen: list[Any] = []
    converted.get_submodule("3").register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    converted(images())
    assert type(seen[0]) is lowbit.QTensor
    assert seen[0].int_repr().dtype == torch.uint8
    assert [row.output for row in report] == ["int8", "float"]


def test_rows_of_the_report() -> None:
    model = used(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4)))
    _, report = to_int8(model, images())
    first, last = report
    assert (first.name, first.kind, first.bits, first.int8) == ("0", "Conv2d", "8x8", True)
    assert first.kernel in ("oneDNN", "reference")
    assert first.folded == ["1", "2"]
    assert (first.bytes_before, last.folded, last.output) == (4 * (216 + 8), [], "float")
    # Weights, bias, a scale and a zero point for each channel, and those of the output.
    assert first.bytes_after == 216 + 8 * (4 + 8 + 8) + 16
    assert "2 of 2 layers in int8" in repr(report)
    assert report.to_dict()["layers"][0]["int8"] is True


@pytest.mark.parametrize("reads", ["bias", "weight", "norm"])
def test_a_norm_stays_where_forward_reads_it_or_its_layer(reads: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.l(self.n(self.c(x)))
        if reads == "weight":
            return y + nn.functional.conv2d(x, self.c.weight, padding=1)
        return y + 10 * (self.c.bias if reads == "bias" else self.n.weight).view(-1, 1, 1)

    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_(0, 3)
    norm.running_var.uniform_(1, 9)
    model = model_of(forward, c=conv(3, 8), n=norm, l=nn.Conv2d(8, 8, 1)).eval()
    x = images()
    prepared = lowbit.prepare(model)
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), model(x))
