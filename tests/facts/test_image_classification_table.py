"""The table of image-classification's hyperparameters in docs/programs.md is the one in the code."""

from pathlib import Path

from mooring.contract.typed import table
from mooring.training.programs.images.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs/programs.md"


def test_documented_hyperparameters_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text.partition("images.settings` -->\n")[2].partition("<!-- /image-classification -->")[0]
    assert shown.strip() == table(Settings).strip()
