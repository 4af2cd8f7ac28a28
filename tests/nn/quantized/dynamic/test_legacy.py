"""Drawn comparisons with torch.ao's dynamic layers, and their state dicts, while torch has them."""

import copy
import warnings

import pytest
import torch
from torch import nn

from lowbit.nn.quantized import dynamic

warnings.filterwarnings("ignore", module="torch")
legacy = pytest.importorskip("torch.ao.nn.quantized.dynamic")
quantization = pytest.importorskip("torch.ao.quantization")
pytestmark = [
    pytest.mark.skipif(
        "x86" not in torch.backends.quantized.supported_engines, reason="not the recorded engine"
    ),
    pytest.mark.filterwarnings("ignore"),
]

FLOATS = {
    "Linear": (lambda: nn.Linear(65, 33), (17, 65)),
    "Linear.one_row": (lambda: nn.Linear(300, 129), (1, 300)),
    "Linear.nobias": (lambda: nn.Linear(65, 33, bias=False), (2, 5, 65)),
    "RNNCell": (lambda: nn.RNNCell(9, 13), (5, 9)),
    "LSTMCell": (lambda: nn.LSTMCell(9, 13), (5, 9)),
    "GRUCell": (lambda: nn.GRUCell(9, 13), (5, 9)),
    "LSTM": (lambda: nn.LSTM(9, 13, 2, bidirectional=True), (7, 3, 9)),
    "GRU": (lambda: nn.GRU(9, 13, 2, batch_first=True), (3, 7, 9)),
}


def tensors(out):
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for part in out for tensor in tensors(part)]


@pytest.fixture(params=FLOATS)
def pair(request):
    """(torch.ao's dynamic layer, ours of the same float layer, an input)."""
    torch.manual_seed(len(request.param))
    make, shape = FLOATS[request.param]
    mod = make().eval()
    with torch.no_grad():  # codes of both signs, and inputs off the middle
        for parameter in mod.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = copy.deepcopy(mod)
    theirs.qconfig = quantization.default_dynamic_qconfig
    name = request.param.partition(".")[0]
    theirs = getattr(legacy, name).from_float(theirs)
    mod.qconfig = None
    return theirs, getattr(dynamic, name).from_float(mod), torch.randn(shape) + 0.3


def assert_same(theirs, ours, x):
    for a, b in zip(tensors(ours(x)), tensors(theirs(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1.5e-5)


def test_it_gives_what_torch_gives(pair):
    for shift in (0.0, -1.0, 5.0):
        theirs, ours, x = pair
        assert_same(theirs, ours, x + shift)


def test_torchs_own_qconfig_serves():
    mod = nn.Linear(8, 4)
    mod.qconfig = quantization.per_channel_dynamic_qconfig
    theirs, ours = legacy.Linear.from_float(mod), dynamic.Linear.from_float(mod)
    assert_same(theirs, ours, torch.randn(3, 8))


def test_its_state_dict_loads(pair):
    theirs, ours, x = pair
    torch.manual_seed(99)
    names = ("batch_first", "num_layers", "bidirectional")
    options = {n: getattr(ours, n) for n in names if hasattr(ours, n)}
    sizes = ours.in_features if hasattr(ours, "in_features") else ours.input_size
    outs = ours.out_features if hasattr(ours, "out_features") else ours.hidden_size
    if isinstance(ours, dynamic.Linear):
        options["bias_"] = ours.bias() is not None
    fresh = nn.Sequential(type(ours)(sizes, outs, **options))
    fresh.load_state_dict(nn.Sequential(theirs).state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(tensors(fresh[0](x)), tensors(ours(x)), strict=True)
    )


def test_a_convolutions_state_dict_loads():
    theirs = legacy.Conv2d(3, 4, 3)
    ours = dynamic.Conv2d(3, 4, 3)
    weight = torch.quantize_per_tensor(torch.randn(4, 3, 3, 3), 0.05, 0, torch.qint8)
    theirs.set_weight_bias(weight, torch.randn(4))
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight().values, weight.int_repr())
    assert torch.equal(ours.bias(), theirs.bias())


def test_state_dicts_of_before_reduce_range_take_all_8_bits():
    state = legacy.Linear(3, 4).state_dict()
    state._metadata[""]["version"] = 3
    m = dynamic.Linear(3, 4)
    assert m.reduce_range
    m.load_state_dict(state)
    assert not m.reduce_range
