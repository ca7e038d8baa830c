"""What a server needs on disk while it lives goes with it; what a killed one has left, the next one removes."""

import signal
from pathlib import Path

import pytest
from models import scale_model
from servers import Servers, wait_until

from mooring.artifact.archive import pack
from mooring.serving.scratch import PREFIX, Scratch, remove_abandoned


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this process and those it starts."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def left(temporary: Path) -> list[str]:
    """The files below the folders of servers."""
    return [str(path.relative_to(temporary)) for path in temporary.glob(f"{PREFIX}*/**/model.onnx")]


def test_archives_of_a_killed_server_are_removed_by_the_next_one(
    start_server: Servers, tmp_path: Path, temporary: Path
) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    pack(scale_model(tmp_path / "m"), repository / "m.tar.gz")
    killed, living = (start_server(repository, "repository", eviction="lru") for _ in range(2))
    for server in (killed, living):
        assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
    assert len(left(temporary)) == 2
    killed.stop(signal.SIGKILL)
    following = start_server(repository, "repository", eviction="lru")
    wait_until(lambda: len(left(temporary)) == 1)
    assert "which a server that was killed had left" in following.log.read_text()
    assert living.invoke("m", [[1, 2, 3]]).status_code == 200
    for server in (living, following):
        assert server.stop() == 0
    assert [path.name for path in temporary.iterdir() if path.name.startswith(PREFIX)] == []


@pytest.mark.usefixtures("temporary")
def test_folder_of_a_living_process_stays_also_when_it_looks_itself() -> None:
    ours = Scratch()
    assert remove_abandoned() == []
    assert ours.folder.is_dir()
    ours.close()
    ours.close()
    assert not ours.folder.exists()


def test_links_and_files_of_that_name_are_left_alone(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (temporary / f"{PREFIX}link").symlink_to(tmp_path / "precious")
    (temporary / f"{PREFIX}file").touch()
    assert remove_abandoned() == []
    assert (tmp_path / "precious").is_dir()
