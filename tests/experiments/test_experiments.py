"""Every experiment composes, and trains two batches on images of the right shape."""

import inspect
import json
import re

import pytest
import torch
from hydra.utils import get_class
from omegaconf import ListConfig

from experiments import _packed
from experiments._app import CONFIGS
from experiments.train import train

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
QUANTIZERS = sorted(path.stem for path in (CONFIGS / "quantizer").glob("*.yaml"))
SHAPES = {"digits": (1, 8, 10), "mnist": (1, 28, 10), "fashion_mnist": (1, 28, 10)}
SHAPES |= {"mnist1d": (40, 1, 10)}
# ImageNet's at a size that a test has time for.
SHAPES |= {"cifar10": (3, 32, 10), "cifar100": (3, 32, 100)}
SHAPES |= dict.fromkeys(("imagenet", "imagenet_lighting"), (3, 64, 1000))


def synthetic(experiment: str) -> list[str]:
    """Overrides for synthetic images of the shape of the experiment's own data."""
    text = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()
    data = re.search(r"override /data: (\w+)", text)
    parent = re.search(r"^  - (\w+)$", text, re.MULTILINE)
    if data is None and parent is not None:
        return synthetic(parent.group(1))
    assert data is not None
    channels, side, classes = SHAPES[data.group(1)]
    return [
        "data=synthetic",
        f"data.in_channels={channels}",
        f"data.image_size={side}",
        f"data.num_classes={classes}",
        "data.train_size=24",
        "data.val_size=8",
        "data.test_size=8",
        "data.batch_size=8",
    ]


# Small sizes, where a network has them; of the widths, what groups and shares allow.
SMALL = {"width": 8, "features": 32, "growth": 8, "multiplier": 0.25}
WIDTHS = {"NIN": 12, "MeliusNet": 16}


def narrow(model):
    """Make a network small: the tests are of the configuration."""
    small = SMALL | {"width": WIDTHS.get(model._target_.rpartition(".")[2], 8)}
    model.update({key: size for key, size in small.items() if key in model})
    for name in ("hidden", "channels"):
        sizes = model.get(name)
        if isinstance(sizes, ListConfig) and max(sizes) >= 256:
            # Airbench's do not shrink from the 24 of its stem.
            least = 24 if model._target_.endswith("Airbench") else 1
            model[name] = [max(size // 8, least) for size in sizes]


def quick(cfg):
    """Change a configuration to what a test has time for."""
    narrow(cfg.model)
    if cfg.data.get("whiten") is not None:
        cfg.data.image_size = 8  # a covariance of few pixels
    if cfg.data.image_size == 64 and "AlexNet" not in cfg.model._target_:
        cfg.data.image_size = 32
    for stage in (cfg.stages or {}).values():
        if "trainer" in stage:
            stage.trainer.max_epochs = 1
    if cfg.recipe.get("teacher") is not None:
        cfg.recipe.teacher.weights = None  # an untrained one
    if cfg.callbacks.get("curves") is not None:
        cfg.callbacks.curves = None  # pictures
    return cfg


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_two_batches(experiment, config, tmp_path, monkeypatch):
    monkeypatch.setattr(_packed, "AT_THE_END", (0.0, 3.0))  # the answers count here, not the time
    words = [f"experiment={experiment}", *synthetic(experiment), "debug=quick", "logger=none"]
    cfg = quick(config(*words))
    metrics = train(cfg)
    assert 0 <= metrics["test/accuracy"] <= 1
    assert torch.isfinite(torch.tensor(list(metrics.values()))).all()
    folders = [tmp_path / "run" / stage for stage in (cfg.stages or [""])]
    assert all((folder / "checkpoints" / "best.ckpt").is_file() for folder in folders)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["epochs"] == 1
    assert ("int8" in result) == (cfg.int8 is not None)
    if cfg.int8 is not None:
        assert result["int8"]["test_images"] == 8, result["int8"].get("error")
    if cfg.packed:
        packed = result["packed"]
        # Networks whose inputs are real, or that are this small, do not pack, and say why.
        assert packed.get("differing") == 0 or "pack" in packed["why"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_opens_with_paper_command_figure_and_time(experiment):
    head = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()
    for word in ("paper", "command", "published", "time"):
        assert re.search(rf"^# {word} ", head, re.MULTILINE), f"no {word}"
    assert len(head.splitlines()) <= 30


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_its_own_data_take_what_an_experiment_says_of_them(experiment, config):
    data = config(f"experiment={experiment}").data
    assert "Synthetic" not in data._target_
    taken = {
        name
        for base in get_class(data._target_).__mro__
        for name in inspect.signature(base.__init__).parameters
    }
    assert not set(data) - {"_target_"} - taken


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_says_of_which_epoch_its_published_figure_is(experiment, config):
    published = config(f"experiment={experiment}").published
    head = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()
    if published is not None:
        line = re.search(r"^# published .*(\n#   .*)*", head, re.MULTILINE)
        assert line is not None
        assert re.search(r"epoch|validation", line.group()), line.group()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_quantizer_preset_trains(quantizer, tiny):
    metrics = tiny(f"quantizer={quantizer}", "debug=quick")
    assert torch.isfinite(torch.tensor(metrics["test/loss"]))


@pytest.mark.parametrize(
    "scheduler", ["none", "cosine", "exponential", "inverse", "linear", "step", "multistep"]
)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "bop"])
def test_every_optimizer_and_scheduler_makes_a_recipe(optimizer, scheduler, tiny_config):
    from experiments import _build

    _build.check(tiny_config(f"optimizer={optimizer}", f"scheduler={scheduler}"))


def test_an_experiments_values_win_over_those_of_train_yaml(config):
    assert config("experiment=xnor_lenet_mnist").published.value == 0.9923
    assert config("experiment=lenet_mnist_float").quantizer.input is None
    assert (
        config("experiment=lenet_mnist_float").model
        == config("experiment=lenet_mnist_binary").model
    )


def test_a_mapping_on_the_command_line_replaces_a_presets_quantizer(config):
    from experiments import _build

    cfg = config("quantizer=lsq", "quantizer.weight={name:swish_sign,beta:10}")
    assert _build.quantization(cfg)["weight_quantization"] == {"name": "swish_sign", "beta": 10}
    assert _build.quantization(cfg)["input_quantization"]["bits"] == 4


def test_a_new_quantizer_trains_by_its_name(tiny):
    import lowbit
    from lowbit.quantizers._registry import quantizers

    @lowbit.quantizers.register("test_only_sign")
    class TestOnlySign(lowbit.quantizers.SignQuantizer):
        """Sign, for this test."""

        def slope(self, x):
            return torch.ones_like(x)

    try:
        assert "test/accuracy" in tiny("quantizer.input=test_only_sign", "debug=quick")
    finally:
        del quantizers._classes["test_only_sign"]
        del quantizers._aliases["testonlysign"]


@pytest.mark.parametrize("model", ["mlp", "vgg_small"])
def test_another_network_takes_the_place_of_an_experiment_s(model, config, tmp_path):
    """What belongs to a network stands in its own file, so that a name replaces all of it."""
    cfg = config(f"model={model}", "debug=quick", "logger=none")
    narrow(cfg.model)
    metrics = train(cfg)
    assert "test/accuracy" in metrics
