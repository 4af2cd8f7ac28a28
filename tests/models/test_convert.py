"""Every family of models, packed: what the trained model returns."""

import pytest
import torch
from torch import fx

import lowbit
from lowbit.convert._trace import trace
from tests.convert._networks import SIGN, integers, shaken
from tests.models._small import FAMILIES

every_model = pytest.mark.parametrize(("make", "shape"), FAMILIES.values(), ids=FAMILIES)


@every_model
def test_torch_fx_follows_it(make, shape):
    model = make(**SIGN).eval()
    traced = fx.GraphModule(model, trace(model, None))
    x = integers((3, *shape))
    with torch.no_grad():
        assert torch.equal(traced(x), model(x))


@every_model
def test_packed_signs_give_the_same_scores(make, shape):
    model = shaken(make(**SIGN))
    converted, report = lowbit.convert(model, keep_slower=True)
    assert report.folding == ""
    assert all(row.packed or "input is full precision" in row.why for row in report)
    assert any(row.packed for row in report)
    for images in (1, 3):
        x = integers((images, *shape))
        with torch.no_grad():
            expected, found = model(x), converted(x)
        assert torch.equal(found.argmax(1), expected.argmax(1))
        size = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * size)


@every_model
def test_packed_scaled_weights_give_the_same_scores(make, shape):
    model = shaken(make(input_quantization="rsign", weight_quantization="bireal_weight"))
    converted, _ = lowbit.convert(model, keep_slower=True)
    x = integers((3, *shape))
    with torch.no_grad():
        expected, found = model(x), converted(x)
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * size)
