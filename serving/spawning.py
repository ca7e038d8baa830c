"""Processes of our own that are executed, not forked: a module of this package with descriptors it inherits."""

import os
import sys
from collections.abc import Mapping, Sequence


def start(module: str, handles: Sequence[int], arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Execute a module with descriptors, whose numbers come first among its arguments; returns its pid at once.

    posix_spawn, not subprocess: the front door reaps all its children itself, and subprocess would race it.
    """
    for handle in handles:
        os.set_inheritable(handle, True)
    command = [sys.executable, "-P", "-m", f"{__package__}.{module}", *map(str, handles), *arguments]
    return os.posix_spawn(sys.executable, command, variables)
