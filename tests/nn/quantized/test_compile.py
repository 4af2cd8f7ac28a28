"""Quantized modules under torch.compile and torch.export."""

import pytest
import torch

from lowbit.nn import quantized as nnq
from lowbit.qtensor import QTensor
from tests.nn.quantized._models import activation, normal, residual_net, weighted


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_compiled_model_is_one_graph_and_returns_the_same(backend):
    torch._dynamo.reset()
    model, x = residual_net(), normal(2, 3, 8, 8)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert torch.equal(compiled(x), model(x))
    assert torch.equal(compiled(-x), model(-x))


def test_an_exported_model_takes_any_batch_and_returns_the_same():
    model, x = residual_net(), normal(2, 3, 8, 8)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (x,), dynamic_shapes={"x": {0: batch}}).module()
    for n in (1, 2, 5):
        x = normal(n, 3, 8, 8, seed=n)
        assert torch.equal(exported(x), model(x))


def test_an_exported_model_saves_and_loads(tmp_path):
    model, x = residual_net(), normal(2, 3, 8, 8)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(x), model(x))


def test_a_compiled_layer_takes_and_returns_a_qtensor():
    torch._dynamo.reset()
    layer, x = weighted(nnq.Conv2d(4, 5, 3)), activation(2, 4, 6, 6)
    found = torch.compile(layer, fullgraph=True, backend="eager")(x)
    assert found.equal(layer(x))


def test_a_compiled_embedding_looks_up_the_same():
    torch._dynamo.reset()
    for layer in (nnq.Embedding(7, 4), nnq.EmbeddingBag(7, 4, mode="mean")):
        codes = torch.randint(0, 256, (7, 4), dtype=torch.uint8)
        layer.set_weight(QTensor(codes, 0.1 + torch.arange(7), torch.arange(7) + 0.5, 0))
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        indices = torch.tensor([[0, 6], [3, 3]])
        assert torch.equal(compiled(indices), layer(indices))
