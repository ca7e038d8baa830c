"""docs/migrate.md names what there is: commands, options, settings, variables that are read and that are not."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from mooring.cli.main import COMMANDS
from mooring.cli.serve import parser as serve_parser
from mooring.handler.model_config import ModelConfig
from mooring.serving.errors import MIB
from mooring.serving.settings import SETTINGS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/migrate.md").read_text(encoding="utf-8")
SETTINGS_PART = TEXT.partition("\n## Settings, old and new\n")[2]
NAME = re.compile(r"`([A-Z][A-Z0-9_]+)`")
COMMAND = re.compile(r"^ {4,}(?:[A-Z_]+=\S+ )*(mooring .+)$", re.MULTILINE)
# Stand-ins have the names of variables that only the toolkits' own functions look at.
SOURCES = "".join(
    file.read_text(encoding="utf-8")
    for part in ("mooring", "serving", "training")
    for file in (ROOT / part).rglob("*.py")
    if ROOT / "mooring/compat" not in file.parents
)


def is_read(name: str) -> bool:
    return re.search(rf'["\']{name}["\']', SOURCES) is not None


@pytest.mark.parametrize("line", COMMAND.findall(TEXT))
def test_command_can_be_given_as_it_is_written(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("src", "data", "samples", "store"):
        (tmp_path / folder).mkdir()
    for file in ("model.tar.gz", "store/resnet.mar"):
        (tmp_path / file).touch()
    _, name, *arguments = shlex.split(line, comments=True)
    importlib.import_module(COMMANDS[name][0]).parser().parse_args(arguments)


def test_every_earlier_name_of_a_setting_is_told_with_the_new_one() -> None:
    rows = [line.split("|")[1:-1] for line in SETTINGS_PART.splitlines() if line.startswith("| `")]
    told = {(old, *NAME.findall(new), "in MB" in note) for olds, new, note in rows for old in NAME.findall(olds)}
    assert told == {
        (alias, setting.variable, factor == MIB) for setting in SETTINGS for alias, factor in setting.aliases.items()
    }


def test_variables_that_are_read_are_and_those_that_are_not_are_not() -> None:
    _, _, lists = SETTINGS_PART.partition("\nRead under these names alone: ")
    read, _, not_read = lists.partition("\nNot read: ")
    assert len(NAME.findall(read)) > 5
    assert len(NAME.findall(not_read)) > 5
    assert [name for name in NAME.findall(read) if not is_read(name)] == []
    assert [name for name in NAME.findall(not_read) if is_read(name)] == []


def test_options_are_those_of_serve() -> None:
    named = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert {"--workers", "--engine"} <= named
    assert named <= set(serve_parser()._option_string_actions)


def test_our_own_variables_exist() -> None:
    named = {name for name in NAME.findall(TEXT) if name.startswith("MOORING_")}
    assert [name for name in named - {setting.variable for setting in SETTINGS} if not is_read(name)] == []


def test_configuration_of_a_model_can_be_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "mooring.toml").write_text(block, encoding="utf-8")
    config = ModelConfig.load(tmp_path)
    assert (config.workers, config.load_seconds, config.queue_length, config.batching.max_delay_ms) == (2, 300, 100, 50)
    named = re.search(r"\| key \| in mooring.toml \|\n.*?\n\n", TEXT, re.DOTALL)
    assert named is not None
    keys = {key for row in named[0].splitlines()[2:] if row for key in re.findall(r"`(\w+)`", row.split("|")[2])}
    assert keys == set(re.findall(r"^(\w+) = ", block, re.MULTILINE))
