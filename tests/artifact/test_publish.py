"""What is published appears whole or not at all."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

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


def test_folder_that_is_to_stay_is_not_replaced(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with publish_folder(tmp_path / "folder", replaces=False) as beside:
            (beside / name).touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("replaces", [True, False])
def test_folder_that_several_publish_is_whole_and_of_one_of_them(tmp_path: Path, replaces: bool) -> None:
    begun = Barrier(8)

    def publish(number: int) -> None:
        for _ in range(10):
            with publish_folder(tmp_path / "folder", replaces=replaces) as beside:
                for name in "ab":
                    (beside / name).write_text(f"{number}", encoding="utf-8")
                begun.wait()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(publish, range(8)))
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "folder").iterdir()]
    assert len(texts) == 2
    assert len(set(texts)) == 1
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
