"""``lowbit quantizers``."""

import importlib
import json
import re

import pytest

from lowbit import quantizers
from lowbit.cli import _curves
from lowbit.cli.quantizers import explained
from lowbit.quantizers._registry import quantizers as registry


def test_the_list_has_every_quantizer(run):
    ended = run("quantizers")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].split() == ["name", "bits", "for", "source"]
    first = {line.split()[0]: line.split()[1:3] for line in lines[2:] if line[0] != " "}
    assert sorted(first) == list(quantizers.names())
    assert first["approx_sign"] == ["1", "either"]
    assert first["dorefa_input"] == ["2", "input"]
    assert first["twn"] == ["2", "weight"]


@pytest.mark.parametrize(
    ("name", "role"),
    [("sign", "input"), ("lsq", "input"), ("twn", "weight"), ("dorefa_gradient", "gradient")],
)
def test_its_use_is_the_one_it_was_made_for(run, name, role):
    out = run("quantizers", name).out
    assert f'QConv2d(…, {role}_quantization="{name}")' in out
    assert re.search(
        rf"^in a clone +python -m experiments.train quantizer.{role}={name}$", out, re.M
    )


def test_json_has_the_facts_and_the_source(run):
    rows = {row["name"]: row for row in json.loads(run("quantizers", "--json").out)}
    assert rows["lsq"]["source"] == "LSQ, Esser et al. 2020, eq. 1 to 3 and section 2.2."
    one = json.loads(run("quantizers", "lsq", "--set", "bits=2", "--json").out)
    assert one["bits"] == 2
    assert one["arguments"]["signed"] is True
    assert one["learned"] == ["step"]


@pytest.mark.parametrize("name", quantizers.names())
def test_each_shows_formula_arguments_and_curve(run, name):
    ended = run("quantizers", name)
    assert ended.code == 0
    for part in ("\nvalue  ", "\nslope  ", "Source:", "#  value"):
        assert part in ended.out
    assert "``" not in ended.out


@pytest.mark.parametrize("name", quantizers.names())
def test_what_is_explained_names_every_argument(name):
    cls = registry.resolve(name)
    text = explained(cls)
    if cls.__init__.__code__.co_argcount > 1:
        assert "Arguments:" in text


def test_the_plot_in_letters_is_the_function():
    lines = _curves.in_letters(_curves.curves("ste_sign")).splitlines()
    rows = {line[:2].strip(): line[3:].ljust(_curves.COLUMNS) for line in lines[:-1]}
    middle = _curves.COLUMNS // 2
    assert set(rows["-1"][:middle]) == {"#"}
    assert set(rows["1"][middle:]) == {"#"}
    slope = rows["0"]  # 0 outside [-1, 1]
    assert {slope[0], slope[-1]} == {"."}
    assert "." not in slope[middle // 2 + 1 : -middle // 2 - 1]


@pytest.mark.parametrize("name", quantizers.names())
def test_a_curve_is_that_of_a_quantizer(name):
    drawn = _curves.curves(name)
    steps = drawn.value.diff()
    if name == "siman":  # of the magnitude: it falls on the way to 0
        steps = steps * drawn.x[1:].sign()
    assert drawn.random or bool((steps >= 0).all())


def test_curves_leave_the_random_numbers_alone():
    import torch

    before = torch.get_rng_state()
    _curves.curves("stochastic_sign")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plot_is_written(run, tmp_path):
    pytest.importorskip("matplotlib")
    ended = run("quantizers", "lsq", "--set", "bits=2", "--plot", tmp_path / "lsq.png")
    assert ended.code == 0
    assert (tmp_path / "lsq.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["lsq.png"]


def test_what_cannot_be(refused, monkeypatch, tmp_path):
    assert "did you mean 'approx_sign'?" in refused("quantizers", "aprox_sign")
    assert "bits" in refused("quantizers", "lsq", "--set", "bit=2")
    assert "key=value" in refused("quantizers", "lsq", "--set", "bits")
    assert "--plot" in refused("quantizers", "--plot", "x.png")
    pytest.importorskip("matplotlib")
    assert "x.what" in refused("quantizers", "sign", "--plot", tmp_path / "x.what")

    def missing(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    message = refused("quantizers", "sign", "--plot", tmp_path / "x.png")
    assert "pip install matplotlib" in message
