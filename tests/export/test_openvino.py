"""Models in OpenVINO: the integers of lowbit, by its own kernel for convolutions of signs."""

import random

import pytest
import torch
from torch import nn

import lowbit
from lowbit import export
from lowbit.nn import QConv2d
from lowbit.nn.packed import PackedConv2d, PackedMaxPool2d
from tests.convert import test_models
from tests.convert._networks import SIGN, Residual, integers, shaken
from tests.models._small import CHAOTIC, FAMILIES

pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")

OPTIONS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
FEW = ("binary_densenet", "reactnet18")
MODELS = {n: FAMILIES[n] for n in FAMILIES if n not in CHAOTIC}
MODELS |= {n: test_models.MODELS[n] for n in ("lenet_64", "vgg", "quicknet")}


def run(model, x: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
    """The output, and the operators that it was computed by."""
    compiled = openvino.Core().compile_model(model, "CPU", OPTIONS)
    operators = compiled.get_runtime_model().get_ops()
    kinds = [operator.get_rt_info()["layerType"].astype(str) for operator in operators]
    return torch.from_numpy(compiled([x.numpy()])[0].copy()), kinds


def binary_convolutions(kinds: list[str]) -> int:
    return kinds.count("BinaryConvolution")


def drawn(seed: int) -> tuple[QConv2d, torch.Tensor]:
    draw = random.Random(seed)
    layer = QConv2d(
        draw.choice([1, 3, 8, 16, 24, 31, 32, 40, 64, 100]),
        draw.choice([1, 8, 15, 16, 17, 40, 64]),
        (draw.randint(1, 4), draw.randint(1, 4)),
        stride=(draw.randint(1, 2), draw.randint(1, 2)),
        padding=(draw.randint(0, 2), draw.randint(0, 2)),
        dilation=draw.randint(1, 2),
        pad_value=draw.choice([-1, 0, 1]),
        bias=False,
        **SIGN,
    )
    size = (draw.randint(8, 12), draw.randint(8, 12))
    return layer.eval(), integers((draw.randint(1, 3), layer.in_channels, *size), seed)


@pytest.mark.parametrize("seed", range(24))
def test_drawn_convolutions_have_the_same_integers(seed):
    torch.manual_seed(seed)
    layer, x = drawn(seed)
    y, kinds = run(export.openvino(layer, x), x)
    assert binary_convolutions(kinds) == (layer.in_channels % 8 == 0)
    with torch.no_grad():
        assert torch.equal(y, layer(x))


def test_numbers_next_to_0_have_their_sign():
    torch.manual_seed(0)
    layer = QConv2d(32, 16, 1, bias=False, **SIGN).eval()
    numbers = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1.0, -1.0])
    x = numbers.view(1, 1, 2, 4).expand(1, 32, 2, 4).contiguous()
    y, _ = run(export.openvino(layer, x), x)
    assert torch.equal(y, layer(x).detach())


def test_bits_turned_round_and_pooled_reach_the_next_layer():
    torch.manual_seed(0)
    first = PackedConv2d.from_trained(QConv2d(40, 128, 3, padding=1, bias=False, **SIGN))
    second = PackedConv2d.from_trained(QConv2d(128, 7, 3, padding=1, pad_value=1, **SIGN))
    grouped = PackedConv2d.from_trained(QConv2d(128, 6, 3, groups=2, bias=False, **SIGN))
    thresholds = torch.stack([torch.randint(-40, 40, (128,)), torch.randint(0, 2, (128,))])
    first.set_output("bits", (), thresholds.int())
    for layer in (second, grouped):
        layer.set_packed_input()
    second.set_output("int", ())
    pool = PackedMaxPool2d(3, 2, 1, flip=torch.tensor([0x123456789ABCDEF, 0x0F0F0F0F0F0F0F0F]))
    x = integers((3, 40, 9, 9))
    for parts in ((first, second), (first, pool, second), (first, pool, grouped)):
        model = nn.Sequential(*parts)
        y, kinds = run(export.openvino(model, x), x)
        assert binary_convolutions(kinds) == (1 if grouped in parts else 2)
        assert torch.equal(y, model(x).to(y.dtype))


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_every_family_of_models_trained_and_packed(name):
    make, shape = MODELS[name]
    model = shaken(make(input_quantization="rsign", weight_quantization="bireal_weight"))
    x = integers((2, *shape))
    with torch.no_grad():
        expected = model(x)
    packed, _ = lowbit.convert(model, keep_slower=True)
    for each in (model, packed):
        y, _ = run(export.openvino(each, x), x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        best = expected.topk(2).values
        clear = best[:, 0] - best[:, 1] > 1e-4 * best.abs().amax()
        assert torch.equal(y.argmax(1)[clear], expected.argmax(1)[clear])


def test_the_file_is_read_without_lowbit_and_reshaped(tmp_path):
    model = shaken(Residual(nn.PReLU(32)))
    x = integers((2, 32, 9, 9))
    path = tmp_path / "block.xml"
    export.openvino(model, x[:1], path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["block.bin", "block.xml"]
    read = openvino.Core().read_model(path)
    assert list(read.input(0).shape) == [1, 32, 9, 9]
    read.reshape([2, 32, 9, 9])
    y, kinds = run(read, x)
    assert binary_convolutions(kinds) == 2
    with torch.no_grad():
        torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-4)
    weights = 2 * 32 * 32 * 9 // 8
    assert weights < (tmp_path / "block.bin").stat().st_size < weights + 4000


def test_what_cannot_be_written_says_why(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"ends in \.xml; got 'model\.onnx'"):
        export.openvino(nn.ReLU(), torch.zeros(1, 3), "model.onnx")
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent for model\.xml"):
        export.openvino(nn.ReLU(), torch.zeros(1, 3), tmp_path / "absent" / "model.xml")

    class Sorted(nn.Module):
        def forward(self, x):
            return torch.sort(x)[0]

    with pytest.raises(NotImplementedError, match=r"in 1 \(Sorted\): .* no operator for sort"):
        export.openvino(nn.Sequential(nn.ReLU(), Sorted()), torch.zeros(1, 3))
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ModuleNotFoundError, match="pip install openvino"):
        export.openvino(nn.ReLU(), torch.zeros(1, 3))
