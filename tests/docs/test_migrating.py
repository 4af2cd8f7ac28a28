"""The guide from torch.ao is run as it is written, and both of its sides are compared."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import lowbit
from lowbit.qtensor import from_torch_quantized

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrating_from_torch_ao.md"
BLOCK = re.compile(r"^```python(?P<side>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
TEXT = PAGE.read_text(encoding="utf-8")


def has_legacy() -> bool:
    try:
        import torch.ao.nn.quantized
        import torch.ao.quantization
    except ImportError:
        return False
    return hasattr(torch, "quint8") and "x86" in torch.backends.quantized.supported_engines


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, dict]:
    """The variables after each section: of all snippets, in order, those of torch.ao if it is."""
    folder = tmp_path_factory.mktemp("docs")
    engine, legacy = torch.backends.quantized.engine, has_legacy()
    names: dict = {}
    after: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for title, text in sections().items():
            for block in BLOCK.finditer(text):
                side = block["side"].strip()
                assert side in ("", "torch.ao", "onnx")
                if side == "torch.ao" and not legacy:
                    continue
                if side == "onnx":
                    try:
                        import onnx  # noqa: F401
                    except ImportError:
                        continue
                line = TEXT[: TEXT.index(block["code"])].count("\n")
                source = "\n" * line + block["code"]
                exec(compile(source, PAGE.name, "exec"), names)
            after[title] = dict(names)
    torch.backends.quantized.engine = engine
    after["ONNX"]["folder"] = folder
    return after


pytestmark = pytest.mark.filterwarnings("ignore")
compared = pytest.mark.skipif(not has_legacy(), reason="this torch has no torch.ao to compare with")


def noise(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Signal to noise, in decibels."""
    error = (found - exact).square().mean()
    return float(10 * torch.log10(exact.square().mean() / error))


@compared
def test_tensors_have_the_same_integers(ran):
    assert ran["Names"]["new"].equal(from_torch_quantized(ran["Names"]["old"]))


@compared
def test_a_static_model_is_as_near_to_the_float_one_as_torchs(ran):
    names = ran["Static: calibrate, then convert"]
    exact = names["net"](names["images"])
    assert noise(names["new"], exact) > noise(names["old"], exact) > 20
    prepared = lowbit.prepare(names["net"], "x86")
    prepared(names["images"])
    with_x86, _ = lowbit.convert(prepared, to="int8")
    assert noise(with_x86(names["images"]), exact) > noise(names["old"], exact) - 1


def test_every_layer_of_the_static_model_is_int8(ran):
    names = ran["Static: calibrate, then convert"]
    for model in (names["int8"], names["between_stubs"]):
        kinds = {type(module).__module__ for module in model.modules()}
        assert not any(kind.startswith("torch.nn.modules.conv") for kind in kinds)
        assert not any(kind.startswith("torch.nn.modules.linear") for kind in kinds)
        assert noise(model(names["images"]), names["net"](names["images"])) > 25


@compared
def test_an_edited_model_of_torchs_converts_as_it_is(ran):
    """With torch's stubs, its FloatFunctional and its qconfig on the model."""
    names = ran["Static: calibrate, then convert"]
    model = names["Edited"]().eval()
    model.load_state_dict(names["net"].state_dict())
    model.qconfig = names["tq"].get_default_qconfig("x86")
    prepared = lowbit.prepare(model)
    prepared(names["images"])
    int8, _ = lowbit.convert(prepared, to="int8")
    exact = names["net"](names["images"])
    assert noise(int8(names["images"]), exact) > noise(names["old"], exact) - 1


@compared
def test_training_starts_from_what_torchs_does(ran):
    """One batch, the same fake quantization in both: outputs and the loss's gradients are close."""
    names = ran["Static: calibrate, then convert"]
    theirs = names["tq"]
    model = names["Edited"]()
    model.load_state_dict(names["net"].state_dict())
    model.train()
    model.qconfig = theirs.get_default_qat_qconfig("x86")
    fused = theirs.fuse_modules_qat(model, [["conv1", "bn", "relu"]])
    prepared = theirs.prepare_qat(fused)
    ours = lowbit.prepare_qat(names["net"], "x86")
    images = names["images"]
    for _ in range(3):
        old, new = prepared(images), ours(images)
    assert noise(new, old) > 20


def test_a_trained_model_converts_to_what_it_was_trained_as(ran):
    names = ran["Quantization-aware training"]
    images = names["images"]
    with torch.no_grad():
        assert noise(names["int8_qat"](images), names["trained"](images)) > 30


@compared
def test_dynamic_layers_return_what_torchs_return(ran):
    names = ran["Dynamic"]
    torch.testing.assert_close(names["new"], names["old"], rtol=2e-6, atol=2e-5)


@compared
def test_a_checkpoint_gives_the_model_that_it_was_of(ran):
    names = ran["Checkpoints"]
    assert torch.equal(names["old"], names["new"])
    assert all(not value.is_quantized for value in names["plain"].values())


def test_a_converted_model_loads_another_ones_state(ran):
    names = ran["Checkpoints"]
    images = names["images"]
    assert torch.equal(names["again"](images), names["between_stubs"](images))


def test_the_exported_model_answers_as_the_int8_one(ran):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    names = ran["ONNX"]
    session = onnxruntime.InferenceSession(names["folder"] / "net.onnx")
    images = names["images"]
    (found,) = session.run(None, {"x": images.numpy()})
    assert noise(torch.from_numpy(found), names["int8"](images)) > 40


# The table of names, and what the page says is not there.


def test_every_name_on_the_page_is_there():
    """lowbit's dotted names in code spans, outside of snippets, can be imported."""
    plain = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    names = set(re.findall(r"`(lowbit(?:\.\w+)+)", plain))
    assert len(names) > 10
    for name in names:
        found: object = lowbit
        for part in name.split(".")[1:]:
            found = getattr(found, part, None) or __import__(
                f"{getattr(found, '__name__', '')}.{part}", fromlist=[part]
            )


@compared
def test_the_page_tells_of_every_module_that_is_missing():
    import torch.ao.nn.intrinsic.qat as fused_qat
    import torch.ao.nn.intrinsic.quantized as fused
    import torch.ao.nn.qat as qat
    import torch.ao.nn.quantized as static
    import torch.ao.nn.quantized.dynamic as dynamic

    missing = []
    for theirs, ours in (
        (static, lowbit.nn.quantized),
        (fused, lowbit.nn.quantized),
        (dynamic, lowbit.nn.quantized.dynamic),
        (qat, lowbit.nn.qat),
        (fused_qat, lowbit.nn.qat),
    ):
        modules = [
            name
            for name in dir(theirs)
            if isinstance(getattr(theirs, name), type)
            and issubclass(getattr(theirs, name), nn.Module)
        ]
        missing += [name for name in modules if not hasattr(ours, name)]
    told = {"LSTM", "MultiheadAttention", "BNReLU2d", "BNReLU3d", "LinearLeakyReLU", "LinearTanh"}
    assert set(missing) == told
    (line,) = re.findall(r"^Not there:.*?\n\n", TEXT, flags=re.MULTILINE | re.DOTALL)
    for name in told:
        assert name in line.replace("BNReLU2d/3d", "BNReLU2d BNReLU3d")
