"""The signs that a GPU makes in one pass, here by Triton's interpreter, and layers on them."""

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional.sign import sign
from lowbit.nn import QConv1d, QConv2d, QConv3d, QLinear, _fused, _gpu_signs

pytest.importorskip("triton")

ODD = (float("nan"), 0.0, -0.0, 1e-45, -1e-45, float("inf"), -float("inf"))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def odd(*shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x.view(-1)[: len(ODD)] = torch.tensor(ODD)
    return x


@pytest.fixture
def interpreted(monkeypatch):
    from triton.runtime.interpreter import InterpretedFunction

    from lowbit.nn import _sign_kernel

    kernel = InterpretedFunction(_sign_kernel.sign_kernel().fn)
    monkeypatch.setattr(_sign_kernel, "sign_kernel", lambda: kernel)


def equal(found, expected):
    assert found.dtype == expected.dtype
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def check(x, dtype, padding, value):
    expected = F.pad(sign(x), (padding[1],) * 2 + (padding[0],) * 2, value=value).to(dtype)
    found = _gpu_signs.padded_signs(x, dtype, padding, value)
    equal(found, expected)
    if x.ndim == 4:
        layout = torch.channels_last
        assert found.is_contiguous(memory_format=layout) == x.is_contiguous(memory_format=layout)


CASES = [((3, 5, 7, 6), (1, 1), -1.0), ((2, 16, 4, 4), (2, 1), 1.0), ((2, 3, 9), (0, 2), -1.0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "padding", "value"), [*CASES, ((70, 30), (0, 0), 0.0)])
def test_signs_are_those_of_the_specification(interpreted, dtype, shape, padding, value):
    x = odd(*shape).to(dtype)
    check(x, dtype, padding, value)
    check(x, torch.bfloat16, padding, value)
    if x.ndim == 4:
        check(x.to(memory_format=torch.channels_last), dtype, padding, value)


LAYERS = {
    "conv": lambda **q: QConv2d(8, 6, 3, stride=2, padding=1, **q),
    "conv with groups": lambda **q: QConv2d(8, 6, 3, padding=(2, 1), groups=2, bias=False, **q),
    "conv padded with 1": lambda **q: QConv2d(8, 6, 3, padding=1, pad_value=1, **q),
    "conv padded with 0": lambda **q: QConv2d(8, 6, 3, padding=1, pad_value=0, **q),
    "conv of one axis": lambda **q: QConv1d(8, 6, 3, padding=2, dilation=2, **q),
    "conv of three axes": lambda **q: QConv3d(8, 6, 2, padding=1, **q),
    "linear": lambda **q: QLinear(5, 6, **q),
}
QUANTIZERS = [("sign", "sign"), ("ste_sign", "magnitude_aware_sign"), ("sign", "libra")]


def run(layer, x, half):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        y = layer(x)
    torch.manual_seed(1)
    (y.float() * torch.randn_like(y, dtype=torch.float32)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


def layers_agree(name, quantizers, half, device):
    torch.manual_seed(0)
    layer = LAYERS[name](
        input_quantization=quantizers[0],
        weight_quantization=quantizers[1],
        gradient_cancellation_threshold=1.0,
    ).to(device)
    x = torch.randn({"linear": (4, 5), "conv of one axis": (2, 8, 5)}.get(name, (2, 8, 5, 4)))
    x = (x[..., None].repeat(1, 1, 1, 1, 3) if name == "conv of three axes" else x).to(device)
    layer.fused = False
    expected = run(layer, x, half)
    layer.fused = True
    for found, wanted in zip(run(layer, x, half), expected, strict=True):
        torch.testing.assert_close(
            found, wanted, rtol=0.05 if half else 1e-4, atol=0.05 if half else 1e-4
        )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("quantizers", QUANTIZERS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_them_are_the_specification(monkeypatch, interpreted, name, quantizers, half):
    calls, made = [], _gpu_signs.padded_signs
    monkeypatch.setattr(_fused, "usable", _gpu_signs.dense)
    monkeypatch.setattr(_fused, "padded_signs", lambda *a: calls.append(1) or made(*a))
    layers_agree(name, quantizers, half, "cpu")
    assert len(calls) == (2 if quantizers[1] == "libra" else 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_they_are_on_a_gpu(name, half, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert _gpu_signs.available()
    for quantizers in QUANTIZERS:
        layers_agree(name, quantizers, half, "cuda")
    for shape, padding, value in CASES:
        for dtype in DTYPES:
            check(odd(*shape).to("cuda", dtype), dtype, padding, value)
