"""A request's body as it arrives: in memory, or past a threshold in a file, so that large ones cost no memory here."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from .errors import SpoolError


class Body:
    """Collects the pieces of a body. `finish` ends it; `discard` deletes its file in `folder`, whenever it is over."""

    __slots__ = ("_file", "_folder", "_path", "_pieces", "_spool_bytes", "size")

    def __init__(self, spool_bytes: int, folder: Path) -> None:
        self.size = 0
        self._spool_bytes = spool_bytes
        self._folder = folder
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    def add(self, piece: bytes) -> None:
        """Add a piece. Raises `SpoolError` if there is no room on disk."""
        self.size += len(piece)
        if self._path is not None:
            self._write(piece)
        else:
            self._pieces.append(piece)
            if self.size > self._spool_bytes:
                self._spill()

    def _spill(self) -> None:
        try:
            handle, name = tempfile.mkstemp(prefix="body-", dir=self._folder)
        except OSError as error:
            raise SpoolError(self.size, error.strerror or "it cannot be written") from error
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb")
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._write(piece)

    def _write(self, piece: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(piece)
        except OSError as error:
            self.discard()
            raise SpoolError(self.size, error.strerror or "it cannot be written") from error

    def finish(self) -> tuple[bytes, Path | None]:
        """Return the body, or the path of the file that holds it. Raises `SpoolError`."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self.discard()
                raise SpoolError(self.size, error.strerror or "it cannot be written") from error
            self._file = None
            return b"", self._path
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), None

    def discard(self) -> None:
        """Delete the file, if there is one."""
        if self._path is None:
            return
        path, self._path = self._path, None
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # what could not be written is deleted next
                file.close()
        path.unlink(missing_ok=True)
