"""Training by captured steps is the training without, step by step."""

import csv
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo.testing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

from experiments import _build
from experiments._app import Problem
from experiments.callbacks import step_graph
from experiments.recipes._metrics import MeanOverImages, TopK


class Recorded(TorchDispatchMode):
    """In place of a CUDA graph: the operations of a step, done again on the same memory.

    As in a graph, what the step does in Python is not done again, and a new tensor is new once.
    The capture has run them, so that the first replay has nothing to do.
    """

    def __init__(self, run):
        super().__init__()
        self.calls, self.first = [], True
        with self:
            run()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self):
        if self.first:
            self.first = False
            return
        with torch.no_grad():
            for function, args, kwargs, result in self.calls:
                again = function(*args, **kwargs)
                kept = set(map(id, tree_leaves((args, kwargs))))
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    alias = isinstance(old, torch.Tensor) and old.data_ptr() == new.data_ptr()
                    if isinstance(old, torch.Tensor) and id(old) not in kept and not alias:
                        old.copy_(new)


@pytest.fixture
def captures(monkeypatch):
    """Steps are captured and replayed on the processor; what was captured."""
    made = []

    def capture(run, pool):
        made.append(Recorded(run))
        return made[-1]

    monkeypatch.setattr(step_graph, "captured", capture)
    monkeypatch.setattr(step_graph, "enter_stream", lambda: None)
    monkeypatch.setattr(step_graph, "new_pool", lambda: None)
    monkeypatch.setattr(step_graph.StepGraph, "setup", lambda *args, **kwargs: None)
    return made


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def same(a, b, bound=1e-6):
    """Whether two checkpoints' parts are equal, but for a learning rate rounded to float32."""
    ours, structure = tree_flatten(a)
    its, other = tree_flatten(b)
    return structure == other and all(
        torch.allclose(x, y, rtol=bound, atol=bound) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(ours, its, strict=True)
    )


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("scheduler=multistep", "optimizer=sgd"),
        ("callbacks=[default,ema,cancelled_gradients,weight_clip]", "data.drop_last=false"),
        ("data.train_size=168", "data.drop_last=false"),  # a last batch of 8 images
        ("recipe=quantization_aware", "quantizer=int8", "recipe.freeze=0.5"),
        ("quantizer.weight=lsq", "quantizer.input=elastic_sign"),
        ("optimizer=bop", "scheduler=multistep", "quantizer.weight=sign"),
    ],
)
def test_a_graphed_training_leaves_what_one_without_leaves(tiny, captures, tmp_path, options):
    options = ("trainer.max_epochs=3", "data.train_size=160", "packed=false", *options)
    plain = tiny(*options, folder=tmp_path / "plain")
    done = tiny(*options, "cuda_graph=true", folder=tmp_path / "graphed")
    assert len(captures) >= 3
    assert done == pytest.approx(plain, rel=1e-6)
    expected, found = last(tmp_path / "plain"), last(tmp_path / "graphed")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert same(found[part], expected[part]), part
    for ours, its in zip(rows(tmp_path / "graphed"), rows(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(its, rel=1e-6)


def test_steps_that_differ_each_time_are_not_captured_which_a_warning_says(tiny, captures):
    # The rate changes at each step: a processor's plain SGD would have it in what is captured.
    options = ("trainer.max_epochs=2", "optimizer=sgd", "cuda_graph=true", "packed=false")
    with pytest.warns(UserWarning, match="none of 4 steps was replayed, since a number"):
        tiny(*options, "scheduler=cosine")
    assert not captures


def test_what_is_captured_has_been_compiled_before(tiny, captures, monkeypatch):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compile_, seen = torch.nn.Module.compile, []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda m, mode: compile_(m, backend=counter))

    def count(run, pool):  # not by operations, in whose mode nothing is compiled
        before = counter.frame_count
        run()
        seen.append(counter.frame_count - before)
        return SimpleNamespace(replay=lambda: None)

    monkeypatch.setattr(step_graph, "captured", count)
    torch._dynamo.reset()
    options = ("trainer.max_epochs=2", "compile=true", "cuda_graph=true", "packed=false")
    for more in (
        ("quantizer.weight=lsq", "quantizer.input=elastic_sign"),
        ("callbacks=[default,cancelled_gradients]", "quantizer.gradient_cancellation_threshold=1"),
        ("data.train_size=104", "data.drop_last=false"),
    ):
        tiny(*options, *more)
    assert counter.frame_count
    assert len(seen) >= 6
    assert not any(seen)


def test_the_error_of_a_step_is_the_one_that_is_told(monkeypatch):
    class Graph:
        def capture_begin(self, **options):
            pass

        def capture_end(self):
            raise RuntimeError("a previous error")

    def step():
        raise RuntimeError("the cause")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with pytest.raises(RuntimeError, match="the cause"):
        step_graph.captured(step, None)


def test_a_rate_in_memory_needs_no_new_capture(tiny, captures, tmp_path):
    options = (
        "trainer.max_epochs=2", "data.train_size=160", "optimizer=sgd",
        "+optimizer.optimizer.fused=true",
        "scheduler=cosine", "packed=false",
    )  # fmt: skip
    tiny(*options, folder=tmp_path / "plain")
    tiny(*options, "cuda_graph=true", folder=tmp_path / "graphed")
    assert len(captures) == 2
    found, expected = last(tmp_path / "graphed"), last(tmp_path / "plain")
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(found[part], expected[part]), part


def test_either_training_goes_on_as_the_other(tiny, captures, tmp_path):
    options = (
        "optimizer=sgd", "+optimizer.optimizer.fused=true", "scheduler=cosine", "packed=false",
        "trainer.max_epochs=4",
    )  # fmt: skip
    tiny(*options, folder=tmp_path / "whole")
    for first, second in (("true", "false"), ("false", "true")):
        folder = tmp_path / first
        tiny(*options, "+trainer.max_steps=8", f"cuda_graph={first}", folder=folder)
        on = tmp_path / f"{first}-on"
        resume = f"resume={folder / 'checkpoints' / 'last.ckpt'}"
        tiny(*options, f"cuda_graph={second}", resume, folder=on)
        expected = last(tmp_path / "whole")
        assert same(last(on)["state_dict"], expected["state_dict"])
        assert same(last(on)["optimizer_states"], expected["optimizer_states"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("compile=reduce-overhead",), "makes CUDA graphs of its own"),
        (("trainer.accumulate_grad_batches=2",), "accumulate_grad_batches=1 only; got 2"),
        (("recipe.mixup=0.2",), "recipe.mixup=0 only; got 0.2"),
        (("trainer.precision=16-mixed",), "bf16-mixed or 32-true"),
        (("cuda_graph=yes_please",), "cuda_graph is true or false; got 'yes_please'"),
        ((), "needs an NVIDIA GPU, and this training runs on cpu"),
    ],
)
def test_what_no_graph_can_do_is_refused(tiny, options, message):
    with pytest.raises(Problem, match=message):
        tiny("cuda_graph=true", *options)


