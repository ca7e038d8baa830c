"""Completion, by real shells: bash is asked as it asks itself when somebody presses Tab."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mooring.cli.completion import script
from mooring.cli.main import COMMANDS

# What bash does: set the words and the place of the cursor, call the function, take its answer.
TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
_mooring
printf '%s\\n' "${COMPREPLY[@]}"
"""

# zsh's bashcompinit calls such functions in sh's manner, with the options of ksh's patterns. It is zsh
# itself that chooses what begins as the word does.
ZSH_TAB = """
autoload -U compinit && compinit -u -D
source ./.completion
COMP_WORDS=(mooring run serve --mo) COMP_CWORD=3
() { emulate -L sh; setopt kshglob; _mooring; print -r -- "${COMPREPLY[@]}" }
"""


def complete(folder: Path, *words: str) -> set[str]:
    file = folder / ".completion"
    file.write_text(script("bash"), encoding="utf-8")
    done = subprocess.run(
        ["bash", "--norc", "-c", TAB, "bash", str(file), *words], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(filter(None, done.stdout.splitlines()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my model").mkdir()
    (tmp_path / "model.tar.gz").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("mooring", ""), {*COMMANDS, "--help", "--version"}),
        (("mooring", "pa"), {"package"}),
        (("mooring", "no-such", ""), {*COMMANDS, "--help", "--version"}),
        (("mooring", "run", ""), {"train", "serve", "-h", "--help"}),
        (("mooring", "run", "serve", "--mo"), {"--model"}),
        (("mooring", "run", "train", "--in"), {"--instances"}),
        (("mooring", "run", "serve", "--model", "m"), {"my model", "model.tar.gz"}),
        (("mooring", "run", "serve", "--port", ""), set()),
        (("mooring", "init", "--kind", ""), {"both", "train", "serve"}),
        (("mooring", "init", "--yes", "--kind", "s"), {"serve"}),
        (("mooring", "doctor", "m"), {"my model", "model.tar.gz"}),
        (("mooring", "doctor", "--s"), {"--strict"}),
        (("mooring", "completion", ""), {"bash", "zsh", "-h", "--help"}),
        (("mooring", "push", "flowers", "--re"), {"--repository", "--region"}),
        (("serve", "--engine", ""), {"mooring", "mms"}),
        (("/opt/venv/bin/serve", "--repo"), {"--repository"}),
        (("train", "--"), {"--help"}),
    ],
)
def test_tab_offers_what_fits(folder: Path, words: tuple[str, ...], offered: set[str]) -> None:
    assert complete(folder, *words) == offered


def test_bash_completes_all_our_programs(tmp_path: Path) -> None:
    file = tmp_path / "completion"
    file.write_text(script("bash"), encoding="utf-8")
    asked = ["bash", "--norc", "-c", 'source "$1"; complete -p mooring train serve', "bash", str(file)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout.count("-F _mooring") == 3


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh on PATH")
def test_zsh_completes_by_the_same_function(folder: Path) -> None:
    (folder / ".completion").write_text(script("zsh"), encoding="utf-8")
    done = subprocess.run(["zsh", "-f", "-c", ZSH_TAB], cwd=folder, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == complete(folder, "mooring", "run", "serve", "-"), done.stderr
