"""Folders that a server needs while it lives. Those of one that was killed are removed by the next on the same disk.

A container that is restarted keeps its files: without this, each kill would leave every archive it had unpacked.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from mooring.contract.errors import SettingError

PREFIX = "mooring-live-"
# The address of a socket has 107 bytes (unix(7)), of which our folder's name and a file in it take some.
MOST_PARENT_BYTES = 78


class Scratch:
    """A folder below the one for temporary files, locked by this process until it ends.

    Raises `SettingError` if its path is too long for sockets.
    """

    def __init__(self) -> None:
        # Under its final name it is locked from the first moment: whoever finds it unlocked may remove it.
        parent = tempfile.gettempdir()
        if len(os.fsencode(parent)) > MOST_PARENT_BYTES:
            raise SettingError("TMPDIR", parent, f"a path of {MOST_PARENT_BYTES} bytes or fewer, for sockets lie in it")
        made = Path(tempfile.mkdtemp(prefix=".", dir=parent))
        self._lock = _locked(made)
        self.folder = made.rename(made.with_name(PREFIX + made.name.removeprefix(".")))

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_abandoned() -> list[Path]:
    """Delete the folders whose process has ended without doing so; returns them."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            removed.append(folder)
    return removed


def _locked(folder: Path) -> int | None:
    """Lock a folder for this process alone; None if somebody else has, or it is not ours to touch."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_uid == os.getuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
    except OSError:
        pass
    os.close(handle)
    return None
