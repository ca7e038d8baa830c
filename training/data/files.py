"""The files of a channel: which of them are data, and each as a stream, unpacked where it is compressed."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mooring.contract.errors import UserCodeError

from .formats import Format
from .samples import Raw

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

# What tools leave beside data: hidden files, markers such as _SUCCESS and folders such as _temporary, parts of
# downloads, indexes of .rec files.
HIDDEN = (".", "_")
PARTIAL = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".inprogress", "~", ".idx")
GZIP_MAGIC = b"\x1f\x8b"
GZIP_SUFFIXES = (".gz", ".gzip")
READ_BYTES = 1 << 20
# A mount that fetches what is read does best with reads as large as its own requests.
MOUNT_READ_BYTES = 8 << 20


def data_files(folder: Path, suffixes: tuple[str, ...] = ()) -> list[Path]:
    """Return the files below a folder that are data, by name; only those with one of the suffixes, if there are any."""
    if folder.is_file():
        return [folder]
    found = [path for path in folder.rglob("*") if _is_data(path.relative_to(folder)) and path.is_file()]
    return sorted(path for path in found if not suffixes or path.name.endswith(suffixes))


def _is_data(path: Path) -> bool:
    return not any(part.startswith(HIDDEN) for part in path.parts) and not path.name.endswith(PARTIAL)


def is_packed(path: Path) -> bool:
    """Whether a file is compressed, by its name or its first bytes."""
    if path.name.endswith(GZIP_SUFFIXES):
        return True
    with path.open("rb") as stream:
        return stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def cut_files(
    files: Iterable[Path], sample_format: Format, on_read: Callable[[int], None], read_bytes: int = READ_BYTES
) -> Iterator[Raw]:
    """Yield the samples of files, one file after the other, each read once from front to back."""
    for file in files:
        with CountedFile(file, on_read) as raw, io.BufferedReader(raw, read_bytes) as stream:
            is_gzip = file.name.endswith(GZIP_SUFFIXES)
            yield from cut_stream(stream, str(file), sample_format, is_gzip=is_gzip)


def cut_stream(
    stream: "io.BufferedReader[Any]", name: str, sample_format: Format, *, is_gzip: bool = False
) -> Iterator[Raw]:
    """Yield the samples of a stream. Raises what the format does, and `PackedDataError` if it is damaged gzip.

    No format begins with the bytes that gzip begins with, so those tell as well.
    """
    if not is_gzip and stream.peek(len(GZIP_MAGIC))[: len(GZIP_MAGIC)] != GZIP_MAGIC:
        yield from sample_format.cut(stream, name)
        return
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            # GzipFile reads as a raw stream does, whatever its type says.
            yield from sample_format.cut(io.BufferedReader(cast("io.RawIOBase", unpacked), READ_BYTES), name)
    except EOFError as error:
        raise PackedDataError(name, "its gzip ends before it does") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise PackedDataError(name, f"is damaged gzip: {error}") from error


class PackedDataError(UserCodeError):
    """Compressed data that cannot be unpacked."""

    def __init__(self, file: str, problem: str) -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file}: {problem}.")


class CountedFile(io.FileIO):
    """A file that tells how many bytes are read of it, as they lie on the disk."""

    def __init__(self, file: Path, on_read: Callable[[int], None]) -> None:
        super().__init__(file)
        self._on_read = on_read
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def readinto(self, room: "Buffer") -> int:
        """Read some, and tell."""
        size = super().readinto(room) or 0
        self._on_read(size)
        return size
