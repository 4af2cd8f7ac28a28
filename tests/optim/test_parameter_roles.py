"""Which part each parameter plays."""

import pytest
from torch import nn

from lowbit.nn import QConv2d, QEmbedding, QLinear, RPReLU
from lowbit.optim import roles


def names(model: nn.Module) -> dict[str, list[str]]:
    return {role: [name for name, _ in members] for role, members in roles(model).items()}


def test_each_parameter_has_the_role_of_its_module():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        QConv2d(4, 4, 3, input_quantization="sign", weight_quantization="sign"),
        RPReLU(4),
        QConv2d(4, 4, 3, input_quantization="lsq", weight_quantization="lsq", bias=False),
        QLinear(4, 2, input_quantization="sign", bias=False),
    )
    assert names(model) == {
        "latent": ["2.weight", "4.weight"],
        "quantizer": ["4.input_quantization.step", "4.weight_quantization.step"],
        "normalisation": ["1.weight", "1.bias"],
        "rest": ["0.weight", "0.bias", "2.bias", "3.gamma", "3.beta", "3.zeta", "5.weight"],
    }


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.RMSNorm(4),
    ],
)
def test_every_normalisation_is_one(layer):
    assert len(roles(layer)["normalisation"]) == len(list(layer.parameters())) > 0


def test_a_shared_weight_is_counted_once_and_is_latent_where_one_layer_has_it_so():
    embedding = nn.Embedding(5, 4)
    head = QLinear(4, 5, weight_quantization="sign", bias=False)
    head.weight = embedding.weight
    assert names(nn.Sequential(embedding, head)) == {
        "latent": ["0.weight"],
        "quantizer": [],
        "normalisation": [],
        "rest": [],
    }


def test_an_embedding_with_a_weight_quantizer_is_latent():
    assert names(QEmbedding(5, 4, weight_quantization="sign"))["latent"] == ["weight"]
