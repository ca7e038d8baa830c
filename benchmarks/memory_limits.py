"""A hard memory limit around a process, as a container has one: a control group of its own, seen as the root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION_1 = Path("/sys/fs/cgroup/memory")
VERSION_2 = Path("/sys/fs/cgroup")


def can_limit_memory() -> bool:
    """Whether this process may make control groups and namespaces: root, outside of most containers."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    try:
        with memory_limit(1 << 30) as command:
            return subprocess.run([*command, "true"], capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def memory_limit(size: int) -> Iterator[list[str]]:
    """Yield what to put before a command that shall live within `size` bytes and see that as its container's limit."""
    is_first = (VERSION_1 / "memory.limit_in_bytes").exists()
    group = (VERSION_1 if is_first else VERSION_2) / f"mooring-{os.getpid()}-{size}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(size))
        # The shell joins the group, then sees it in the place of the root.
        root = VERSION_1 if is_first else VERSION_2
        inside = f'mount --bind {group} {root} && exec "$@"'
        join = f"echo $$ > {group}/cgroup.procs && exec unshare --mount sh -c '{inside}' -- \"$@\""
        yield ["sh", "-c", join, "--"]
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:  # the last of its processes is still being reaped
                subprocess.run(["sleep", "0.1"], check=False)
