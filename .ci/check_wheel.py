"""Run by .ci/run-wheel where lowbit is installed from its wheel or sdist, beside torch and
safetensors alone: compiled, whole, on the torch that is named; what its packed layers compute is
what the trained ones compute, on every instruction set; and a checkpoint becomes a packed file by
``python -m lowbit``."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

import lowbit
from lowbit import kernels
from lowbit.cli import main
from lowbit.nn import QConv2d
from lowbit.nn.packed import PackedConv2d

version = sys.argv[1]
assert torch.__version__.startswith(f"{version}."), torch.__version__
assert Path(lowbit.__file__).is_relative_to(sys.prefix), lowbit.__file__
for module in ("numpy", "rich", "hydra", "experiments", "tests", "yaml"):
    assert importlib.util.find_spec(module) is None, f"{module} is not to be installed here"

# What was installed.
distribution = metadata.distribution("lowbit")
assert distribution.version == lowbit.__version__
tags = [line for line in distribution.read_text("WHEEL").splitlines() if line.startswith("Tag: ")]
assert [tag for tag in tags if not tag.startswith("Tag: py3-none-")] == []
files = {str(file) for file in distribution.files}
info = f"lowbit-{distribution.version}.dist-info"
for file in ("licenses/LICENSE", "licenses/third_party/torch_stable/LICENSE"):
    assert f"{info}/{file}" in files, f"{file} is not in the wheel"
assert "lowbit/py.typed" in files
others = {file.split("/")[0] for file in files} - {"lowbit", info, "..", "__pycache__"}
assert not others, f"the wheel also has {others}"
assert not (Path(kernels.__file__).parent / "csrc").exists()
assert kernels.available()

# A packed forward.
layer = QConv2d(
    96, 40, 3, stride=2, padding=1, input_quantization="sign", weight_quantization="sign"
).eval()
x = torch.randn(3, 96, 13, 17)
with torch.no_grad():
    expected = layer(x)
    for isa in kernels.isas():
        os.environ["LOWBIT_ISA"] = isa
        torch.testing.assert_close(PackedConv2d.from_trained(layer)(x), expected)
del os.environ["LOWBIT_ISA"]


# The command, as it is run by a user.
def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


arguments = {"hidden": [128, 128], "input_quantization": "sign", "weight_quantization": "sign"}
model = lowbit.models.MLP(**arguments)
description = {
    "model": {"target": "lowbit.models.MLP", "arguments": arguments},
    "input": {"shape": [1, 28, 28], "mean": [0.5], "std": [0.5], "resize": 28},
}
state = {f"model.{name}": value for name, value in model.state_dict().items()}
torch.save({"state_dict": state, "lowbit": description}, "best.ckpt")
assert main(["doctor"]) == 0
found = json.loads(run("lowbit", "doctor", "--json"))
assert found["usable"]
assert found["kernels"] == "compiled"
written = json.loads(run(sys.executable, "-m", "lowbit", "convert", "best.ckpt", "--json"))
x = torch.randn(4, 1, 28, 28)
with torch.no_grad():
    packed = lowbit.load_packed(written["file"])(x)
    torch.testing.assert_close(packed, model.eval()(x))
assert main(["summary", written["file"]]) == 0
print(f"torch {torch.__version__}: packed forwards on {', '.join(kernels.isas())}; {tags[0]}")
