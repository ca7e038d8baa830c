"""What Linux lets a process arrange with its parent and its children: who dies with whom, and who takes in orphans.

For processes that reap every child themselves; `subprocess` and `multiprocessing` would miss statuses taken here.
"""

import ctypes
import fcntl
import os
import signal
import time
import warnings
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CHILDREN = Path("/proc/thread-self/children")
PAUSE_S = 0.01


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, as the first process of a container is."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def fork_beside_threads() -> int:
    """Fork a process whose other threads are libraries' own and hold nothing that the child will want.

    From 3.12 on Python warns of every thread there is. onnxruntime and torch start one when they are imported, which
    only waits.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*is multi-threaded, use of fork\(\)", DeprecationWarning)
        return os.fork()


def die_with(parent: int) -> None:
    """Be killed when the parent ends; at once if it has ended already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be asked for


def die_with_writer(pipe: int) -> None:
    """Be killed with the whole process group when the last process that can write to a pipe is gone.

    By the kernel: no thread of this process need get a turn.
    """
    # Who is signalled belongs to the open file, and the one behind `pipe` is shared with others.
    own = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)


def end_group(leader: int) -> None:
    """End what a leader of a process group, which has just ended itself, leaves behind.

    Asked, not killed: Python's own resource tracker does not listen, removes shared memory, and then ends.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGTERM)


def kill_children() -> None:
    """Kill the children of this thread; what they leave behind becomes ours, and is killed the next time."""
    for pid in CHILDREN.read_text(encoding="ascii").split():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(pid), signal.SIGKILL)


def end_children(seconds: float) -> None:
    """Kill and reap every descendant, daemons in sessions of their own too, for so long at most."""
    limit = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while time.monotonic() < limit:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                kill_children()
                time.sleep(PAUSE_S)