def test_an_evaluation_needs_no_graph(tiny_config):
    cfg = tiny_config("cuda_graph=true", "trainer.precision=16-mixed")
    with pytest.raises(Problem, match="float16"):
        _build.check(cfg)
    assert not [c for c in _build.for_test(cfg).trainer.callbacks if "Graph" in type(c).__name__]


def test_several_processes_are_refused():
    trainer = SimpleNamespace(world_size=2)
    with pytest.raises(Problem, match="for one GPU, and this training has 2 processes"):
        step_graph.StepGraph().setup(trainer, None, "fit")


def test_a_failed_training_leaves_the_optimizer_as_it_was():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    step = optimizer.step
    callback = step_graph.StepGraph()
    callback._stepped, optimizer.step = (optimizer, step), None
    callback.on_exception(None, None, RuntimeError())
    callback.teardown(None, None, "fit")
    assert optimizer.step == step


def test_figures_are_counted_in_float32_in_a_model_of_less():
    module = torch.nn.Module()
    module.loss, module.accuracy = MeanOverImages(), TopK()
    module.half()
    for _ in range(2):
        for _ in range(400):
            module.loss.update(torch.tensor(2.5, dtype=torch.float16), 128)
            module.accuracy.update(torch.eye(4, dtype=torch.float16), torch.tensor([0, 1, 2, 0]))
        assert module.loss.compute() == 2.5
        assert module.accuracy.compute() == 0.75
        module.loss.reset()
        module.accuracy.reset()


