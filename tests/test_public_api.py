"""Every public name is there, is meant, and says what it is."""

import importlib
import inspect

import pytest

PACKAGES = [
    "lowbit",
    "lowbit.cli",
    "lowbit.convert",
    "lowbit.export",
    "lowbit.files",
    "lowbit.functional",
    "lowbit.functional.int8",
    "lowbit.kernels",
    "lowbit.kernels.int8",
    "lowbit.models",
    "lowbit.nn",
    "lowbit.nn.packed",
    "lowbit.nn.qat",
    "lowbit.nn.quantized",
    "lowbit.nn.quantized.dynamic",
    "lowbit.nn.quantized.functional",
    "lowbit.observers",
    "lowbit.optim",
    "lowbit.qconfig",
    "lowbit.qtensor",
    "lowbit.quantizers",
    "lowbit.summary",
]
PUBLIC = [
    (package, name) for package in PACKAGES for name in importlib.import_module(package).__all__
]
ids = [".".join(pair) for pair in PUBLIC]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_names_once_and_has_a_docstring(package):
    module = importlib.import_module(package)
    assert len(module.__all__) == len(set(module.__all__)) > 0
    assert module.__doc__


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=ids)
def test_a_public_name_is_one_of_ours(package, name):
    value = getattr(importlib.import_module(package), name)
    if inspect.ismodule(value):
        assert value.__name__ in PACKAGES, f"{package}.{name} is a module that leaked"
    elif inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__.startswith("lowbit."), value.__module__


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=ids)
def test_a_public_class_function_or_package_says_what_it_is(package, name):
    value = getattr(importlib.import_module(package), name)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        assert value.__doc__, "no docstring of its own"
