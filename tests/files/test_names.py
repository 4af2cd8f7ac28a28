"""The names that packed files may have in them."""

import importlib
import pkgutil

import pytest
import torch
from torch import fx, nn

import lowbit
from lowbit.files import _classes, _functions

# What inference models are made of; the layers of training that may stay are known as well.
PACKAGES = ("convert", "models", "nn", "quantizers")
OURS = [["lowbit", name] for name in PACKAGES]


def modules(package):
    """Every module of a package, its private ones too."""
    yield package
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(info.name)


def classes():
    """Every module class of lowbit; without those that only others are derived from."""
    found = {
        value
        for name in PACKAGES
        for module in modules(importlib.import_module(f"lowbit.{name}"))
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    ours = {cls for cls in found if cls.__module__.split(".")[:2] in OURS}
    bases = {base for cls in ours for base in cls.__mro__[1:]}
    return sorted(ours - bases, key=str)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_module_of_lowbit_has_a_name_that_leads_back(cls):
    name = _classes.name_of(cls)
    assert name is not None, "give it a name in lowbit.files._classes"
    assert _classes.class_of(name) is cls


def test_names_are_public_and_of_modules():
    for name, cls in _classes.known().items():
        assert name.startswith(("torch.nn.", "lowbit."))
        assert issubclass(cls, nn.Module)
        assert "._" not in name


def test_a_graph_of_ones_own_kind_has_no_name():
    class Mine(fx.GraphModule):
        pass

    graph = fx.Graph()
    assert _classes.name_of(type(fx.GraphModule(nn.Module(), graph))) == _classes.GRAPH
    assert _classes.name_of(type(Mine(nn.Module(), graph))) is None


def test_functions_are_those_of_tensors():
    known = _functions.known()
    for name in ("torch.cat", "torch.nn.functional.pad", "operator.add", "torch.flatten"):
        assert _functions.function_name(known[name]) is not None
    assert _functions.function_name(torch.relu) == "torch.relu"
    for name in known:
        words = set(name.replace(".", "_").split("_"))
        assert words.isdisjoint({"load", "save", "file", "hub", "compile", "open", "import"}), name


def test_a_name_is_that_of_its_public_place():
    assert _classes.name_of(lowbit.nn.QConv2d) == "lowbit.nn.QConv2d"
    assert _classes.name_of(nn.Conv2d) == "torch.nn.Conv2d"
    assert _classes.name_of(lowbit.models.LeNet) == "lowbit.models.LeNet"
