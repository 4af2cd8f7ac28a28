"""``import lowbit``: cheap, silent, and without effect outside lowbit."""

import json
import subprocess
import sys

import pytest

# Packages that belong to experiments and tests.
HEAVY = {
    "experiments",
    "hydra",
    "lightning",
    "matplotlib",
    "omegaconf",
    "pandas",
    "PIL",
    "pytorch_lightning",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
    "torchmetrics",
    "torchvision",
    "yaml",
}

PROGRAM = """
import json, logging, random, sys, warnings
import torch

def settings():
    return (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.get_rng_state().tolist(), random.getstate(), list(warnings.filters),
            list(logging.root.handlers), torch.get_float32_matmul_precision())

before, modules = settings(), set(sys.modules)
for stream in (sys.stdout, sys.stderr):
    print("<import>", end="", file=stream, flush=True)
import lowbit, lowbit.models
for stream in (sys.stdout, sys.stderr):
    print("</import>", end="", file=stream, flush=True)
print(json.dumps({"added": sorted(set(sys.modules) - modules), "same": settings() == before}))
"""


@pytest.fixture(scope="module")
def process() -> subprocess.CompletedProcess[str]:
    """A fresh Python that imports torch, then lowbit with its models."""
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def report(process) -> dict:
    return json.loads(process.stdout.split("</import>")[1])


def test_import_brings_in_little_but_lowbit(process):
    added = report(process)["added"]
    assert "lowbit" in added
    assert HEAVY.isdisjoint(name.split(".")[0] for name in added)
    # Time goes with modules, which can be counted without noise; torch has more than a thousand.
    assert len([name for name in added if name.split(".")[0] != "lowbit"]) <= 10, added


def test_export_is_there_without_an_import_of_its_own():
    program = (
        "import sys, lowbit; assert 'lowbit.export' not in sys.modules; "
        "print(lowbit.export.onnx.__name__, hasattr(lowbit, 'exports'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["onnx", "False"], done.stderr


def test_import_prints_nothing(process):
    for printed in (process.stdout, process.stderr):
        assert "<import></import>" in printed


def test_import_changes_no_global_setting(process):
    assert report(process)["same"]
