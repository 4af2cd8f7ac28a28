"""Functions and modules against what torch.ao.nn.quantized returned."""

import copy

import pytest
import torch
from torch import nn

from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import functional as qF
from lowbit.qtensor import QTensor
from tests.golden.cases import Case, cases

# How many elements differ, by one, and why. tests/functional/int8 looks at each.
NCHW = "torch adds an odd zero point before rounding where the image is not channels last"
FMA = "torch dequantizes with a fused multiply-add, which rounds once"
ORDER = "torch's vector code adds in another order"
OFF_BY_ONE = {
    "F.avg_pool2d.k2.qint8.zp-7": (25, NCHW),
    "F.avg_pool2d.rect.qint8.zp-7": (30, NCHW),
    "F.avg_pool2d.ceilpad_nopadcount.qint8.zp-7": (17, NCHW),
    "F.adaptive_avg_pool2d.2.quint8": (2, NCHW),
    "F.adaptive_avg_pool2d.(4, 2).quint8": (7, NCHW),
    "F.adaptive_avg_pool2d.(4, 2).qint8": (4, NCHW),
    "F.interpolate.bil_size.nhwc": (1, ORDER),
    "F.upsample.bilinear": (1, ORDER),
    "hardswish.u8.0.5": (1, FMA),
    "hardswish.s8.0.03": (7, FMA),
    "ELU.u8.0.5": (3, FMA),
}
# The call that the recording made is not the one that it tells, or torch is wrong.
LEFT_OUT = {
    "F.linear.ozp_out_of_range": "a zero point of 300 is no uint8; test_errors refuses it",
}


def plain(case: Case) -> dict:
    """The inputs, with images in channels last where the case says so."""
    inputs = dict(case.inputs)
    if ".nhwc" in case.id:
        for name, value in inputs.items():
            if isinstance(value, QTensor) and value.dim() == 4:
                inputs[name] = value.contiguous(memory_format=torch.channels_last)
    return inputs


def assert_same(case: Case, found: QTensor) -> None:
    expected = case.out
    assert isinstance(found, QTensor)
    assert found.dtype == expected.dtype
    assert (found.q_scale(), found.q_zero_point()) == (expected.scale, expected.zero_point)
    assert found.shape == expected.shape
    off = (found.values.long() - expected.values.long()).abs()
    allowed = max(case.spread(), OFF_BY_ONE.get(case.id, (0, ""))[0])
    assert int(off.max() if off.numel() else 0) <= (1 if allowed else 0)
    assert int((off != 0).sum()) <= allowed


def of(*apis: str) -> list:
    """The cases of these apis that are no errors, by id."""
    found = [case for api in apis for case in cases(api, exact=True)]
    return [
        pytest.param(case, id=case.id)
        for case in found
        if case.error is None and case.id not in LEFT_OUT
    ]


@pytest.mark.parametrize("case", of("Quantize"))
def test_quantize(case):
    inputs = plain(case)
    x = inputs.pop("x")
    found = nnq.Quantize(**inputs)(x)
    # Torch wraps larger numbers round int32, and has several integers for NaN.
    ordinary = x.abs() < 2**31
    case.out.values = case.out.values[ordinary]
    assert_same(case, found[ordinary])


@pytest.mark.parametrize("case", of("DeQuantize"))
def test_dequantize(case):
    assert torch.equal(nnq.DeQuantize()(case.inputs["x"]), case.out)


