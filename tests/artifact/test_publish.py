"""What is published appears whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mooring.artifact.publish import publish_file, publish_folder


def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with publish_file(tmp_path / "new/file") as beside:
        beside.write_text("whole", encoding="utf-8")
        assert not (tmp_path / "new/file").exists()
    assert (tmp_path / "new/file").read_text(encoding="utf-8") == "whole"
    assert (tmp_path / "new/file").stat().st_mode & 0o777 == 0o644


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old", encoding="utf-8")

    def fail() -> None:
        with publish_file(tmp_path / "file") as beside:
            beside.write_text("half", encoding="utf-8")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"


def test_folder_replaces_the_one_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").touch()
    with publish_folder(tmp_path / "folder") as beside:
        (beside / "new").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_of_a_killed_process_does_not_appear(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from mooring.artifact.publish import publish_folder\n"
        "with publish_folder(Path(sys.argv[1])) as beside:\n"
        "    (beside / 'half').touch(); print('writing', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "folder")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "folder").exists()