def test_the_k_highest_scores_count():
    metric = TopK(2)
    metric.update(torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]]), torch.tensor([1, 1]))
    assert metric.compute() == 0.5


def test_the_mean_of_a_loss_weighs_by_images_and_shows_what_is_not_finite():
    metric = MeanOverImages()
    metric.update(torch.tensor(1.0), 3)
    metric.update(torch.tensor(5.0), 1)
    assert metric.compute() == 2
    metric.update(torch.tensor(float("nan")), 1)
    assert metric.compute().isnan()


def on_gpu(test):
    no_gpu = not torch.cuda.is_available()
    return pytest.mark.gpu(pytest.mark.skipif(no_gpu, reason="needs a CUDA device")(test))


@on_gpu
@pytest.mark.parametrize(
    "options",
    [
        ("optimizer=sgd",),
        ("optimizer=adam", "scheduler=cosine"),
        ("optimizer=sgd", "compile=true"),
        ("optimizer=sgd", "trainer.precision=bf16-mixed"),
        ("optimizer=adam", "callbacks=[default,ema,weight_clip,cancelled_gradients]"),
        ("data.train_size=168", "data.drop_last=false"),
        ("optimizer=sgd", "compile=true", "quantizer.weight=lsq"),
    ],
)
def test_on_a_gpu_a_graphed_training_is_the_one_without(tiny, tmp_path, options):
    options = (
        "trainer=gpu", "trainer.max_epochs=3", "data.train_size=160", "packed=false", *options,
    )  # fmt: skip
    tiny(*options, folder=tmp_path / "plain")
    tiny(*options, "cuda_graph=true", folder=tmp_path / "graphed")
    for ours, its in zip(rows(tmp_path / "graphed"), rows(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(its, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(
        last(tmp_path / "graphed")["state_dict"], last(tmp_path / "plain")["state_dict"],
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


CAPTURED = (
    "irnet_resnet20_cifar10", "siman_resnet20_cifar10", "adabin_resnet20_cifar10",
    "recu_resnet20_cifar10", "reste_resnet20_cifar10", "rbnn_resnet20_cifar10",
    "dorefa_resnet20_cifar10", "pact_resnet20_cifar10", "apot_resnet20_cifar10_4bit",
    "larq_binarynet_cifar10", "bop_binarynet_cifar10", "binary_airbench_cifar10",
    "finn_cnv_cifar10_short", "xnor_nin_cifar10", "irnet_vgg_cifar10", "lq_vgg_cifar10",
)  # fmt: skip


@on_gpu
@pytest.mark.parametrize("experiment", CAPTURED)
def test_on_a_gpu_recipes_are_captured(config, tmp_path, experiment):
    from experiments.train import train

    options = (
        f"experiment={experiment}", "data=synthetic", "data.train_size=160", "data.val_size=32",
        "data.test_size=32", "data.batch_size=16", "data.augment=true", "trainer=gpu",
        "logger=none", "packed=false", "trainer.max_epochs=2", "published=null",
    )  # fmt: skip
    found = []
    for graph in ("false", "true"):
        folder = tmp_path / graph
        train(config(*options, f"cuda_graph={graph}", folder=folder))
        found.append(rows(folder)[0]["train/loss"])
    # Signs turn with a rounding, whose order differs from run to run.
    assert found[1] == pytest.approx(found[0], rel=0.1)
