"""Model archives: packed the same way every time, unpacked without letting a member out of its folder."""

import bz2
import errno
import gzip
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from mooring.contract.errors import UserCodeError

from .publish import publish_file, publish_folder

GIB = 1 << 30
CHUNK = 1 << 20
# Weights hardly shrink, and at gzip's own 9 take twice as long for nothing.
LEVEL = 6
# Tar pads with zeros to a whole record, 10 KiB as a rule.
MAX_TRAILING_BYTES = 64 << 20
# What reading a damaged archive may raise, beside what tarfile and zipfile call their own.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    ValueError,
    RuntimeError,  # zipfile's for what is encrypted, Python's for headers of headers of headers
    struct.error,
)
# What the names of members bring about: one that comes twice, is a file and a folder, or is too long.
BAD_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
# A header of a tar, which is read in one piece before anybody can look at it: packed, a gigabyte is a megabyte.
MOST_HEADER_BYTES = 4 << 20
# A zip's first member, or that it has none.
ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may unpack to. Deflate reaches about 1,000 to 1 on zeros, and weights may be zeros."""

    total_bytes: int = 100 * GIB
    members: int = 100_000
    ratio: int = 1100
    ratio_applies_from_bytes: int = 1 << 20


class UnsafeArchiveError(UserCodeError):
    """A member of an archive would leave its folder, is no file, or is too much."""

    def __init__(self, archive: Path, member: str, problem: str) -> None:
        self.archive = archive
        self.member = member
        self.problem = problem
        super().__init__(f"Archive '{archive.name}' is not unpacked: member '{member}' {problem}.")


class DamagedArchiveError(UserCodeError):
    """A file is no archive, or ends early."""

    def __init__(self, archive: Path, problem: str) -> None:
        self.archive = archive
        self.problem = problem
        super().__init__(f"Archive '{archive.name}' cannot be unpacked: {problem}.")


def pack(folder: Path, archive: Path) -> None:
    """Write a folder's files as a .tar.gz with them at its root. The same files give the same bytes."""
    pack_files({str(path.relative_to(folder)): path for path in folder.rglob("*")}, archive)


def pack_files(files: Mapping[str, Path], archive: Path, on_bytes: Callable[[int], None] = lambda _: None) -> None:
    """Write files as a .tar.gz, by their names in it. The same files give the same bytes.

    Links are followed, as no links are unpacked. `on_bytes` is told how many bytes were read since the last time.
    """
    with (
        publish_file(archive) as beside,
        beside.open("wb") as raw,
        # The time in gzip's header, and owners, times and modes of members, would make each packing differ.
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=LEVEL, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as tar,
    ):
        for name, path in sorted(files.items()):
            member = _anonymous(tar.gettarinfo(path, name))
            if not member.isreg():
                tar.addfile(member)
                continue
            with path.open("rb") as content:
                tar.addfile(member, cast("IO[bytes]", _Counted(content, on_bytes)))


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._on_bytes(len(content))
        return content


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def extract(archive: Path, folder: Path, limits: ArchiveLimits | None = None) -> None:
    """Unpack a .tar, .tar.gz, .zip or .mar into a folder that appears when it is whole.

    Only plain files and folders are unpacked. Raises `UnsafeArchiveError` naming the member, `DamagedArchiveError`.
    """
    limits = limits or ArchiveLimits()
    try:
        with publish_folder(folder) as beside:
            for member in _checked(archive, limits):
                _write(member, beside)
    except UnsafeArchiveError:
        raise
    except DAMAGE as error:
        raise DamagedArchiveError(archive, str(error) or type(error).__name__) from error


@dataclass
class _Member:
    name: str
    size: int
    is_folder: bool
    content: IO[bytes] | None


def _checked(archive: Path, limits: ArchiveLimits) -> Iterator[_Member]:
    """Yield members as they are read, each checked before anything of it is written."""
    total = 0
    packed = max(archive.stat().st_size, 1)
    for count, member in enumerate(_members(archive), start=1):
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
            raise UnsafeArchiveError(archive, member.name, "would be written outside the folder")
        total += member.size
        if count > limits.members:
            raise UnsafeArchiveError(archive, member.name, f"is one more than the limit of {limits.members:,} members")
        if total > limits.total_bytes:
            raise UnsafeArchiveError(archive, member.name, f"takes it over the limit of {limits.total_bytes:,} bytes")
        if total > limits.ratio_applies_from_bytes and total > packed * limits.ratio:
            raise UnsafeArchiveError(archive, member.name, f"takes it over {limits.ratio} times its packed size")
        yield member


def _members(archive: Path) -> Iterator[_Member]:
    if _is_zip(archive):
        yield from _zip_members(archive)
        return
    with _opened(archive) as stream, tarfile.open(fileobj=cast("IO[bytes]", _Pieces(stream)), mode="r:") as tar:
        for entry in tar:
            if not entry.isreg() and not entry.isdir():
                raise UnsafeArchiveError(
                    archive, entry.name, "is a link or a device; only files and folders are unpacked"
                )
            yield _Member(entry.name, entry.size, entry.isdir(), tar.extractfile(entry))
        _read_to_end(tar)


def _is_zip(archive: Path) -> bool:
    """Whether an archive begins as a zip. zipfile's own look is at its end, where a tar may have a zip as its last."""
    return _beginning(archive, max(map(len, ZIP_BEGINS))).startswith(ZIP_BEGINS)


def _beginning(archive: Path, size: int) -> bytes:
    with archive.open("rb") as file:
        return file.read(size)


def _opened(archive: Path) -> IO[bytes]:
    begins = _beginning(archive, max(map(len, OPENERS)))
    opener = next((opener for magic, opener in OPENERS.items() if begins.startswith(magic)), open)
    return cast("IO[bytes]", opener(archive, "rb"))


class _Pieces:
    """A stream that is never asked for much at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self._read = stream.read

    def read(self, size: int) -> bytes:
        if size > MOST_HEADER_BYTES:
            raise ValueError(f"a header in it has {size:,} bytes")
        return self._read(size)


def _read_to_end(tar: tarfile.TarFile) -> None:
    """Read what follows the last member: the checksum of all that was packed comes at the very end."""
    assert tar.fileobj is not None
    for _ in range(MAX_TRAILING_BYTES // CHUNK):
        if not tar.fileobj.read(CHUNK):
            return
    raise ValueError(f"more than {MAX_TRAILING_BYTES:,} bytes follow its last member")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            kind = entry.external_attr >> 28  # the upper bits of a Unix mode; 0 where it was made elsewhere
            if kind not in (0, 0o4, 0o10):
                raise UnsafeArchiveError(
                    archive, entry.filename, "is a link or a device; only files and folders are unpacked"
                )
            if entry.is_dir():
                yield _Member(entry.filename, 0, is_folder=True, content=None)
            else:
                with zipped.open(entry) as content:
                    yield _Member(entry.filename, entry.file_size, is_folder=False, content=content)


def _write(member: _Member, folder: Path) -> None:
    target = folder / member.name
    try:
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")  # a name that comes twice is an error, not an overwrite
    except OSError as error:
        if error.errno not in BAD_NAMES:
            raise
        raise ValueError(f"member '{member.name[:100]}' cannot be written: {os.strerror(error.errno)}") from error
    assert member.content is not None
    with file:
        shutil.copyfileobj(member.content, file)
    if target.stat().st_size != member.size:
        raise ValueError(f"member '{member.name}' is not as long as it says")
