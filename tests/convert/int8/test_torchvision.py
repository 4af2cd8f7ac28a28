"""torchvision's models, untouched: every convolution and linear layer of them in int8."""

from typing import Any

import pytest
import torch

from tests.convert.int8._int8 import images, sqnr, to_int8, used

models = pytest.importorskip("torchvision.models")

# With drawn weights; what deepens a network adds its rounding. torch.ao's defaults lose 3 to 6 dB
# of these.
NETWORKS: dict[str, tuple[dict[str, Any], float]] = {
    "resnet18": ({}, 31),
    "mobilenet_v2": ({"width_mult": 0.35}, 34),
    "mobilenet_v3_small": ({}, 30),
    "squeezenet1_1": ({}, 33),
    "shufflenet_v2_x0_5": ({}, 38),
    "googlenet": ({"init_weights": False}, 36),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_torchvision(name: str) -> None:
    arguments, bound = NETWORKS[name]
    model = used(models.get_model(name, weights=None, **arguments))
    x = images(2, size=64)
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report), report
    assert report.bytes_after < 0.3 * report.bytes_before
    with torch.no_grad():
        assert sqnr(model(x), converted(x)) > bound