FUNCTIONS = (
    *("linear", "conv1d", "conv2d", "conv3d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
    *("interpolate", "hardswish", "relu"),
)


@pytest.mark.parametrize("case", of(*(f"F.{name}" for name in FUNCTIONS)))
def test_functional(case):
    found = getattr(qF, case.api.removeprefix("F."))(**plain(case))
    if isinstance(case.out, torch.Tensor):
        assert torch.equal(found, case.out)
    else:
        assert_same(case, found)


@pytest.mark.parametrize("case", of("F.upsample", "F.upsample_bilinear", "F.upsample_nearest"))
def test_old_names_of_interpolate_warn(case):
    with pytest.warns(UserWarning, match="old name of interpolate"):
        found = getattr(qF, case.api.removeprefix("F."))(**plain(case))
    assert_same(case, found)


@pytest.mark.parametrize("case", of("ReLU6", "ELU", "Hardswish"))
def test_activation_modules(case):
    inputs = plain(case)
    x = inputs.pop("input")
    if case.id == "ELU.s32":  # recorded without its scale
        inputs = {"scale": case.out.q_scale(), "zero_point": case.out.q_zero_point()}
    inputs |= {"inplace": True} if "inplace" in case.id else {}
    module = getattr(nnq, case.api)(**inputs)
    before = copy.deepcopy(x)
    found = module(x)
    assert_same(case, found)
    assert (found.values is x.values) == ("inplace" in case.id)
    assert x.equal(before) or "inplace" in case.id


@pytest.mark.parametrize("case", of("Conv2d"))
def test_conv2d_module(case):
    inputs = plain(case)
    x, weight, bias = (inputs.pop(name) for name in ("input", "weight", "bias"))
    scale, zero_point = inputs.pop("scale"), inputs.pop("zero_point")
    module = nnq.Conv2d(*weight.shape[1::-1], tuple(weight.shape[2:]), **inputs)
    module.set_weight_bias(weight, bias)
    module.scale, module.zero_point = scale, zero_point
    assert_same(case, module(x))


@pytest.mark.parametrize("case", of("F.linear", "F.conv1d", "F.conv2d", "F.conv3d"))
def test_layers_return_what_their_functions_do(case):
    inputs = plain(case)
    x, weight, bias = (inputs.pop(name) for name in ("input", "weight", "bias"))
    name = case.api.removeprefix("F.").capitalize()
    scale = inputs.pop("scale", x.q_scale() if name == "Linear" else 1.0)
    zero_point = inputs.pop("zero_point", x.q_zero_point() if name == "Linear" else 0)
    if name == "Linear":
        module = nnq.Linear(*weight.shape[::-1], bias is not None)
    else:
        channels = weight.shape[1] * inputs.get("groups", 1)
        kernel = tuple(weight.shape[2:])
        module = getattr(nnq, name)(channels, len(weight), kernel, bias=bias is not None, **inputs)
    module.set_weight_bias(weight, bias)
    module.scale, module.zero_point = scale, zero_point
    assert_same(case, module(x))


BINARY = [f"QFunctional.{name}" for name in ("add", "add_relu", "mul", "matmul")]


@pytest.mark.parametrize("case", of(*BINARY, "QFunctional.cat"))
def test_qfunctional(case):
    inputs = plain(case)
    functional = nnq.QFunctional()
    functional.scale = inputs.pop("scale", 1.0)
    functional.zero_point = inputs.pop("zero_point", 0)
    operation = getattr(functional, case.api.removeprefix("QFunctional."))
    assert_same(case, operation(**inputs))


@pytest.mark.parametrize("case", of("QFunctional.add_scalar", "QFunctional.mul_scalar"))
def test_qfunctional_with_a_number(case):
    operation = getattr(nnq.QFunctional(), case.api.removeprefix("QFunctional."))
    assert_same(case, operation(**plain(case)))


FLOAT = [f"FloatFunctional.{name}" for name in ("add", "mul", "add_relu", "mul_scalar")]


@pytest.mark.parametrize("case", of(*FLOAT))
@pytest.mark.parametrize("kind", [nnq.FloatFunctional, nnq.FXFloatFunctional])
def test_float_functional(case, kind):
    operation = getattr(kind(), case.api.removeprefix("FloatFunctional."))
    assert torch.equal(operation(**case.inputs), case.out)


@pytest.mark.parametrize("case", of("BatchNorm2d", "BatchNorm3d"))
def test_batch_norm(case):
    inputs = case.inputs
    module = getattr(nnq, case.api)(len(inputs["mean"]), inputs["eps"])
    module.weight, module.bias = nn.Parameter(inputs["weight"]), nn.Parameter(inputs["bias"])
    module.running_mean, module.running_var = inputs["mean"], inputs["var"]
    # Of float32, as torch's buffer is.
    module.scale = torch.tensor(inputs["scale"])
    module.zero_point = torch.tensor(inputs["zero_point"])
    assert_same(case, module(inputs["input"]))


@pytest.mark.parametrize(
    "case", of("LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
)
def test_norms(case):
    inputs = plain(case)
    x = inputs.pop("input")
    if case.api == "GroupNorm":
        inputs["num_channels"] = x.shape[1]
    elif case.api != "LayerNorm":
        inputs["num_features"] = x.shape[1]
    assert_same(case, getattr(nnq, case.api)(**inputs)(x))


@pytest.mark.parametrize("case", of("F.conv2d")[:3])
@pytest.mark.parametrize("dtype", ["qint8", torch.int8])
def test_a_convolution_to_int8_is_that_to_uint8(case, dtype):
    # Torch takes the dtype and returns uint8 all the same.
    inputs = plain(case)
    inputs["zero_point"] -= 128
    found = qF.conv2d(**inputs, dtype=dtype)
    assert found.dtype == torch.int8
    assert torch.equal(found.values.short() + 128, case.out.values.short())


def test_no_exception_is_needed_without_its_case():
    ids = {case.id for case in cases("")}
    assert {*OFF_BY_ONE, *LEFT_OUT} <= ids
