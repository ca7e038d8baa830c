"""How much memory there is, how much a process holds, and how to give it back.

Numbers come from the kernel: `/proc/self/statm` where speed matters, `smaps_rollup` (10 to 50 ms) where truth does.
"""

import ctypes
import ctypes.util
import gc
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from mooring.contract.resources import memory_available_bytes

# A reading is used for so long, where it leaves so much beyond what a model could take: several times its files.
FRESH_S = 0.02
PLENTY_BYTES = 2 << 30
MOST_TIMES = 4
PAGE = os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes() -> int:
    """Return this process's resident memory that no file backs. Microseconds, so fit to call around a load."""
    handle = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        fields = os.read(handle, 256).split()
    finally:
        os.close(handle)
    resident, shared = int(fields[1]), int(fields[2])
    return (resident - shared) * PAGE


def mappings() -> int:
    """Return the number of mappings this process has, of which the kernel allows 65,530 by default."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def proportional_bytes(pid: int) -> int:
    """Return a process's proportional set size: shared pages counted once over all who share them; 0 if it is gone."""
    return _rollup(pid, "Pss:")


def private_bytes(pid: int) -> int:
    """Return the memory that would be free if this process alone ended, less what a file backs; 0 if it is gone."""
    return _rollup(pid, "Private_Dirty:")


def resident_anonymous_bytes(pid: int) -> int:
    """Return what `anonymous_bytes` does, of another process; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * PAGE


def _rollup(pid: int, name: str) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in rollup.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def folder_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


class AvailableMemory:
    """What the container could still give, read anew where it may matter: it takes some ten thousandths of a second.

    Where there is plenty, loads in quick succession share a reading; none of them can use that up meanwhile.
    """

    def __init__(self, read: Callable[[], int] = memory_available_bytes, now: Callable[[], float] = monotonic) -> None:
        self._read = read
        self._now = now
        self._reading = (float("-inf"), 0)

    def bytes(self, artifact_bytes: int) -> int:
        """Return what there is for a model whose files have that size."""
        when, available = self._reading
        now = self._now()
        if now - when > FRESH_S or available < PLENTY_BYTES + MOST_TIMES * artifact_bytes:
            available = self._read()
            self._reading = (now, available)
        return available


class Trimmer:
    """Gives freed memory back to the kernel.

    glibc keeps what onnxruntime and torch free; `malloc_trim` returns 93 to 98 % of it.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(ctypes.util.find_library("c") or None)
        self._trim = getattr(library, "malloc_trim", None)  # glibc only

    def trim(self) -> None:
        """Collect garbage, then return free heap pages. The lock of the interpreter is released meanwhile."""
        gc.collect()
        if self._trim is not None:
            self._trim(0)
