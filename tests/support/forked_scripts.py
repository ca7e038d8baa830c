"""Scripts in processes of their own that have torch at once: forked from one that has imported it."""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 90.0
IMPORTED = ["torch", "torch.distributed", "torch.utils.data", "mooring.training.data.channel"]


class ForkedScript:
    """A running script, as if started with `python -c`, with some variables more."""

    def __init__(self, script: str, variables: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        handle, name = tempfile.mkstemp(prefix="mooring-test-")
        os.close(handle)
        self._file = Path(name)
        self._process = context.Process(target=_run, args=(script, dict(variables), name), daemon=True)
        self._process.start()

    def output(self) -> str:
        """Return what it has printed."""
        return self._file.read_text(encoding="utf-8")

    def wait_for_line(self, line: str) -> None:
        """Wait until it has printed a line."""
        limit = time.monotonic() + TIMEOUT_S
        while line not in self.output().splitlines():
            assert self._process.exitcode is None, self.output()
            assert time.monotonic() < limit, self.output()
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self) -> int:
        """Return the exit code."""
        self._process.join(TIMEOUT_S)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        assert code is not None, f"it does not end:\n{self.output()}"
        return code


def _run(script: str, variables: dict[str, str], output: str) -> None:
    os.environ.update(variables)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})
