"""A run says what it is held against: before it trains, and when it ends."""

import json

import pytest
from omegaconf import OmegaConf

from experiments import _published, _report
from experiments._app import Problem

BEST = {"value": 0.99, "selection": "best", "mark": "V1", "accept": [0.98, 1.0]}
METRICS = {"val/accuracy": 0.98, "test/accuracy": 0.985, "test/accuracy_last": 0.97}


def test_a_published_last_epoch_is_held_against_our_last():
    assert _published.gap(BEST, METRICS) == pytest.approx(-0.005)
    assert _published.gap({**BEST, "selection": "last"}, METRICS) == pytest.approx(-0.02)
    assert _published.gap(None, METRICS) is None
    assert _published.gap(BEST, {}) is None


def test_the_closing_line_has_both_figures_their_rules_and_the_band():
    line = _published.closing(BEST, METRICS)
    for words in (
        "published: 99.00 % (best epoch on the test set; read in its authors' repository)",
        "ours: 98.50 % (best by validation)",
        "gap: -0.50 points",
        "inside 98.00 to 100.00 %",
    ):
        assert words in line
    assert "OUTSIDE 98.00" in _published.closing({**BEST, "selection": "last"}, METRICS)
    # 0.9 + 0.08 is a hair below 0.98.
    assert "inside" in _published.closing(BEST, {"test/accuracy": 0.9 + 0.08 - 1e-12})
    assert _published.closing(None, METRICS) is None
    unvalidated = {"test/accuracy": 0.97, "test/accuracy_last": 0.97}
    assert "ours: 97.00 % (last epoch)" in _published.closing(BEST, unvalidated)


def test_where_nothing_is_published_ours_is_held_against_earlier_runs():
    line = _published.closing_of_our_own([0.98, 0.99], METRICS)
    assert line == "ours: 98.50 % (best by validation); inside 98.00 to 99.00 % of earlier runs"
    assert "OUTSIDE 99.00" in _published.closing_of_our_own([0.99, 1.0], METRICS)
    assert _published.closing_of_our_own(None, METRICS) is None
    accept = OmegaConf.create([0.9, 0.8])
    with pytest.raises(Problem, match=r"accept is \[lowest, highest\] accuracy"):
        _published.own_band(accept, None)
    assert _published.own_band(accept, {"value": 0.5}) is None  # its own band counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 99.0}, "an accuracy from 0 to 1"),
        ({"value": None}, "an accuracy from 0 to 1"),
        ({"selection": "test"}, "selection is one of best: "),
        ({"mark": "V9"}, "mark is one of V1: "),
        ({"accept": [1.0, 0.9]}, r"\[lowest, highest\]"),
        ({"accept": 0.9}, r"\[lowest, highest\]"),
        ({"sauce": "a paper"}, "no 'sauce'; it has value, selection, mark, source, accept"),
    ],
)
def test_a_figure_that_is_none_is_refused(change, message):
    with pytest.raises(Problem, match=message):
        _published.check(OmegaConf.create({**BEST, **change}))


def test_an_experiments_opening_is_the_head_of_its_file():
    head = _published.opening("xnor_lenet_mnist")
    assert head[0] == "XNOR-Net's binarization in LeNet (20-50-500) on MNIST."
    assert any(line.startswith("paper  ") for line in head)
    assert any(line.startswith("time  ") for line in head)
    assert _published.opening("custom") == []


def test_a_run_opens_with_what_is_changed_of_its_experiment(monkeypatch, capsys):
    cfg = OmegaConf.create({"name": "digits_binary", "seed": 0})
    changes = ["seed=0", "model=lenet", "trainer=gpu", "data=cifar10", "debug=quick"]
    for overrides, second in ((changes, "changed    data=cifar10 debug=quick model=lenet"),
                              (["seed=0"], "paper ")):  # fmt: skip
        monkeypatch.setattr(_report, "_overrides", lambda overrides=overrides: overrides)
        _report.announce(cfg)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("digits_binary, seed 0: A binary network")
        assert lines[1].startswith(second)


def test_a_run_opens_with_the_paper_and_ends_with_the_gap(config, capsys, tmp_path):
    from experiments.train import train

    train(
        config(
            "experiment=digits_binary",
            "published={value: 0.9, selection: last, mark: U}",
            "debug=quick",
            "logger=none",
            "packed=false",
            "name=digits_binary",
        )
    )
    said = capsys.readouterr().out
    assert said.index("digits_binary, seed 0: A binary network on") < said.index("test/accuracy")
    assert "time       20 s on one core" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    gap = 100 * (result["metrics"]["test/accuracy_last"] - 0.9)
    assert "published: 90.00 % (last epoch; not verified); ours: " in said
    assert f"gap: {gap:+.2f} points" in said
