"""Pictures and tables of collected results, from the records alone."""

import json
import shutil

import pytest
from PIL import Image

from experiments import _ablation, _curve_points, _plots, results
from experiments._network import network
from lowbit import quantizers
from tests.experiments.test_results import run

ABLATION = "ablation_resnet20_cifar10"


def metrics_csv(folder, epochs=100, offset=0.0):
    lines = ["epoch,step,train/accuracy,train/loss,val/accuracy,val/loss"]
    for epoch in range(epochs):
        accuracy = 0.123456 + offset + epoch / (2 * epochs)
        lines.append(f"{epoch},{10 * epoch},,{2 - accuracy},{accuracy},")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def collected(tmp_path):
    """Two seeds of an experiment of this repository, with curves: the folder of the results."""
    runs = []
    for seed in (0, 1):
        overrides = ["experiment=digits_binary", f"seed={seed}"]
        folder = run(
            tmp_path / f"run{seed}", experiment="digits_binary", overrides=overrides, seed=seed
        )
        metrics_csv(folder, offset=0.1 * seed)
        runs.append(folder)
    results.collect(runs, tmp_path / "results")
    return tmp_path / "results"


def test_few_points_of_a_curve_are_kept(tmp_path):
    metrics_csv(tmp_path)
    curve = _curve_points.read(tmp_path / "metrics.csv")
    assert list(curve) == ["epoch", "train/loss", "val/accuracy"]
    assert len(curve["epoch"]) == _curve_points.POINTS
    assert (curve["epoch"][0], curve["epoch"][-1]) == (0, 99)
    assert curve["epoch"] == sorted(set(curve["epoch"]))
    assert curve["val/accuracy"][0] == 0.1235
    assert curve["val/accuracy"][-1] == pytest.approx(0.123456 + 99 / 200, abs=5e-5)
    rows = _curve_points.rows(curve)
    assert rows[0] == {"epoch": 0, "train/loss": 1.877, "val/accuracy": 0.1235}


def test_a_short_curve_is_kept_whole_and_an_absent_one_is_none(tmp_path):
    assert _curve_points.read(tmp_path / "metrics.csv") is None
    for epochs in (1, 2, _curve_points.POINTS):
        metrics_csv(tmp_path, epochs)
        curve = _curve_points.read(tmp_path / "metrics.csv")
        assert curve["epoch"] == list(range(epochs))


def test_the_curve_of_a_run_in_stages_is_its_last_stages(tmp_path):
    staged = run(tmp_path / "a", stages=[{"name": "inputs"}, {"name": "both"}])
    for epochs, stage in enumerate(("inputs", "both"), start=3):
        (staged / stage).mkdir()
        metrics_csv(staged / stage, epochs)
    results.collect([staged / "result.json"], tmp_path / "results")
    record = json.loads((tmp_path / "results" / "first.json").read_text())
    assert record["groups"][0]["runs"][0]["curve"]["epoch"] == [0, 1, 2, 3]


def test_pictures_are_made_again_of_the_records_alone(collected, tmp_path):
    for seed in (0, 1):
        shutil.rmtree(tmp_path / f"run{seed}")
    names = {"accuracy_size.png", "accuracy_macs.png", "curves_digits_binary.png"}
    before = {path.name: path.read_bytes() for path in (collected / "plots").iterdir()}
    assert set(before) == names
    files = {path: path.read_bytes() for path in collected.glob("*.*")}
    shutil.rmtree(collected / "plots")
    results.collect([], collected)
    assert {path.name: path.read_bytes() for path in (collected / "plots").iterdir()} == before
    assert {path: path.read_bytes() for path in collected.glob("*.*")} == files
    text = (collected / "RESULTS.md").read_text()
    assert all(f"plots/{name}" in text for name in names)


