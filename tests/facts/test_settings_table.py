"""The table of settings in docs/serving.md is the one in the code."""

from pathlib import Path

from mooring.serving.settings import SETTINGS, Limits, table

DOCUMENT = Path(__file__).parents[2] / "docs/serving.md"


def test_documented_settings_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text.partition("settings` -->\n")[2].partition("<!-- /settings -->")[0]
    assert shown.strip() == table().strip()


def test_every_limit_can_be_set() -> None:
    assert [setting.field for setting in SETTINGS] == list(Limits.__dataclass_fields__)
