"""What of a folder goes along, what is left out and why, and what is refused."""

import os
from pathlib import Path

import pytest

from mooring.artifact.archive import extract, pack_files
from mooring.artifact.contents import Contents, UnfitFilesError, junk_reason


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "name", ["__pycache__", "a.pyc", ".git", ".inference.py.swp", "inference.py~", "._model.onnx", ".DS_Store", ".venv"]
)
def test_what_tools_leave_about_is_left_out_with_its_reason(tmp_path: Path, name: str) -> None:
    write(tmp_path, "model.onnx", f"code/{name}")
    contents = Contents.of(tmp_path)
    assert list(contents.files) == ["model.onnx"]
    assert contents.left_out == {f"code/{name}": junk_reason(name)}
    assert contents.total_bytes == len("model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", ".hidden", "git", "tokenizer.json", "a~b"])
def test_other_files_go_along(tmp_path: Path, name: str) -> None:
    assert list(Contents.of(write(tmp_path, name)).files) == [name]


def test_archive_in_its_own_folder_does_not_hold_itself(tmp_path: Path) -> None:
    write(tmp_path, "model.onnx", "model.tar.gz")
    contents = Contents.of(tmp_path, but=tmp_path / "model.tar.gz")
    assert list(contents.files) == ["model.onnx"]
    assert contents.left_out == {"model.tar.gz": "it is what is being made"}


def test_links_inside_the_folder_come_out_as_what_they_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "blobs/1", "snapshot/config.json")
    (folder / "model.onnx").symlink_to("blobs/1")
    (folder / "latest").symlink_to("snapshot")
    os.link(folder / "blobs/1", folder / "same.onnx")
    pack_files(Contents.of(folder).files, tmp_path / "model.tar.gz")
    extract(tmp_path / "model.tar.gz", tmp_path / "out")
    texts = {str(path.relative_to(tmp_path / "out")): path.read_text() for path in (tmp_path / "out").rglob("*.*")}
    assert texts == {
        "latest/config.json": "snapshot/config.json",
        "model.onnx": "blobs/1",
        "same.onnx": "blobs/1",
        "snapshot/config.json": "snapshot/config.json",
    }


def test_everything_that_cannot_go_along_is_named_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "a.txt", "back\\slash")
    write(tmp_path, "secret")
    (folder / "outside").symlink_to(tmp_path / "secret")
    (folder / "dangling").symlink_to("nothing")
    (folder / "round").symlink_to(".")
    os.mkfifo(folder / "fifo")
    with pytest.raises(UnfitFilesError) as caught:
        Contents.of(folder)
    told = {problem.split()[0]: problem for problem in caught.value.problems}
    assert set(told) == {"outside", "dangling", "round", "fifo", "back\\slash"}
    assert "cp -RL" in told["outside"]
    assert "not there" in told["dangling"]


def test_modes_and_progress_of_an_archive(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "run.sh", "model.onnx")
    (folder / "run.sh").chmod(0o700)
    counts: list[int] = []
    pack_files(Contents.of(folder).files, tmp_path / "a.tar.gz", counts.append)
    assert sum(counts) == Contents.of(folder).total_bytes
    (folder / "run.sh").chmod(0o755)
    (folder / "model.onnx").chmod(0o600)
    os.utime(folder / "model.onnx", (1, 1))
    pack_files(Contents.of(folder).files, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
