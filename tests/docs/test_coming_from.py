"""Every name of lowbit in the tables for those who come from elsewhere is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from lowbit.nn import QConv2d
from lowbit.quantizers import get
from lowbit.quantizers._registry import quantizers

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "coming_from").glob("*.md"))
ROW = re.compile(r"^\|(?P<theirs>[^|]*)\|(?P<ours>[^|]*)\|$", re.MULTILINE)
ARGUMENTS = {"input_quantization", "weight_quantization", "pad_value", "groups"}


def rows(page: Path) -> list[tuple[str, str]]:
    found = [(m["theirs"], m["ours"]) for m in ROW.finditer(page.read_text(encoding="utf-8"))]
    return [(theirs, ours) for theirs, ours in found if "---" not in theirs]


def imported(name: str) -> object:
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:i]))
        found = getattr(found, part)
    return found


def problem(span: str) -> str:
    """Why a code span of lowbit's column names nothing; "" where it does."""
    if re.match(r"(lowbit|torch|experiments)\.[\w.]+$", span):
        try:
            imported(span)
        except (ImportError, AttributeError) as error:
            return str(error)
        return ""
    override = re.match(r"(\w+)=(\w+)$", span)
    if override:
        path = ROOT / "configs" / override[1] / f"{override[2]}.yaml"
        return "" if path.is_file() else f"{path} is not there"
    if "/" in span or span == "configs":
        return "" if (ROOT / span).exists() else f"{span} is not there"
    if span.startswith("python -m "):
        return "" if importlib.util.find_spec(span.split()[2]) else f"no module for {span}"
    known = span in quantizers or span in ARGUMENTS or span in KNOWN
    return "" if known else f"{span!r} is neither a name of lowbit, nor a quantizer, nor a config"


# Methods of a quantizer, arguments of one, and torch's.
KNOWN = {"value", "slope", "clip", "beta", 'grad="stopmax"', 'mode="weights"', 'mode="activations"'}
KNOWN |= {"clip_value", "nn.Module", "state_dict"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_in_the_column_of_lowbit_exists(page):
    spans = [span for _, ours in rows(page) for span in re.findall(r"`([^`]+)`", ours)]
    assert len(spans) > 30
    assert [text for text in map(problem, spans) if text] == []


def test_names_of_bitorchs_quantizers_are_understood():
    (page,) = [page for page in PAGES if page.stem == "bitorch"]
    text = page.read_text(encoding="utf-8")
    table = text.partition("## Quantizers")[2].partition("## Training")[0]
    pairs = [
        (theirs, ours)
        for left, right in ROW.findall(table)
        for theirs, ours in zip(
            re.findall(r"`([a-z]+)`", left), re.findall(r"`([a-z_]+)`", right), strict=False
        )
    ]
    assert len(pairs) >= 8
    for theirs, ours in pairs:
        assert quantizers.resolve(theirs).name == ours, theirs


def test_arguments_in_the_tables_exist():
    assert hasattr(QConv2d(2, 2, 1), "pad_value")
    assert get({"name": "ste_sign", "clip": 1.25}).clip == 1.25
    assert get({"name": "swish_sign", "beta": 5.0}).beta == 5.0
    assert get({"name": "dorefa_weight", "grad": "stopmax"}).grad == "stopmax"


def test_a_name_that_is_not_there_is_found():
    assert problem("lowbit.nn.QDense")
    assert problem("callbacks=clip_weights")
    assert problem("approximate_sign")
    assert problem("lowbit.nn.QLinear") == ""
