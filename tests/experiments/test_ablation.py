"""The sweeps over all binary quantizers, and the experiment that they are made for."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments import _build
from experiments._app import CONFIGS
from experiments.results import recipe_of
from lowbit import quantizers


def binary(other):
    """The names of all quantizers to two values, but those made for the other role."""
    made = [quantizers.get(name) for name in quantizers.names()]
    return sorted(one.name for one in made if one.two_level and one.made_for != other)


def jobs(sweep):
    """The overrides of each job that a sweep's file makes."""
    params = OmegaConf.load(CONFIGS / "sweep" / f"{sweep}.yaml")
    given = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    return [job for batch in BasicSweeper.split_arguments(given, None) for job in batch]


@pytest.fixture
def specs(config):
    """``specs(sweep, role)``: what the jobs of a sweep put at inputs or weights."""

    def read(sweep, role):
        words = ["experiment=ablation_resnet20_cifar10"]
        return [
            _build.quantization(config(*words, *job))[f"{role}_quantization"] for job in jobs(sweep)
        ]

    return read


@pytest.mark.parametrize(
    ("sweep", "role", "other"),
    [("binary_inputs", "input", "weight"), ("binary_weights", "weight", "input")],
)
def test_a_sweep_has_every_binary_quantizer_of_its_role(sweep, role, other, specs):
    names = sorted(quantizers.get(spec).name for spec in specs(sweep, role))
    assert names == binary(other)
    assert {"sign", "stochastic_sign"} <= set(names)


@pytest.mark.parametrize("sweep", ["binary_inputs", "binary_weights"])
def test_the_experiment_names_its_sweeps_and_how_many_runs_they_are(sweep):
    head = (CONFIGS / "experiment" / "ablation_resnet20_cifar10.yaml").read_text()
    assert f"-m experiment=ablation_resnet20_cifar10 sweep={sweep}\n" in head
    assert f" {len(jobs(sweep))} " in head.partition("the sweeps are")[2].partition("\n")[0]


def test_a_sweeps_name_is_not_part_of_what_was_trained():
    given = ["experiment=a", "sweep=binary_inputs", "quantizer.input=sign", "seed=0"]
    assert recipe_of(given) == ["quantizer.input=sign"]
