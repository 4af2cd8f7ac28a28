"""The sweeps over all binary quantizers, and the experiment that they are made for."""

import pytest
import torch
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments import _build
from experiments._app import CONFIGS
from experiments.results import recipe_of
from lowbit import quantizers


def binary():
    """The names of all quantizers that give two values."""
    return [name for name in quantizers.names() if quantizers.get(name).two_level]


def depends_on_the_batch(name):
    """Whether what comes out for an image is moved by the others beside it."""
    quantizer = quantizers.get(name)
    quantizer.bind(3, -3)
    generator = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(2, 3, 5, 5, generator=generator) for _ in range(3))
    quantizer(first)  # learned values start from the first batch
    quantizer.eval()
    beside = [torch.cat([first, other]) for other in (second, 3 * third + 1)]
    return not torch.equal(*(quantizer(batch)[:2] for batch in beside))


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


def names_of(specs):
    return sorted(quantizers.get(spec).name for spec in specs)


def test_the_sweep_over_weights_has_every_binary_quantizer(specs):
    assert names_of(specs("binary_weights", "weight")) == sorted(binary())


def test_the_sweep_over_inputs_has_every_binary_quantizer_of_single_images(specs):
    wanted = sorted(name for name in binary() if not depends_on_the_batch(name))
    assert names_of(specs("binary_inputs", "input")) == wanted
    assert {"sign", "rsign", "ste_heaviside"} <= set(wanted)
    assert not {"xnor", "libra", "recu"} & set(wanted)


@pytest.mark.parametrize("sweep", ["binary_inputs", "binary_weights"])
def test_the_experiment_names_its_sweeps_and_how_many_runs_they_are(sweep):
    head = (CONFIGS / "experiment" / "ablation_resnet20_cifar10.yaml").read_text()
    assert f"-m experiment=ablation_resnet20_cifar10 sweep={sweep}\n" in head
    assert f" {len(jobs(sweep))} " in head.partition("the sweeps are")[2].partition("\n")[0]


def test_a_sweeps_name_is_not_part_of_what_was_trained():
    given = ["experiment=a", "sweep=binary_inputs", "quantizer.input=sign", "seed=0"]
    assert recipe_of(given) == ["quantizer.input=sign"]
