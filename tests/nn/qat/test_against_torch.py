"""The same numbers and states as torch.ao's layers, while the installed torch has them."""

import copy

import pytest
import torch
from torch import nn

from lowbit import qconfig
from lowbit.nn import qat

ao = pytest.importorskip("torch.ao")
theirs = pytest.importorskip("torch.ao.nn.qat")
fused = pytest.importorskip("torch.ao.nn.intrinsic.qat")
intrinsic = pytest.importorskip("torch.ao.nn.intrinsic")
legacy = pytest.importorskip("torch.ao.quantization")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(torch, "quint8"), reason="torch has no quantized dtypes"),
]

SIZES = {1: (4, 9), 2: (4, 6, 5), 3: (4, 4, 3, 5)}


def both(kind, seed):
    """Our layer and torch.ao's, of the same float one, and the shape of an input."""
    torch.manual_seed(seed)
    engine = ("x86", "qnnpack")[seed % 2]
    mine_config = qconfig.get_default_qat_qconfig(engine, 0)
    their_config = legacy.get_default_qat_qconfig(engine, 0)
    if "Embedding" in kind:
        mine_config, their_config = (
            library.default_embedding_qat_qconfig for library in (qconfig, legacy.qconfig)
        )
        source, shape = getattr(nn, kind)(11, 8), None
    elif "Linear" in kind:
        source, shape = nn.Linear(7, 5), (7,)
    else:
        d = int(kind[-2])
        source, shape = getattr(nn, f"Conv{d}d")(4, 6, 3, padding=1, stride=1 + seed % 2), SIZES[d]
    parts = [source]
    if "Bn" in kind:
        norm = getattr(nn, f"BatchNorm{kind[-2]}d")(parts[0].weight.shape[0])
        nn.init.uniform_(norm.weight, 0.5, 2)
        parts.append(norm)
    if "ReLU" in kind:
        parts.append(nn.ReLU())
    parts_of_theirs = copy.deepcopy(parts)
    mine = nn.Sequential(*parts) if len(parts) > 1 else parts[0]
    if len(parts) > 1:
        other = getattr(intrinsic, kind)(*parts_of_theirs)
        layer = getattr(fused, kind)
    else:
        other, layer = parts_of_theirs[0], getattr(theirs, kind)
    mine.qconfig, other.qconfig = mine_config, their_config
    if len(parts) > 1:
        other[0].qconfig = their_config  # where torch.ao looks for it, with ReLU
    return getattr(qat, kind).from_float(mine), layer.from_float(other), shape


KINDS = ["Linear", "Conv1d", "Conv2d", "Conv3d", "LinearReLU", "LinearBn1d"]
KINDS += [f"{kind}{d}d" for kind in ("ConvReLU", "ConvBn", "ConvBnReLU") for d in (1, 2, 3)]
KINDS += ["Embedding", "EmbeddingBag"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_gradients_and_states(kind, seed):
    mine, other, shape = both(kind, seed)
    for _ in range(3):
        x = torch.randint(11, (4, 3)) if shape is None else torch.randn(4, *shape)
        a, b = x.clone(), x.clone()
        if shape is not None:
            a.requires_grad_()
            b.requires_grad_()
        y, z = mine(a), other(b)
        assert torch.equal(y, z)
        gradient = torch.randn_like(y)
        y.backward(gradient)
        z.backward(gradient)
        if shape is not None:
            assert torch.equal(a.grad, b.grad)
    for (name, p), (their_name, q) in zip(
        mine.named_parameters(), other.named_parameters(), strict=True
    ):
        assert name == their_name
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad)
    ours_state, their_state = mine.state_dict(), other.state_dict()
    assert ours_state.keys() == their_state.keys()
    fresh, _, _ = both(kind, seed)
    fresh.load_state_dict(their_state)
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, their_state[key])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "Embedding" not in kind])
def test_to_float(kind):
    mine, other, shape = both(kind, 0)
    x = torch.randn(4, *shape)
    mine(x)
    other(x)
    torch.testing.assert_close(mine.eval().to_float()(x), other.eval().to_float()(x))
