"""``QTensor`` under torch.compile, torch.export and pytrees."""

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

import lowbit
from lowbit.qtensor import QTensor


class Inside(nn.Module):
    """Float in, QTensor out, with layers and shape functions between."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.mean = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        q = F.relu(lowbit.quantize_per_tensor(x, 0.05, 128, torch.uint8))
        q = torch.cat([self.pool(q), self.pool(q)], 1)
        q = q.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return torch.flatten(self.mean(q), 1)


class Taking(nn.Module):
    """QTensor in, float out."""

    def forward(self, q):
        return q.transpose(0, 1).dequantize() * 2


@pytest.fixture
def x():
    return torch.randn(2, 4, 8, 8)


@pytest.fixture(params=["tensor", "channels"])
def q(request):
    if request.param == "tensor":
        return lowbit.quantize_per_tensor(torch.randn(4, 3), 0.05, 128, "uint8")
    args = (torch.rand(4) + 0.1, torch.zeros(4).long(), 0, "int8")
    return lowbit.quantize_per_channel(torch.randn(4, 3), *args)


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_returns_it(x, backend):
    module = Inside()
    found = torch.compile(module, fullgraph=True, backend=backend)(x)
    assert found.equal(module(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_takes_it(q, backend):
    module = Taking()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    assert torch.equal(compiled(q), module(q))
    # Another scale and zero point are not those of the first trace.
    other = QTensor(q.values, q.scale * 3, q.zero_point + 1, q.axis)
    assert torch.equal(compiled(other), module(other))


@pytest.mark.slow
def test_the_compiled_code_has_the_same_integers(x):
    module = Inside()
    assert torch.compile(module, fullgraph=True)(x).equal(module(x))


def test_an_exported_module_returns_it_for_any_batch(x):
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Inside(), (x,), dynamic_shapes={"x": {0: batch}})
    larger = torch.cat([x, -x, x])
    assert program.module()(larger).equal(Inside()(larger))


def test_an_exported_module_takes_it_and_is_saved(q):
    program = torch.export.export(Taking(), (q,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for module in (program.module(), torch.export.load(file).module()):
        assert torch.equal(module(q), Taking()(q))


def test_its_leaves_are_tensors(q):
    leaves, spec = pytree.tree_flatten({"a": q})
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    assert len(leaves) == (1 if q.axis is None else 3)
    assert pytree.tree_unflatten(leaves, spec)["a"].equal(q)
    assert pytree.tree_map(torch.clone, q).equal(q)
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(q)[0]]
    assert paths == [".values", ".scale", ".zero_point"][: len(leaves)]
