"""The operators in opcheck, torch.compile and torch.export, and their errors."""

import io

import pytest
import torch
from torch import Tensor, nn

from lowbit.kernels import int8
from tests.kernels.int8._layers import KERNELS, drawn

OPERATORS = {
    "linear": "qlinear",
    "conv": "qconv",
    "conv_transpose": "qconv_transpose",
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KERNELS)
def test_opcheck(kind, seed, monkeypatch):
    operator = getattr(torch.ops.lowbit, OPERATORS[kind]).default
    calls = []

    def called(*arguments):
        calls.append(arguments)
        return torch.empty(0)

    packet = type("Packet", (), {"default": staticmethod(called)})
    with monkeypatch.context() as patched:
        patched.setattr(torch.ops.lowbit, OPERATORS[kind], packet)
        drawn(kind, seed).found()
    torch.library.opcheck(operator, calls[0])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KERNELS)
def test_fake_results_look_like_real_ones(kind, seed):
    layer = drawn(kind, seed)
    meta = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in layer.arguments.items()}
    real, fake = layer.found(), KERNELS[kind](**meta)
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


class Network(nn.Module):
    """A convolution, its residual, a transposed convolution and a linear layer, on integers."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        for name, shape in (("a", (8, 8, 3, 3)), ("b", (8, 4, 2, 2)), ("c", (10, 4))):
            weight = torch.randint(-128, 128, shape, generator=draw).to(torch.int8)
            self.register_buffer(name, weight)
        self.register_buffer("scales", torch.linspace(0.01, 0.02, 8))
        self.register_buffer("bias", torch.linspace(-1.0, 1.0, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = int8.conv(
            *(x, 0.1, 7, self.a, self.scales, None, self.bias, 1, 1),
            out_scale=30.0,
            out_zero_point=90,
            relu=True,
            residual=x,
            residual_scale=5.0,
            residual_zero_point=3,
        )
        y = int8.conv_transpose(
            y, 30.0, 90, self.b, 0.02, stride=2, out_scale=900.0, out_zero_point=128
        )
        y = y.flatten(2).amax(-1)
        return int8.linear(y, 900.0, 128, self.c, 0.1, out_dtype=torch.float32)


def images(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 8, 6, 6)).to(torch.uint8)


def test_compile_without_breaks():
    network, x = Network(), images(2)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), network(x))


def test_export_with_any_batch_and_back_from_a_file():
    network, batch = Network(), torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (images(3),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for n in (2, 5):
        x = images(n)
        assert torch.equal(again(x), network(x))


def refused(kind: str, error: type[Exception], text: str, **others: object) -> None:
    layer = drawn(kind, 5).but(**others)
    for call in (layer.found, layer.expected):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("kind", KERNELS)
def test_errors_of_every_operator(kind):
    x, weight = (drawn(kind, 5).arguments[name] for name in ("x", "weight"))
    refused(kind, TypeError, "input is uint8 or int8, not torch.float32", x=x.float())
    refused(kind, TypeError, "weight is int8, not torch.uint8", weight=weight.to(torch.uint8))
    refused(kind, TypeError, "output is uint8, int8 or float32", out_dtype=torch.int32)
    refused(kind, ValueError, "scale must be positive", x_scale=0.0)
    to_uint8 = {"out_dtype": torch.uint8, "out_scale": 1.0, "out_zero_point": 0}
    refused(kind, ValueError, "scale must be positive", **to_uint8 | {"out_scale": float("nan")})
    refused(kind, ValueError, "zero point 300 is outside", **to_uint8 | {"out_zero_point": 300})
    refused(kind, ValueError, "zero point -200 is outside", x_zero_point=-200)
    refused(kind, ValueError, "scales for a weight of", w_scales=torch.ones(1000))
    refused(kind, ValueError, "zero points for a weight of", w_zero_points=torch.ones(1000).int())
    refused(kind, ValueError, r"bias of shape \(1000,\)", bias=torch.ones(1000))


def test_errors_of_shapes():
    x, weight = (drawn("linear", 5).arguments[name] for name in ("x", "weight"))
    refused("linear", ValueError, "x .*, k. and weight", x=torch.cat([x, x], -1))
    refused("linear", ValueError, "x .*, k. and weight", weight=weight[0])
    residual = torch.zeros(3, 999)
    refused("linear", ValueError, "residual of shape", residual=residual)
    refused("linear", TypeError, "residual is uint8", residual=residual.double())
    for kind in ("conv", "conv_transpose"):
        x, weight = (drawn(kind, 5).arguments[name] for name in ("x", "weight"))
        refused(kind, ValueError, "one to three spatial axes", x=x.flatten(1))
        refused(kind, ValueError, "takes a weight", weight=weight[..., None])
        refused(kind, ValueError, "channels and groups", x=x[:, :0])
        refused(kind, ValueError, "channels and groups=0", groups=0)
        refused(kind, ValueError, r"stride=\(?0,?\)? must be", stride=0)
        refused(kind, ValueError, r"padding=\(?-1,?\)? must be", padding=-1)
        refused(kind, ValueError, "padding is a number or one", padding="same")
        refused(kind, ValueError, "must be one number", dilation=[1, 1, 1, 1])
    refused("conv", ValueError, "is larger than the image", dilation=9, padding=0)
    refused("conv_transpose", ValueError, "must be less than stride", output_padding=9)