def test_a_picture_of_the_same_figures_is_left_alone(collected):
    path = collected / "plots" / "curves_digits_binary.png"
    before = path.stat().st_mtime_ns
    results.collect([], collected)
    assert path.stat().st_mtime_ns == before
    record = json.loads((collected / "digits_binary.json").read_text())
    record["groups"][0]["runs"][0]["curve"]["val/accuracy"][0] = 0.5
    (collected / "digits_binary.json").write_text(json.dumps(record))
    results.collect([], collected)
    assert path.stat().st_mtime_ns != before
    with Image.open(path) as image:
        assert image.size[0] > 500


def test_a_record_has_its_curve_in_few_lines(collected):
    text = (collected / "digits_binary.json").read_text()
    assert len(text.splitlines()) < 150
    record = json.loads(text)
    assert len(record["groups"][0]["runs"][1]["curve"]["epoch"]) == 60


def test_a_networks_multiply_adds_are_counted_by_hand():
    # conv2 32 -> 64 of 3 x 3 at 4 x 4, fc1 64 x 2 x 2 -> 256; conv1 and fc2 stay float.
    found = network("digits_binary", [])
    one_bit = 64 * 32 * 9 * 16 + 64 * 2 * 2 * 256
    real = 32 * 9 * 64 + 256 * 10
    assert found == {
        "data": "digits",
        "macs": {"one_bit": one_bit, "k_bit": 0, "int8": 0, "float": real},
    }
    assert network("digits_binary", ["quantizer=float"])["macs"]["one_bit"] == 0
    assert network("no_such_experiment", []) is None
    assert network("digits_binary", ["model.no_such=1"]) is None


def ablation_runs(tmp_path, jobs):
    for number, (override, accuracy, seed) in enumerate(jobs):
        words = [f"experiment={ABLATION}", "sweep=binary_inputs", *override, f"seed={seed}"]
        yield run(
            tmp_path / str(number), experiment=ABLATION, overrides=words, seed=seed,
            published=None, metrics={"test/accuracy": 0.9, "test/accuracy_last": accuracy},
        )  # fmt: skip


def test_an_ablation_is_one_table_best_first_and_says_what_is_missing(tmp_path):
    jobs = [
        ([], 0.40, 0), ([], 0.42, 1),
        (["quantizer.input=sign"], 0.3, 0),
        (["quantizer.input={name:rbnn_poly,activation:True}"], 0.5, 0),
        (["quantizer.weight=xnor"], 0.45, 0),
    ]  # fmt: skip
    into = tmp_path / "results"
    results.collect(ablation_runs(tmp_path, jobs), into)
    text = (into / "RESULTS.md").read_text()
    assert "| 1 | rbnn_poly | 50.00 | xnor | 45.00 |\n| 2 | sign | 30.00 |  |  |\n" in text
    assert "41.00 ± 1.41 over 2 seeds" in text
    assert not [line for line in text.splitlines() if line.startswith(f"| {ABLATION}")]
    assert (into / "plots" / f"{ABLATION}.png").is_file()
    record = json.loads((into / f"{ABLATION}.json").read_text())
    missing = _ablation.missing(record, "weight")
    assert "sign" in missing
    assert "xnor" not in missing
    assert not any(quantizers.get(name).made_for == "input" for name in missing)
    assert f"Not run at weights: {', '.join(missing)}." in text


def test_labels_of_recipes_are_short():
    words = ["quantizer.weight={name:lsq,bits:2,per_channel:true}", "start=runs/a/best.ckpt"]
    assert _plots.label("a", words) == "a weight lsq 2"
    assert _plots.label("a", ["trainer.max_epochs=60"]) == "a max_epochs 60"


def test_ours_and_published_are_drawn_at_their_errors():
    point = {"accuracy": 0.98, "std": 0.005, "published": 0.99}
    assert _plots._errors(point) == pytest.approx([2.0, 1.5, 2.5, 1.0])
    wide = {"accuracy": 0.999, "std": 0.5, "published": None}
    assert min(_plots._errors(wide)) > 0
