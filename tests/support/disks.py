"""Small disks that fill up."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    if os.geteuid() != 0:
        return False
    try:
        with small_disk(folder, 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount an empty file system of so many bytes on a folder while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        # Lazily: what still runs there keeps it until it ends.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
