"""A group by its name beside an experiment that writes its own values of it."""

import pytest
from omegaconf import OmegaConf

from experiments import _build, _group_choice, _stages
from experiments._app import CONFIGS

KEYS = ("input", "weight", "gradient_cancellation_threshold", "gradient")
FLOAT = [f"quantizer.{key}=null" for key in KEYS]


def spelled_out(*words):
    return _group_choice.spelled_out(list(words), CONFIGS)


@pytest.mark.parametrize(
    "words",
    [
        ("quantizer=float",),
        ("experiment=lenet_mnist_binary", "quantizer=float"),  # a group of the defaults
        ("~experiment", "quantizer=float"),
        ("experiment=recu_resnet20_cifar10", "quantizer.input=sign"),
        ("experiment=recu_resnet20_cifar10",),
        ("experiment=recu_resnet20_cifar10", "quantizer=none_such"),
        ("experiment=none_such", "quantizer=float"),
    ],
)
def test_other_command_lines_stay_as_they_are(words):
    assert spelled_out(*words) == list(words)


@pytest.mark.parametrize("experiment", ["recu_resnet20_cifar10", "rbnn_resnet18_imagenet"])
def test_the_command_line_wins_over_the_experiment(experiment, config):
    words = spelled_out(f"experiment={experiment}", "quantizer=float")
    assert words == [f"experiment={experiment}", "quantizer=float", *FLOAT]
    cfg = config(*words)
    assert (cfg.quantizer.input, cfg.quantizer.weight) == (None, None)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (CONFIGS / "quantizer").glob("*.yaml"))
)
def test_every_group_is_what_it_is_without_the_experiment(name, config):
    expected = config("~experiment", f"quantizer={name}").quantizer
    words = spelled_out("experiment=siman_resnet20_cifar10", f"quantizer={name}")
    assert config(*words).quantizer == expected


def written(section):
    """As it is in the files: an interpolation is not what it says for one experiment."""
    return None if section is None else OmegaConf.to_container(section, resolve=False)


@pytest.mark.parametrize("group", ["optimizer", "scheduler"])
@pytest.mark.parametrize(
    "experiment",
    [
        "irnet_resnet20_cifar10", "bnn_binarynet_cifar10", "finn_sfc_mnist", "ttq_resnet20_cifar10",
        "bop_alexnet_imagenet", "dorefa_alexnet_imagenet", "digits_binary",
    ],
)  # fmt: skip
def test_optimizers_and_schedulers_are_what_they_are_without_the_experiment(
    experiment, group, config
):
    for name in sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")):
        chosen = f"{group}={name}"
        expected = written(config("~experiment", chosen)[group])
        found = written(config(*spelled_out(f"experiment={experiment}", chosen))[group])
        assert found == expected or (name == "none" and not found), name


@pytest.mark.parametrize("words", [["optimizer=adam", "scheduler=none"], ["scheduler=cosine"]])
def test_a_spelled_out_line_stays_as_it_is(words, config):
    once = spelled_out("experiment=bnn_binarynet_cifar10", "data=synthetic", *words)
    assert spelled_out(*once) == once
    assert len(once) > 2 + len(words)
    config(*once)


def test_a_rate_beside_another_optimizer_is_the_users(config):
    words = spelled_out("experiment=irnet_resnet20_cifar10", "optimizer=adam", "optimizer.lr=0.5")
    optimizer = config(*words).optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (0.5, 0.0)


@pytest.mark.parametrize("name", ["cosine", "none"])
def test_another_schedule_than_the_experiments_trains(name, config):
    """Its arguments were another's: milestones, or every and gamma."""
    cfg = config(*spelled_out("experiment=finn_sfc_mnist", f"scheduler={name}"))
    small = ("data.image_size=28", "data.in_channels=1", "data.train_size=128", "data.val_size=64")
    cfg.data = config("~experiment", "data=synthetic", *small).data
    _, recipe = _build.prepare(cfg)
    assert (recipe.scheduler is None) == (name == "none")


@pytest.mark.parametrize(
    ("experiment", "data", "kept"),
    [
        ("irnet_resnet20_cifar10", "cifar10", True),
        ("irnet_resnet20_cifar10", "synthetic", False),
        ("irnet_resnet20_cifar10_weights", "cifar10", True),  # of the one it begins with
        ("irnet_resnet20_cifar10_weights", "cifar100", False),
        ("xnor_lenet_fashion_mnist", "mnist", False),
    ],
)
def test_a_published_figure_is_of_its_data(experiment, data, kept):
    words = spelled_out(f"experiment={experiment}", f"data={data}")
    assert ("published=null" in words) != kept
    given = spelled_out(f"experiment={experiment}", f"data={data}", "published.value=0.5")
    assert "published=null" not in given


def test_what_is_given_beside_it_wins_over_both(config):
    words = ("quantizer.weight=siman", "experiment=recu_resnet20_cifar10", "quantizer=float")
    cfg = config(*spelled_out(*words[1:], words[0]))
    assert (cfg.quantizer.input, cfg.quantizer.weight) == (None, "siman")


def test_a_sweep_over_groups_is_refused_there(capsys):
    with pytest.raises(SystemExit, match=r"experiment=recu_\w+ writes its own quantizers; sweep"):
        spelled_out("-m", "experiment=recu_resnet20_cifar10", "quantizer=float,binary")
    words = ["-m", "experiment=lenet_mnist_binary", "quantizer=float,binary"]
    assert spelled_out(*words) == words


def test_a_sweep_over_optimizers_says_what_stays(capsys):
    words = ["-m", "experiment=lenet_mnist_binary", "optimizer=sgd,adam"]
    assert spelled_out(*words) == words
    assert "note: optimizer.lr of experiment=lenet_mnist_binary stay" in capsys.readouterr().out


@pytest.mark.parametrize(
    "experiment",
    ["ttq_resnet20_cifar10", "reactnet_imagenet", "adambnn_imagenet", "real_to_binary_imagenet"],
)
def test_debug_quick_is_quick_in_every_stage(experiment, config):
    cfg = config(*spelled_out(f"experiment={experiment}", "debug=quick"))
    stages = _stages.plan(cfg)
    assert len(stages) > 1
    for stage in stages.values():
        assert (stage.trainer.max_epochs, stage.trainer.limit_train_batches) == (1, 2)


def test_what_is_given_beside_debug_wins(config):
    own = "stages.float.trainer.max_epochs=3"
    cfg = config(*spelled_out("experiment=ttq_resnet20_cifar10", "debug=quick", own))
    assert _stages.plan(cfg)["float"].trainer.max_epochs == 3
