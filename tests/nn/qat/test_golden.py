"""The recorded linear layers of quantization-aware training."""

import pytest
import torch
from torch import nn

from lowbit.functional.int8 import quantize
from lowbit.nn import qat
from lowbit.qconfig import get_default_qat_qconfig
from tests.golden.cases import cases

# torch.ao's fused fake quantizer trains symmetric weights with a scale that it does not convert
# with; here training has the scale of conversion. Outputs differ by the rounding of a weight.
OTHER_SCALE = ("qat.Linear.v1.qnnpack", "qat.Linear.convert")

RUNS = [case for case in cases("qat.Linear") if case.error is None]
REFUSED = [case for case in cases("qat.Linear") if case.error is not None]


def float_layer(given, engine, version):
    layer = nn.Linear(given["weight"].shape[1], given["weight"].shape[0])
    layer.weight = nn.Parameter(given["weight"])
    layer.bias = nn.Parameter(given["bias"])
    layer.qconfig = get_default_qat_qconfig(engine, version)
    return layer


@pytest.mark.parametrize("case", [c for c in RUNS if "grad" in c.inputs], ids=lambda case: case.id)
def test_recorded_training(case):
    given, out = case.inputs, case.out
    source = float_layer(given, given["engine"], given["version"])
    layer = qat.Linear.from_float(source)
    x = given["input"].requires_grad_()
    y = layer(x)
    y.backward(given["grad"])
    assert (layer.weight is source.weight) == out["shares_weight"]
    assert torch.equal(layer.to_float().weight, out["float_w"])
    assert torch.equal(layer.weight.grad, out["dw"])
    assert torch.equal(layer.bias.grad, out["db"])
    if case.id in OTHER_SCALE:
        scale = given["weight"].abs().amax() / 127.5
        assert torch.equal(layer.weight_fake_quant.scale, scale.reshape(1))
        bound = given["input"].abs().sum(1, keepdim=True) * scale * 1.01
        assert ((y - out["y"]).abs() <= bound).all()
        return
    assert torch.equal(layer.weight_fake_quant.scale, out["w_scale"])
    assert torch.equal(layer.weight_fake_quant.zero_point, out["w_zero_point"])
    assert torch.equal(y, out["y"])
    assert torch.equal(x.grad, out["dx"])


def test_recorded_conversion():
    (case,) = (c for c in RUNS if c.id == "qat.Linear.convert")
    given, out = case.inputs, case.out
    layer = qat.Linear.from_float(float_layer(given, "x86", 1))
    inputs, outputs = (layer.qconfig.activation() for _ in range(2))
    # The second batch was the first, doubled.
    for k in (1, 2):
        outputs(layer(inputs(k * given["input"])))
    scale, zero_point = inputs.calculate_qparams()
    assert (scale.item(), zero_point.item()) == (out["in_scale"], out["in_zero_point"])
    scale, zero_point = outputs.calculate_qparams()
    assert scale.item() == pytest.approx(out["scale"], rel=1e-2)  # of outputs that differ
    assert zero_point.item() == out["zero_point"]

    weight = layer.weight_fake_quant(layer.weight.detach())
    scale, zero_point = layer.weight_fake_quant.calculate_qparams()
    assert torch.equal(scale.double(), out["weight"].scale)
    assert torch.equal(
        quantize(weight, scale, zero_point, torch.int8, axis=0), out["weight"].values
    )
    assert torch.equal(
        quantize(layer.weight.detach(), scale, zero_point, "int8", axis=0), out["weight"].values
    )
    assert torch.equal(layer.bias, out["bias"])


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_recorded_refusals(case):
    refused = {
        "qat.Linear.err.no_qconfig": lambda: qat.Linear(3, 4),
        "qat.Linear.err.float_no_qconfig": lambda: qat.Linear.from_float(nn.Linear(3, 4)),
    }[case.id]
    with pytest.raises(ValueError, match=r"get_default_qat_qconfig\(\)"):
        refused()
