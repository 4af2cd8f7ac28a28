"""Every file of configs/data makes its data module, and states its defaults truly."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

import experiments.data
from experiments.data._module import DataModule

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "data").glob("*.yaml"))
OWN = [path for path in CONFIGS if "defaults" not in OmegaConf.load(path)]
MODULES = {
    path.stem
    for path in Path(experiments.data.__file__).parent.glob("*.py")
    if not path.stem.startswith("_")
}


def options_of(cls):
    """Option -> default, over the whole line of classes: the nearest default holds."""
    found = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(DataModule) + 1]):
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                found[name] = parameter.default
    return found


def test_every_data_set_has_a_config():
    assert {path.stem for path in OWN} == MODULES


@pytest.mark.parametrize("path", sorted(set(CONFIGS) - set(OWN)), ids=lambda path: path.stem)
def test_a_variant_begins_with_a_data_set_and_changes_options_that_it_has(path):
    given = OmegaConf.to_container(OmegaConf.load(path))
    parent, itself = given.pop("defaults")
    assert (parent in MODULES, itself) == (True, "_self_")
    stated = OmegaConf.load(path.parent / f"{parent}.yaml")
    assert given
    assert all(value != stated[key] for key, value in given.items())


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_a_config_makes_its_module_and_names_every_option(path, monkeypatch):
    monkeypatch.delenv("LOWBIT_DATA", raising=False)
    config = OmegaConf.create({"seed": 3, "data": OmegaConf.load(path)})
    data = instantiate(config.data)
    assert data.seed == 3
    assert data.num_classes > 0
    assert data.in_channels in (1, 3) or data.image_size == 1  # a signal
    assert data.image_size >= 8 or data.in_channels == 40

    stated = OmegaConf.to_container(config.data, resolve=True)
    options = options_of(get_class(stated.pop("_target_")))
    assert set(stated) == set(options)
    assert {k: v for k, v in stated.items() if k != "seed"} == {
        k: v for k, v in options.items() if k != "seed"
    }
