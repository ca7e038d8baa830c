"""An archive is unpacked once per version of it, into a folder of its own."""

import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from mooring.serving.repository import Unpacker


def archive(base: Path, content: bytes) -> Path:
    """Write an archive with a time of its own, as copying tools do that keep times."""
    (base / "model.onnx").write_bytes(content)
    with tarfile.open(base / "model.tar", "w") as tar:
        tar.add(base / "model.onnx", "model.onnx")
    os.utime(base / "model.tar", (1, 1))
    return base / "model.tar"


def test_archive_is_unpacked_once_and_another_of_its_size_anew(tmp_path: Path) -> None:
    unpacker = Unpacker(tmp_path / "cache")
    first = unpacker.folder(archive(tmp_path, b"one"))
    assert unpacker.folder(tmp_path / "model.tar") == first
    second = unpacker.folder(archive(tmp_path, b"two"))
    assert [(folder / "model.onnx").read_bytes() for folder in (first, second)] == [b"one", b"two"]


def test_threads_that_want_one_archive_share_the_folder_of_the_first(tmp_path: Path) -> None:
    unpacker, path = Unpacker(tmp_path / "cache"), archive(tmp_path, b"weights" * 100_000)
    begun = Barrier(8)

    def look(_: int) -> tuple[int, int]:
        begun.wait()
        file = unpacker.folder(path) / "model.onnx"
        return file.parent.stat().st_ino, file.stat().st_ino

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(look, range(8)))) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1
