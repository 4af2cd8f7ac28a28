"""ReSTE's residual networks: the activation between convolution and batch norm."""

import pytest
import torch
import torch.nn.functional as F

import lowbit
from lowbit.models import ResNet

SIGN = {"input_quantization": "reste", "weight_quantization": "reste"}


@pytest.mark.parametrize("shortcut", ["conv", "block"])
def test_the_activation_stands_before_the_batch_norm_and_not_behind_the_addition(shortcut):
    torch.manual_seed(0)
    model = ResNet(
        depth=8, width=4, order="conv_act_bn", activation="relu", shortcut=shortcut,
        downsample="pad", head="bn", **SIGN,
    )  # fmt: skip
    x = torch.randn(4, 3, 8, 8)
    model(x)  # statistics that are not 0 and 1
    model.eval()
    y = model.bn1(F.relu(model.conv1(x)))
    for name in model.names:
        (block,) = getattr(model, name)
        first = block.bn1(F.relu(block.conv1(y)))
        if shortcut == "conv":
            first = first + block.downsample(y)
        second = block.bn2(F.relu(block.conv2(first)))
        y = second + (first if shortcut == "conv" else block.downsample(y))
    expected = model.fc(model.norm(y.mean((2, 3))))
    assert torch.equal(model(x), expected)
    assert (y < 0).any()
    packed, report = lowbit.convert(model, keep_slower=True)
    assert all(row.packed for row in report)
    torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-4)
