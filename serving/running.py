"""What a host works on at this moment, in a page that outlives it.

A host that dies takes everything with it that it had accepted. Only what it was running can be the cause.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path

PAGE_BYTES = 4096
COUNT = struct.Struct("<I")
ONE = struct.Struct("<II")
MOST_IDS = PAGE_BYTES // COUNT.size - 1
SUFFIX = ".running"


class RunningPage:
    """A host's side of the page. Where there is no room for it on disk, what is noted is not found."""

    def __init__(self, page: mmap.mmap | bytearray) -> None:
        self._page = page

    @classmethod
    def beside(cls, address: str) -> "RunningPage":
        """Make the page beside the socket of a host."""
        try:
            handle = os.open(address + SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, PAGE_BYTES)  # a full disk is an error now, not a signal later
                return cls(mmap.mmap(handle, PAGE_BYTES))
            finally:
                os.close(handle)
        except OSError:
            return cls(bytearray(PAGE_BYTES))

    def note(self, frame_ids: Sequence[int]) -> None:
        """Note the requests that begin, by the ids of their frames."""
        if len(frame_ids) == 1:
            ONE.pack_into(self._page, 0, 1, frame_ids[0])
        else:
            count = min(len(frame_ids), MOST_IDS)
            struct.pack_into(f"<I{count}I", self._page, 0, count, *frame_ids[:count])

    def clear(self) -> None:
        """Note that nothing is run."""
        COUNT.pack_into(self._page, 0, 0)


def take(address: Path) -> frozenset[int]:
    """Return what a host that has ended was running, and delete its page. Empty where that is not known."""
    found = look(address)
    with contextlib.suppress(OSError):
        _page_of(address).unlink()
    return found


def look(address: Path) -> frozenset[int]:
    """Return what a host runs. Empty where that is not known."""
    content = b""
    with contextlib.suppress(OSError):
        content = _page_of(address).read_bytes()
    if len(content) < PAGE_BYTES:
        return frozenset()
    (count,) = COUNT.unpack_from(content)
    return frozenset(struct.unpack_from(f"<{min(count, MOST_IDS)}I", content, COUNT.size))


def _page_of(address: Path) -> Path:
    return address.with_name(address.name + SUFFIX)
