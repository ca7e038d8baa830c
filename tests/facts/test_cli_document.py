"""docs/cli.md tells of every command that there is, with an example, and of none that there is not."""

import re
from pathlib import Path

import pytest

from mooring.cli.main import COMMANDS

SECTIONS = dict(
    re.findall(
        r"^## `mooring (\w+)`\n(.*?)(?=^## |\Z)",
        (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)


def test_documented_commands_are_those_there_are() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_an_example(name: str) -> None:
    assert re.search(rf"^    .*mooring {name}\b", SECTIONS[name], re.MULTILINE)
