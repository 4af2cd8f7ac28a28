"""The tables of the README are what was measured, and nothing is typed in."""

from __future__ import annotations

import json

import pytest

from scripts.update_readme import BLOCKS, README, filled, main, results, speed


def test_the_readme_is_current(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_the_readme_has_every_table():
    text = README.read_text(encoding="utf-8")
    for name in BLOCKS:
        assert f"<!-- begin: {name} -->" in text


def test_only_what_is_between_the_markers_changes():
    text = "above\n<!-- begin: results -->\nold\n<!-- end: results -->\nbelow\n"
    new = filled(text)
    assert new.startswith("above\n<!-- begin: results -->\n| ")
    assert new.endswith(" |\n<!-- end: results -->\nbelow\n")
    assert "old" not in new
    assert filled(new) == new


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- begin: speeed -->\n<!-- end: speeed -->", "no table named 'speeed'"),
        ("<!-- begin: speed -->", "one <!-- end: speed --> after it"),
        ("<!-- end: speed --> <!-- begin: speed -->", "one <!-- end: speed --> after it"),
    ],
)
def test_a_wrong_marker_is_an_error(text, said):
    with pytest.raises(ValueError, match=said):
        filled(text)


def test_a_changed_file_fails_the_check_and_is_mended(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text("<!-- begin: speed -->\n| typed in |\n<!-- end: speed -->\n")
    assert main(["--check", "--file", str(file)]) == 1
    assert "python scripts/update_readme.py" in capsys.readouterr().out
    assert main(["--file", str(file)]) == 0
    assert main(["--check", "--file", str(file)]) == 0
    assert main(["--file", str(tmp_path / "none.md")]) == 2


def test_a_result_is_the_mean_of_its_runs_and_its_gap_to_the_published_figure(tmp_path):
    metric = {"mean": 0.87, "std": 0.01, "values": [0.86, 0.88]}
    run = {"bytes": 4000, "bytes_packed": 1000, "seconds": 10.0}
    experiment = {
        "experiment": "xnor_lenet_mnist",
        "published": {"value": 0.88, "selection": "best", "source": "somewhere"},
        "groups": [
            {
                "overrides": [],
                "n": 2,
                "metrics": {"test/accuracy": metric, "test/accuracy_last": metric},
                "runs": [run, {**run, "seconds": 20.0}],
            },
            {"overrides": ["model=mlp"], "n": 1, "metrics": {}, "runs": []},
        ],
    }
    (tmp_path / "xnor_lenet_mnist.json").write_text(json.dumps(experiment))
    (row,) = results(tmp_path).splitlines()[2:]
    assert row == (
        "| `xnor_lenet_mnist`: XNOR-Net's binarization in LeNet (20-50-500) on MNIST | 88.00 "
        "| 87.00 ± 1.00 | -1.00 | 2 | 4 kB → 1 kB | 15 s |"
    )


def test_every_speed_is_of_the_benchmarks_record():
    from scripts.update_readme import BENCHMARKS, PACKED, SPEED

    first = json.loads((BENCHMARKS / f"{PACKED[0]}.json").read_text())
    rows = speed().splitlines()[2 : 2 + len(SPEED)]
    for (row, case, _, calls), line in zip(SPEED, rows, strict=True):
        figure = next(f for f in first["figures"] if (f["row"], f["case"]) == (row, case))
        times = figure["microseconds"]
        ratio = float(line.split("|")[6])
        assert ratio == pytest.approx(
            times[calls[0]]["median"] / times["lowbit"]["median"], rel=0.05
        )
