"""The eager flow of torch.ao on the same model, data and qconfig: the same integers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import lowbit
from lowbit import qconfig as q
from tests.convert.int8._int8 import conv, images, sqnr, to_int8, used

ao = pytest.importorskip("torch.ao.quantization")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def legacy(model: nn.Module, qconfig: Any, fuse: list[list[str]], *inputs: Any) -> nn.Module:
    model = copy.deepcopy(model).eval()
    model.qconfig = qconfig
    if fuse:
        model = ao.fuse_modules(model, fuse)
    prepared = ao.prepare(model)
    prepared(*inputs)
    return ao.convert(prepared)


class Chain(nn.Module):
    """conv - relu - conv - relu - linear."""

    fuse: ClassVar = [["a", "relu"], ["b", "relu_again"]]

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
        self.a, self.relu = conv(3, 16), nn.ReLU()
        self.b, self.relu_again = conv(16, 16, stride=2), nn.ReLU()
        self.c = nn.Linear(16 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.a(self.quant(x)))
        x = self.relu_again(self.b(x))
        return self.dequant(self.c(x.flatten(1)))


class Residual(nn.Module):
    """What eager mode asks for: FloatFunctional for every sum and concatenation."""

    fuse: ClassVar = [["a", "norm", "relu"]]

    def __init__(self) -> None:
        super().__init__()
        functional: Callable[[], nn.Module] = torch.ao.nn.quantized.FloatFunctional
        self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
        self.a, self.norm, self.relu = conv(3, 16), nn.BatchNorm2d(16), nn.ReLU()
        self.b, self.add, self.cat = conv(16, 16, groups=4), functional(), functional()
        self.pool, self.c = nn.MaxPool2d(2), conv(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.a(self.quant(x))))
        y = self.add.add_relu(self.b(x), x)
        return self.dequant(self.c(self.pool(self.cat.cat([x, y], 1))))


QCONFIGS: dict[str, tuple[Any, Any]] = {
    "default": (ao.default_qconfig, q.default_qconfig),
    "per channel": (ao.default_per_channel_qconfig, q.default_per_channel_qconfig),
    **{
        name: (ao.get_default_qconfig(name), q.get_default_qconfig(name))
        for name in ("x86", "fbgemm", "onednn")
    },
}


@pytest.mark.parametrize("name", QCONFIGS)
def test_a_chain_gives_the_same_integers(name: str) -> None:
    """But for rounding ties, which the engines of torch.ao break in ways of their own."""
    theirs, ours = QCONFIGS[name]
    model, x = Chain().eval(), images()
    wanted = legacy(model, theirs, Chain.fuse, x)(x)
    step = wanted.unique().diff().min()
    for qconfig in (theirs, ours):
        found = to_int8(model, x, qconfig=qconfig).model(x)
        codes = ((found - wanted) / step).round()
        assert codes.abs().max() <= 1
        assert codes.count_nonzero() <= 1


@pytest.mark.parametrize("name", QCONFIGS)
def test_sums_and_concatenations_lose_no_more(name: str) -> None:
    """Less, where a sum runs inside its convolution, whose own output is not rounded."""
    theirs, ours = QCONFIGS[name]
    model, x = used(Residual()), images()
    lost = sqnr(model(x), legacy(model, theirs, Residual.fuse, x)(x))
    for qconfig in (theirs, ours):
        assert sqnr(model(x), to_int8(model, x, qconfig=qconfig).model(x)) > lost - 0.5


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_lose_no_more_than_in_torch_ao(name: str) -> None:
    models = pytest.importorskip("torchvision.models.quantization")
    model = used(getattr(models, name)(weights=None, quantize=False))
    x = images(2, size=64)
    fused = copy.deepcopy(model)
    fused.fuse_model(is_qat=False)
    wanted = model(x)
    theirs = legacy(fused, ao.get_default_qconfig("x86"), [], x)(x)
    ours = to_int8(model, x, qconfig="x86").model(x)
    assert sqnr(wanted, ours) > sqnr(wanted, theirs) - 0.5
    assert sqnr(wanted, to_int8(model, x).model(x)) > sqnr(wanted, theirs) + 3


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_dynamic_recurrent_layers(kind: type[nn.Module]) -> None:
    model = nn.Sequential(kind(20, 32, 2)).eval()
    x = torch.randn(6, 4, 20)
    wanted = model(x)[0]
    theirs = ao.quantize_dynamic(copy.deepcopy(model), {kind})(x)[0]
    ours = lowbit.quantize_dynamic(model)(x)[0]
    assert sqnr(wanted, ours) > sqnr(wanted, theirs) - 0.5


def test_dynamic_linear_layers() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
    x = torch.randn(32, 64)
    theirs = ao.quantize_dynamic(copy.deepcopy(model))(x)
    assert sqnr(model(x), lowbit.quantize_dynamic(model)(x)) > sqnr(model(x), theirs) - 0.5
