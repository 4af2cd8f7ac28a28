"""Tables and JSON as they are printed."""

import json

import pytest

from lowbit.cli import _output


def test_numbers_are_at_the_right_and_the_last_column_folds():
    cells = [["a", "1,024", "words that go on"], ["longer", "8", ""]]
    assert _output.text_table(("x", "n", "why"), cells, [False, True, False], 41) == [
        "x           n  why",
        "------  -----  ----------------",
        "a       1,024  words that go on",
        "longer      8",
    ]
    folded = _output.text_table(("x", "why"), [["a", "word " * 10]], [False, False], 27)
    assert folded == [
        "x  why",
        "-  ------------------------",
        "a  word word word word word",
        "   word word word word word",
    ]


def test_a_column_is_of_numbers_where_all_its_cells_are(capsys):
    _output.print_table(("n", "mixed"), [("1", "2"), ("10 %", "-x")])
    assert capsys.readouterr().out.splitlines()[2:] == ["   1  2", "10 %  -x"]


def test_rich_tables_keep_brackets(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(_output, "in_colour", lambda: True)
    _output.print_table(("list",), [("[8, 16]",), ("[red]",)])
    printed = capsys.readouterr().out
    assert "[8, 16]" in printed
    assert "[red]" in printed


def test_a_table_fits_where_no_cell_would_be_folded(monkeypatch):
    table = pytest.importorskip("rich.table").Table("name", "what")
    table.add_row("x" * 20, "y" * 30)  # and the borders: 20 + 30 + 7
    for columns, enough in ((57, True), (56, False)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert _output.fits(table) is enough


def test_json_has_no_nan(capsys):
    _output.print_json({"a": [float("nan"), float("inf"), 1.5], "b": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": [True, None]}
