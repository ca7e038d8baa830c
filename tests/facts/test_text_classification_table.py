"""The table of text-classification's hyperparameters in docs/programs.md is the one in the code."""

from pathlib import Path

from mooring.contract.typed import table
from mooring.training.algorithm import PROGRAMS
from mooring.training.programs.texts.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs/programs.md"


def test_documented_hyperparameters_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text.partition("texts.settings` -->\n")[2].partition("<!-- /text-classification -->")[0]
    assert shown.strip() == table(Settings).strip()


def test_every_program_has_a_row_and_a_section() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in PROGRAMS:
        assert f"\n| `{name}` |" in text
        assert f"\n## {name.replace('-', ' ').capitalize()}\n" in text
