"""Converted networks on a GPU: moved there, they give there what they gave."""

import copy

import pytest
import torch
from torch import nn

import lowbit
from lowbit.models import CNV, MLP, QuickNet, ResNet18
from lowbit.nn import QConv2d, QLinear

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIGNS = {"input_quantization": "sign", "weight_quantization": "sign"}


def integers(*shape: int) -> torch.Tensor:
    """Numbers whose float sums are exact, in whatever order they are made."""
    return torch.randint(-4, 5, shape).float()


def layers() -> nn.Module:
    """Layers whose signs do not hang on how floats are rounded."""
    torch.manual_seed(0)
    return nn.Sequential(
        QConv2d(16, 64, 3, padding=1, **SIGNS),
        nn.BatchNorm2d(64),
        QConv2d(64, 128, 3, 2, 1, bias=False, **SIGNS),
        nn.BatchNorm2d(128),
        nn.MaxPool2d(2),
        QConv2d(128, 64, 3, padding=1, groups=2, **SIGNS),
        nn.ReLU(),
        nn.Flatten(),
        QLinear(64 * 4 * 4, 10, **SIGNS),
    ).eval()


def test_layers_give_the_same_numbers_and_come_back():
    packed, _ = lowbit.convert(layers(), keep_slower=True)
    x = integers(5, 16, 16, 16)
    expected = packed(x)
    there = copy.deepcopy(packed).cuda()
    assert torch.equal(there(x.cuda()).cpu(), expected)
    back = there.cpu()
    assert torch.equal(back(x), expected)
    for name, tensor in packed.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)


def test_channels_last_half_and_a_loaded_state():
    packed, _ = lowbit.convert(layers(), keep_slower=True)
    x = integers(5, 16, 16, 16)
    expected = packed(x)
    there = copy.deepcopy(packed).cuda()
    last = x.cuda().to(memory_format=torch.channels_last)
    assert torch.equal(there(last).cpu(), expected)
    there.load_state_dict(packed.state_dict())
    assert torch.equal(there(x.cuda()).cpu(), expected)
    half = copy.deepcopy(there).half()(x.cuda().half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float().cpu(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: MLP(1, 10, 28, (256, 256), **SIGNS), (8, 1, 28, 28)),
        (lambda: CNV(**SIGNS), (4, 3, 32, 32)),
        (lambda: ResNet18(in_channels=3, num_classes=10, **SIGNS), (2, 3, 64, 64)),
        (lambda: QuickNet(**SIGNS), (2, 3, 64, 64)),
    ],
)
def test_networks_agree_with_the_trained_ones(make, shape):
    """Float layers round otherwise on a GPU, and a number near 0 may turn its sign."""
    torch.manual_seed(0)
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    packed, report = lowbit.convert(model)
    assert any(row.packed for row in report.rows)
    x = torch.randn(shape)
    model.cuda()
    packed.cuda()
    with torch.no_grad():
        expected, found = model(x.cuda()), packed(x.cuda())
    assert (found - expected).norm() <= 0.05 * expected.norm()


def test_captured_in_a_cuda_graph_and_compiled():
    packed, _ = lowbit.convert(layers(), keep_slower=True)
    packed.cuda()
    x = integers(5, 16, 16, 16).cuda()
    with torch.inference_mode():
        expected = packed(x).clone()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = packed(x)
        y.zero_()
        graph.replay()
        assert torch.equal(y, expected)
        assert torch.equal(torch.compile(packed)(x), expected)


def test_several_planes():
    torch.manual_seed(0)
    layer = QConv2d(
        64,
        64,
        3,
        padding=1,
        input_quantization={"name": "dorefa_input", "bits": 2},
        weight_quantization="sign",
    )
    packed, _ = lowbit.convert(nn.Sequential(layer, nn.ReLU()).eval(), keep_slower=True)
    x = torch.rand(3, 64, 9, 9)
    expected = packed(x)
    torch.testing.assert_close(packed.cuda()(x.cuda()).cpu(), expected, rtol=1e-6, atol=1e-6)


def test_a_model_on_a_gpu_is_packed_for_it():
    torch.manual_seed(0)
    layers = [QConv2d(64, 256, 3, padding=1, **SIGNS), QConv2d(256, 64, 3, padding=1, **SIGNS)]
    model = nn.Sequential(*layers).eval().cuda()
    packed, report = lowbit.convert(model)
    assert [row.packed for row in report.rows] == [False, True]
    assert "on cuda" in report.rows[0].why
    assert report.rows[1].kernel == "cuda"
    x = integers(2, 64, 8, 8).cuda()
    with torch.no_grad():
        assert torch.equal(packed(x), model(x))
