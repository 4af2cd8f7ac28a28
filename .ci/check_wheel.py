"""Run by .ci/run-wheel where only the wheel is installed: compiled, on the torch that is named, and
a packed layer returns what the layer that it comes from returns, on every instruction set."""

import os
import sys
from importlib import metadata
from pathlib import Path

import torch

import lowbit
from lowbit import kernels
from lowbit.nn import QConv2d
from lowbit.nn.packed import PackedConv2d

version = sys.argv[1]
assert torch.__version__.startswith(f"{version}."), torch.__version__
assert Path(lowbit.__file__).is_relative_to(sys.prefix), lowbit.__file__
assert metadata.version("lowbit") == lowbit.__version__
assert "Tag: py3-none-" in metadata.distribution("lowbit").read_text("WHEEL")
assert not (Path(kernels.__file__).parent / "csrc").exists()
assert kernels.available()

layer = QConv2d(
    96, 40, 3, stride=2, padding=1, input_quantization="sign", weight_quantization="sign"
).eval()
x = torch.randn(3, 96, 13, 17)
with torch.no_grad():
    expected = layer(x)
    for isa in kernels.isas():
        os.environ["LOWBIT_ISA"] = isa
        torch.testing.assert_close(PackedConv2d.from_trained(layer)(x), expected)
print(f"torch {torch.__version__}: the wheel's packed convolution on {', '.join(kernels.isas())}")
