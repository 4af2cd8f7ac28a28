"""A training with a compiled model is the training without, step by step."""

import csv

import pytest
import torch
from torch import nn

from experiments._app import Problem
from experiments.callbacks import compiled
from experiments.recipes._matching import Watch
from lowbit.nn import QLinear
from lowbit.quantizers import Quantizer


@pytest.fixture
def modes(monkeypatch):
    """The modes that models are compiled with; the backend is eager, which has none."""
    asked, compile_ = [], nn.Module.compile

    def record(self, mode):
        asked.append(mode)
        compile_(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", record)
    return asked


@pytest.mark.parametrize(
    ("given", "mode"),
    [("true", "default"), ("max-autotune", "max-autotune")],
)
def test_compile_names_a_mode(tiny, modes, given, mode):
    tiny(f"compile={given}", "debug=quick")
    assert modes == [mode]


def test_another_word_is_refused(tiny):
    with pytest.raises(Problem, match="compile is true, false, default, reduce-overhead, max-a"):
        tiny("compile=fast")


def test_graphs_do_not_accumulate_gradients(tiny):
    with pytest.raises(Problem, match=r"accumulate_grad_batches must be 1; got 2\. Give compile"):
        tiny("compile=reduce-overhead", "trainer.accumulate_grad_batches=2")


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_compiled_training_leaves_what_one_without_leaves(tiny, modes, tmp_path):
    options = (
        "quantizer=ede", "trainer.max_epochs=2", "data.train_size=80", "recipe=classify",
        "callbacks=[default,ema,cancelled_gradients]", "packed=true",
        "quantizer.gradient_cancellation_threshold=1.0",
    )  # fmt: skip
    plain = tiny(*options, folder=tmp_path / "plain")
    done = tiny(*options, "compile=true", folder=tmp_path / "compiled")
    assert modes == ["default"]
    assert done.keys() == plain.keys()
    expected, found = last(tmp_path / "plain"), last(tmp_path / "compiled")
    assert expected.keys() == found.keys()
    torch.testing.assert_close(found, expected)
    for ours, its in zip(rows(tmp_path / "compiled"), rows(tmp_path / "plain"), strict=True):
        layers = [name for name in its if name.startswith("cancelled/")]
        assert layers
        for name in layers:  # of the first batch alone, by hooks
            assert float(ours[name]) == pytest.approx(float(its[name]), abs=1e-6)


def test_only_training_steps_are_compiled(tiny, modes, monkeypatch):
    counter = torch._dynamo.testing.CompileCounter()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile_(f, backend=counter))
    torch._dynamo.reset()
    tiny("compile=true", "trainer.max_epochs=3", "data.val_size=30", "data.test_size=20")
    assert counter.frame_count == 1


def test_a_failed_training_leaves_no_stance_behind(tiny, modes, monkeypatch):
    def fail(*args):
        raise RuntimeError("no step")

    monkeypatch.setattr(QLinear, "_op", fail)
    with pytest.raises(Exception, match="no step"):
        tiny("compile=true", "debug=quick")
    counter = torch._dynamo.testing.CompileCounter()
    torch.compile(lambda x: x + 1, backend=counter)(torch.ones(2))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("input", "ede"),
        ("weight", "libra"),
        ("weight", "recu"),
        ("input", "reste"),
        ("input", "progressive_sign"),
    ],
)
def test_progress_reaches_a_compiled_model_which_is_compiled_once(role, name):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch.manual_seed(0)
    specs = {"input_quantization": "sign", "weight_quantization": "sign"}
    specs[f"{role}_quantization"] = name
    model = nn.Sequential(nn.Linear(6, 6), QLinear(6, 4, **specs))
    x = torch.randn(5, 6)
    run = torch.compile(model, backend=counter)
    seen = []
    for fraction in (0.0, 0.4, 0.8):
        for module in model.modules():
            if isinstance(module, Quantizer):
                module.set_progress(fraction)
        gradients = []
        for call in (model, run):
            model.zero_grad()
            call(x).square().sum().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)
        seen.append(gradients[1])
    assert counter.frame_count == 1
    assert not torch.allclose(seen[0], seen[1], rtol=1e-3)
    assert not torch.allclose(seen[1], seen[2], rtol=1e-3)


def test_modes_with_graphs_begin_a_step_anew(monkeypatch):
    begun = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    module = nn.Module()
    module.model = nn.Linear(2, 2)
    for mode in compiled.MODES:
        callback = compiled.Compiled(mode)
        callback.on_train_batch_start(None, module, None, 0)
        callback.teardown(None, module, "fit")
    assert len(begun) == len(compiled.WITH_GRAPHS)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_features_of_a_compiled_student_are_seen_and_trained(backend):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    model.compile(backend=backend)
    watch = Watch(model, ("0",), "student")
    watch.start()
    for _ in range(2):
        model.zero_grad()
        model(x)
        features = watch.seen["0"]
        torch.testing.assert_close(features, x @ model[0].weight.T + model[0].bias)
        features.sum().backward()
        torch.testing.assert_close(model[0].weight.grad, x.sum(0).expand(4, 3))
