"""The pages that are made as the site is built; `mkdocs build --strict` itself runs in CI."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="pip install 'lowbit[docs]'")

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def site():
    """A module of docs/site by its name, imported as the hook of MkDocs does."""
    sys.path.insert(0, str(DOCS / "site"))
    yield importlib.import_module
    sys.path.remove(str(DOCS / "site"))


def test_every_page_is_in_the_navigation_once():
    text = (DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert [page for page in sorted(pages) if text.count(f" {page}") != 1] == []


def test_a_quantizers_page_has_formula_arguments_and_source(site):
    pages = site("quantizer_pages")
    from lowbit.quantizers._registry import quantizers

    for name in pages.shipped():
        parts = pages.documented(name)
        assert any("value " in formula and "slope " in formula for formula in parts["formula"])
        assert parts["source"], name
        told = " ".join(parts["arguments"])
        for argument in inspect.signature(quantizers.resolve(name)).parameters:
            assert f"`{argument}`" in told, (name, argument)
        assert [row for row in pages.arguments(name)[2:] if "`" not in row] == []


def test_a_page_says_what_conversion_makes_of_the_quantizer(site):
    pages = site("quantizer_pages")
    assert pages.packs("sign", "weight") == "packs, in 1 plane of bits"
    assert pages.packs("ste_tern", "weight").startswith("packs, in 2 planes")
    assert "stays in float" in pages.packs("identity", "input")


def test_an_alias_is_on_the_page_of_its_quantizer(site):
    assert "`bwn`" in site("quantizer_pages").page("xnor")


def test_every_experiment_is_on_the_page(site):
    text = site("experiment_pages").recipes()
    for path in (DOCS.parent / "configs" / "experiment").glob("*.yaml"):
        assert f"\n### {path.stem}\n" in text
    assert "## On mnist1d" in text


def test_every_command_is_on_the_page(site):
    (text,) = site("command_pages").pages().values()
    assert "usage: lowbit doctor" in text
    assert "--calibrate" in text


def test_formulas_and_examples_become_code_and_prose_stays_prose(site):
    markdown = site("docstrings").markdown
    assert (
        markdown("value  +1 if x >= 0\nslope  1") == "```text\nvalue  +1 if x >= 0\nslope  1\n```"
    )
    assert markdown("``a``  one\n       two") == "```text\na      one\n       two\n```"
    assert markdown(">>> 1 + 1\n2\n\n>>> 2\n2").count("```pycon") == 1
    assert markdown("A ``state_dict`` of <names>") == "A `state_dict` of \\<names>"
    assert markdown("One sentence.  Two.") == "One sentence.  Two."


def test_outputs_of_a_cell_become_text_or_a_picture(site):
    shown = site("notebook_pages").shown
    assert shown({"output_type": "stream", "text": "1\n"}, "p.png") == ("```text\n1\n```", None)
    picture = {
        "output_type": "display_data",
        "data": {"image/png": "AAAA", "text/plain": "<Figure>"},
    }
    assert shown(picture, "p.png") == ("![](p.png)", b"\x00\x00\x00")
