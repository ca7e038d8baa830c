"""Runs the entry point inside a forked rank, as a fresh interpreter would have run it."""

import importlib
import os
import runpy
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType

from mooring.compat.finder import Room, install

from .entry_point import Command, EntryPoint, Function, Script
from .failure import write_error

# Frames of these are ours, not the script's.
RUNPY = Path(runpy.__file__)


def run(entry_point: EntryPoint, arguments: tuple[str, ...], error_file: Path) -> int:
    """Run the entry point and return its exit code. What it raises goes to stderr and into the error file.

    A command replaces this process, and so never returns.
    """
    install(Room.TRAINING)
    try:
        if isinstance(entry_point, Command):
            _execute((*entry_point.argv, *arguments))
        elif isinstance(entry_point, Script):
            sys.argv = [str(entry_point.path), *arguments]
            sys.path.insert(0, str(entry_point.path.parent))
            runpy.run_path(str(entry_point.path), run_name="__main__")
        elif isinstance(entry_point, Function):
            sys.argv = [entry_point.module, *arguments]
            getattr(importlib.import_module(entry_point.module), entry_point.name)()
        else:
            sys.argv = [entry_point.name, *arguments]
            runpy.run_module(entry_point.name, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:  # noqa: BLE001 - whatever a script may raise, its supervisor is to know
        at = time.time()
        error.__traceback__ = _users_part(error)
        traceback.print_exception(error)
        write_error(error_file, error, at, skip=Path(sys.prefix))
        return 1
    return 0


def _execute(argv: tuple[str, ...]) -> None:
    if not os.access(argv[0], os.X_OK):
        Path(argv[0]).chmod(0o755)  # archives often lose the bit
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point


def _exit_code(stop: SystemExit) -> int:
    """Return what the interpreter would have made of the exception."""
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    sys.stderr.write(f"{stop.code}\n")
    return 1


def _users_part(error: BaseException) -> TracebackType | None:
    """Return the traceback from the first frame that is neither ours nor runpy's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen runpy") or Path(filename) in (RUNPY, Path(__file__))
