"""``quantizer=NAME`` beside an experiment that writes its own quantizers."""

import pytest

from experiments import _quantizer_group
from experiments._app import CONFIGS

KEYS = ("input", "weight", "gradient_cancellation_threshold", "gradient")
FLOAT = [f"quantizer.{key}=null" for key in KEYS]


def spelled_out(*words):
    return _quantizer_group.spelled_out(list(words), CONFIGS)


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


def test_what_is_given_beside_it_wins_over_both(config):
    words = ("quantizer.weight=siman", "experiment=recu_resnet20_cifar10", "quantizer=float")
    cfg = config(*spelled_out(*words[1:], words[0]))
    assert (cfg.quantizer.input, cfg.quantizer.weight) == (None, "siman")


def test_a_sweep_over_groups_is_refused_there(capsys):
    with pytest.raises(SystemExit, match=r"experiment=recu_\w+ writes its own quantizers; sweep"):
        spelled_out("-m", "experiment=recu_resnet20_cifar10", "quantizer=float,binary")
    words = ["-m", "experiment=lenet_mnist_binary", "quantizer=float,binary"]
    assert spelled_out(*words) == words
