"""Fake quantization: the specification, the recorded cases, and torch's operators."""

import pytest
import torch

from lowbit.functional.int8.fake_quantize import fake_quantize, learnable_fake_quantize
from lowbit.functional.int8.quantize import dequantize, quantize
from tests.golden.cases import cases

GOLDEN = cases("fake_quantize_") + cases("_fake_quantize_learnable")


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.id)
def test_recorded(case):
    given = case.inputs
    x = given["x"].requires_grad_()
    scale, zero_point = torch.as_tensor(given["scale"]), torch.as_tensor(given["zero_point"])
    shared = (given["quant_min"], given["quant_max"], given.get("axis"))
    if "grad_factor" in given:
        scale.requires_grad_()
        zero_point.requires_grad_()
        y = learnable_fake_quantize(x, scale, zero_point, *shared, given["grad_factor"])
    else:
        y = fake_quantize(x, scale, zero_point, *shared)
    y.backward(given["grad"])
    assert torch.equal(y, case.out["y"])
    assert torch.equal(x.grad, case.out["dx"])
    if "grad_factor" in given:
        torch.testing.assert_close(scale.grad, case.out["dscale"], rtol=1e-6, atol=0)
        torch.testing.assert_close(zero_point.grad, case.out["dzero_point"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("axis", "kind"),
    [
        (None, torch.int32),
        *((axis, kind) for axis in (0, 1) for kind in (torch.int32, torch.float32)),
    ],
)
def test_torchs_operators_compute_the_same(dtype, axis, kind):
    x = (3 * torch.randn(40, 33)).to(dtype)
    gradient = torch.randn(40, 33).to(dtype)
    channels = 1 if axis is None else x.shape[axis]
    scale = 0.001 + 0.03 * torch.rand(channels)
    zero_point = 255 * torch.rand(channels)
    if kind == torch.int32:
        zero_point = zero_point.to(kind)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = fake_quantize(ours, scale, zero_point, 0, 255, axis)
    if axis is None:
        z = torch.fake_quantize_per_tensor_affine(theirs, scale, zero_point, 0, 255)
    else:
        z = torch.fake_quantize_per_channel_affine(theirs, scale, zero_point, axis, 0, 255)
    y.backward(gradient)
    z.backward(gradient)
    assert torch.equal(ours.grad, theirs.grad)
    assert 0 < (ours.grad == 0).sum() < ours.grad.numel()
    assert torch.equal(y, z)


def test_it_is_quantize_and_dequantize():
    x = torch.cat([torch.randn(1000) * 3, torch.tensor([torch.inf, -torch.inf, torch.nan, 1e30])])
    scale, zero_point = torch.tensor(0.017), torch.tensor(77)
    whole = dequantize(quantize(x, 0.017, 77, "uint8"), 0.017, 77)
    assert torch.equal(fake_quantize(x, scale, zero_point, 0, 255), whole)


def test_the_learned_gradients_are_those_of_the_formula():
    x = 2 * torch.randn(6, 50, dtype=torch.float32)
    scale = (0.05 + 0.1 * torch.rand(6)).requires_grad_()
    zero_point = (5 * torch.rand(6)).requires_grad_()
    gradient = torch.randn(6, 50)
    y = learnable_fake_quantize(x, scale, zero_point, 0, 15, 0, 0.5)
    y.backward(gradient)
    s, z = scale.detach()[:, None], zero_point.detach().round()[:, None]
    raw = torch.round(x / s) + z
    slope = torch.where(raw < 0, -z, torch.where(raw > 15, 15 - z, (y.detach() - x) / s))
    outside = (raw < 0) | (raw > 15)
    assert 0 < outside.sum() < outside.numel()
    torch.testing.assert_close(scale.grad, 0.5 * (gradient * slope).sum(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        zero_point.grad, 0.5 * (gradient * torch.where(outside, -s, 0)).sum(1)
    )


def test_it_compiles_to_one_graph():
    x = torch.randn(5, 7, requires_grad=True)
    scale, zero_point = torch.rand(7) * 0.1, torch.arange(7, dtype=torch.int32)
    compiled = torch.compile(fake_quantize, fullgraph=True, backend="aot_eager")
    y = compiled(x, scale, zero_point, 0, 15, 1)
    y.sum().backward()
    taken = x.grad.clone()
    x.grad = None
    z = fake_quantize(x, scale, zero_point, 0, 15, 1)
    z.sum().backward()
    assert torch.equal(y, z)
    assert torch.equal(taken, x.grad)
