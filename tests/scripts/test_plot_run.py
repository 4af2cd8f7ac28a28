"""scripts/plot_run.py: runs are grouped, averaged, drawn and refused as it says."""

import csv
import json
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import plot_run


def run(folder, seed=0, overrides=(), accuracies=(0.5, 0.75), test=0.6, ended=True):
    """The folder of a run, as training leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    words = [*overrides, f"seed={seed}"]
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    choices = "hydra: {runtime: {choices: {experiment: example}}}"
    (folder / ".hydra" / "hydra.yaml").write_text(choices)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "val/accuracy", "train/loss"])
        writer.writeheader()
        for epoch, accuracy in enumerate(accuracies):
            row = {"epoch": epoch, "step": epoch, "val/accuracy": accuracy, "train/loss": ""}
            writer.writerow(row)
    if ended:
        metrics = {"test/accuracy": test, "test/accuracy_last": test - 0.1}
        result = {"experiment": "example", "overrides": words, "seed": seed, "metrics": metrics}
        (folder / "result.json").write_text(json.dumps({**result, "seconds": 10.0}))
    return folder


def plot(monkeypatch, capsys, *arguments):
    """What the command says."""
    monkeypatch.setattr(sys, "argv", ["plot_run.py", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "160")
    plot_run.main()
    return capsys.readouterr().out


def cells(said):
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    return [line for line in lines if line]


def test_runs_that_differ_in_the_seed_alone_are_one_curve(tmp_path, monkeypatch, capsys):
    for seed, test in enumerate((0.5, 0.6)):
        run(tmp_path / f"sign{seed}", seed, ["quantizer.input=sign"], test=test)
    run(tmp_path / "reste", 0, ["quantizer.input=reste", "callbacks.pictures.every=1"])
    output = tmp_path / "new" / "picture.png"
    said = plot(monkeypatch, capsys, tmp_path, "--output", output)
    # The standard deviation of 0.5 and 0.6 is 0.0707.
    assert sorted(cells(said)) == [
        ["quantizer.input=reste", "1", "2", "75.00 %", "60.00 %", "50.00 %", "10.0"],
        ["quantizer.input=sign", "2", "2", "75.00 ± 0.00 %", "55.00 ± 7.07 %", "45.00 ± 7.07 %",
         "10.0"],
    ]  # fmt: skip
    assert imread(output).min() < 0.9
    assert not list(tmp_path.rglob(".*.*"))


def test_a_run_that_trains_is_drawn_as_far_as_it_is(tmp_path, monkeypatch, capsys):
    run(tmp_path / "a", 0, accuracies=(0.5, 0.75, 0.7))
    run(tmp_path / "b", 1, accuracies=(0.4,), ended=False)
    said = plot(monkeypatch, capsys, tmp_path / "a", tmp_path / "b", "--output", tmp_path / "x.png")
    (row,) = cells(said)
    assert row[:3] == ["example", "2 (1 ended)", "1 to 3"]
    assert row[4] == "60.00 %"


def test_the_picture_has_a_band_and_a_legend(tmp_path):
    for seed, accuracies in enumerate(((0.5, 0.7), (0.7, 0.9))):
        run(tmp_path / str(seed), seed, ["optimizer.lr=1"], accuracies)
    groups = plot_run.grouped([plot_run.read(f) for f in plot_run.folders([tmp_path])])
    curves = {label: [r.rows for r in runs] for label, runs in groups.items()}
    figure = plot_run._learning_curves.compared(curves, "title")
    _, accuracy = figure.axes
    assert accuracy.lines[0].get_xdata().tolist() == [1, 2]
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([60, 80])
    (band,) = accuracy.collections
    low, high = (f(band.get_paths()[0].vertices[:, 1]) for f in (min, max))
    assert (low, high) == pytest.approx((60 - 200**0.5, 80 + 200**0.5))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "example (n = 2)",
        "validation",
    ]


def test_labels_are_what_differs(tmp_path):
    run(tmp_path / "a", 0, ["model=mlp", "optimizer.lr=1"])
    run(tmp_path / "b", 0, ["model=mlp", "optimizer.lr=2"])
    run(tmp_path / "c", 0, ["model=mlp"])
    groups = plot_run.grouped([plot_run.read(f) for f in plot_run.folders([tmp_path])])
    assert sorted(groups) == ["as it is", "optimizer.lr=1", "optimizer.lr=2"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_stage_is_a_recipe_of_its_own(tmp_path, monkeypatch, capsys, ended):
    for seed in (0, 1):
        whole = run(tmp_path / f"run{seed}", seed, ["stages=two_step"], ended=ended)
        (whole / "metrics.csv").unlink()
        for stage, test in (("activations", 0.7), ("both", 0.6)):
            folder = run(whole / stage, seed, ["stages=two_step"], test=test, ended=ended)
            (folder / ".hydra" / "hydra.yaml").unlink()
            if ended:
                (folder / "result.json").rename(folder / "stage.json")
    said = plot(monkeypatch, capsys, tmp_path, "--output", tmp_path / "x.png")
    rows = sorted(cells(said))
    assert [row[0] for row in rows] == ["stage activations", "stage both"]
    assert [row[1] for row in rows] == ["2" if ended else "2 (0 ended)"] * 2
    tests = [row[4] for row in rows]
    assert tests == (["70.00 ± 0.00 %", "60.00 ± 0.00 %"] if ended else ["", ""])
    runs = [plot_run.read(folder) for folder in plot_run.folders([tmp_path])]
    assert {run.recipe[:2] for run in runs} == {("example", "stages=two_step")}


def test_a_run_that_failed_is_left_out_with_a_note(tmp_path, monkeypatch, capsys):
    (tmp_path / "failed" / ".hydra").mkdir(parents=True)
    named = [tmp_path / "failed", run(tmp_path / "a")]
    said = plot(monkeypatch, capsys, *named, "--output", tmp_path / "x.png")
    (row,) = cells(said)
    assert row[:2] == ["example", "1"]
    with pytest.raises(ValueError, match=r"absent: no metrics\.csv"):
        plot_run.folders([*named, tmp_path / "absent"])
    assert f"note: {named[0]} left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "so it is not the folder of a run"),
        ("", "no rows with an epoch"),
        ("epoch,val/loss\n0,nonsense\n", "could not convert"),
        ("a\n1,2,3\n", "is damaged"),
    ],
)
def test_what_is_no_run_ends_in_one_message(tmp_path, text, message, monkeypatch, capsys):
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(SystemExit):
        plot(monkeypatch, capsys, tmp_path)
    said = capsys.readouterr().err
    assert message in said
    assert str(tmp_path) in said


def test_an_unknown_format_ends_in_one_message(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        plot(monkeypatch, capsys, run(tmp_path / "a"), "--output", tmp_path / "x.nonsense")
    assert "--output" in capsys.readouterr().err
