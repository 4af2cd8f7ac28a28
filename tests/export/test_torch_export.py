"""torch.export and AOTInductor of float, trained, packed and int8 models."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lowbit
from lowbit import kernels
from lowbit.models import RowLSTM
from lowbit.nn import QConv2d, QLinear
from lowbit.observers import disable_observer
from tests.convert._networks import SIGN, integers, shaken
from tests.models._small import FAMILIES

SHAPE = (4, 8, 10, 10)

# The headers of a small program take longer to prepare than to read; -O0 is of its glue alone.
QUICK = {
    "cpp_cache_precompile_headers": False,
    "aot_inductor.precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
needs_kernels = pytest.mark.skipif(not kernels.available(), reason="needs the compiled kernels")


class Net(nn.Module):
    """A float convolution, binary layers, a residual, and a float classifier."""

    def __init__(self, **quantization) -> None:
        super().__init__()
        self.stem = nn.Conv2d(8, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.conv = QConv2d(64, 64, 3, padding=1, bias=False, **quantization)
        self.after = nn.BatchNorm2d(64)
        self.fc = QLinear(64, 64, **quantization)
        self.last = nn.Linear(64, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x))) - 0.5
        x = self.after(self.conv(x)) + x
        return self.last(self.fc(x.mean((2, 3))))


def calibrated(model, prepare=lowbit.prepare):
    prepared = prepare(model)
    prepared(integers(SHAPE))
    return prepared.apply(disable_observer).eval()


def models():
    """A model of each kind by name."""
    trained = shaken(Net(**SIGN))
    scaled = shaken(Net(input_quantization="rsign", weight_quantization="bireal_weight"))
    return {
        "float": lambda: shaken(Net()),
        "trained": lambda: trained,
        "fake-quantized": lambda: calibrated(shaken(Net()), lowbit.prepare_qat),
        "packed": lambda: lowbit.convert(trained, keep_slower=True).model,
        "packed fast floats": lambda: (
            lowbit.convert(trained, keep_slower=True, fast_floats=True).model
        ),
        "packed scaled": lambda: lowbit.convert(scaled, keep_slower=True).model,
        "int8": lambda: lowbit.convert(calibrated(shaken(Net())), to="int8").model,
        "mixed": lambda: lowbit.convert(calibrated(trained), to="int8").model,
        "dynamic": lambda: lowbit.quantize_dynamic(shaken(Net())),
    }


KINDS = tuple(models())
# Whose operators are all compiled: int8 convolutions call oneDNN from Python.
WITHOUT_PYTHON = ("float", "trained", "fake-quantized", "packed", "packed scaled", "dynamic")


def program(model, x, dynamic=False):
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    with torch.no_grad():
        return torch.export.export(model, (x,), dynamic_shapes=shapes)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_model_gives_the_same_bits_in_any_batch_and_from_a_file(kind, tmp_path):
    model = models()[kind]()
    exported = program(model, integers(SHAPE), dynamic=True)
    torch.export.save(exported, tmp_path / "model.pt2")
    with torch.no_grad():
        for count in (4, 1, 7):
            x = integers((count, *SHAPE[1:]), seed=count)
            expected = model(x)
            assert torch.equal(exported.module()(x), expected)
        assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(x), expected)


def targets(exported):
    """The operators of an exported program."""
    return {str(n.target) for n in exported.graph.nodes if n.op == "call_function"}


def test_a_packed_layer_is_one_operator_and_weights_are_its_panels():
    exported = program(models()["packed"](), integers(SHAPE))
    assert "lowbit.bconv.default" in targets(exported)
    assert not any("prepare" in name for name in targets(exported))
    panels = [b for name, b in exported.named_buffers() if name.endswith("panel")]
    assert len(panels) == 2


def test_a_model_of_a_packed_file_is_exported_alike(tmp_path):
    model = models()["packed"]()
    loaded = lowbit.load_packed(lowbit.save_packed(model, tmp_path / "packed"))
    x = integers(SHAPE)
    assert targets(program(loaded, x)) == targets(program(model, x))
    with torch.no_grad():
        assert torch.equal(program(loaded, x).module()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "shape"), FAMILIES.values(), ids=FAMILIES)
def test_every_family_is_exported_packed(make, shape):
    model = lowbit.convert(shaken(make(**SIGN)), keep_slower=True).model
    x = integers((2, *shape))
    with torch.no_grad():
        assert torch.equal(program(model, x).module()(x), model(x))


def test_a_dynamic_lstm_is_exported():
    model = lowbit.quantize_dynamic(RowLSTM(1, 10, 8, hidden=16))
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(program(model, x).module()(x), model(x))


def compiled(model, x, folder):
    """The AOTInductor package of a model."""
    return torch._inductor.aoti_compile_and_package(
        program(model, x), package_path=str(folder / "model.pt2"), inductor_configs=QUICK
    )


PROGRAM = """
import sys
import torch
package, library, inputs, outputs = sys.argv[1:]
torch.ops.load_library(library)
model = torch._inductor.aoti_load_package(package)
torch.save(model(torch.load(inputs)), outputs)
assert not any(name.split(".")[0] == "lowbit" for name in sys.modules)
"""


def run_without_lowbit(package, x, folder):
    """The output of a package in a process that has torch and the kernels' library alone."""
    library = Path(kernels.__file__).with_name("_kernels.so")
    inputs, outputs = folder / "x.pt", folder / "y.pt"
    torch.save(x, inputs)
    command = [sys.executable, "-c", PROGRAM, package, str(library), str(inputs), str(outputs)]
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    return torch.load(outputs)


def check_compiled(kind, folder):
    model, x = models()[kind](), integers(SHAPE)
    package = compiled(model, x, folder)
    with torch.no_grad():
        expected = model(x)
        found = torch._inductor.aoti_load_package(package)(x)
    # Floats between the layers are fused, and so rounded otherwise.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    if kind in WITHOUT_PYTHON:
        assert torch.equal(run_without_lowbit(package, x, folder), found)


def run_without_python(package, x, folder):
    """The output of a package in a program of C++."""
    root = Path(torch.__file__).parent
    library = Path(kernels.__file__).with_name("_kernels.so")
    command = ["g++", "-std=c++20", "-O0", Path(__file__).with_name("run_package.cc")]
    command += [f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include"]
    command += [f"-L{root}/lib", f"-Wl,-rpath,{root}/lib", "-Wl,--no-as-needed"]
    command += ["-ltorch", "-ltorch_cpu", "-lc10", "-ldl", "-o", folder / "run_package"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    torch.save(x, folder / "x.pt")
    files = [package, library, folder / "x.pt", folder / "y.pt"]
    subprocess.run([folder / "run_package", *files], check=True, capture_output=True, text=True)
    return torch.load(folder / "y.pt")


@needs_compiler
@needs_kernels
def test_aot_inductor_compiles_a_packed_model_which_runs_without_lowbit(tmp_path):
    check_compiled("packed", tmp_path)


@pytest.mark.slow
@needs_compiler
@needs_kernels
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "packed"])
def test_aot_inductor_compiles_every_kind(kind, tmp_path):
    check_compiled(kind, tmp_path)


@pytest.mark.slow
@needs_compiler
@needs_kernels
def test_a_program_without_python_runs_a_packed_model(tmp_path):
    model, x = models()["packed"](), integers(SHAPE)
    package = compiled(model, x, tmp_path)
    found = torch._inductor.aoti_load_package(package)(x)
    assert torch.equal(run_without_python(package, x, tmp_path), found)
