"""Containers as plain processes: the same commands, files, variables and signals, without an image."""

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from mooring.contract.environment import process_variables
from mooring.contract.errors import PlatformError

from .container_spec import ContainerSpec, Mount

# Variables of the platform that must not leak from the process that starts another.
PLATFORM_PREFIXES = ("SAGEMAKER_", "SM_", "TRAINING_JOB_")


class CommandNotFoundError(PlatformError):
    """The command of a container is neither beside this Python nor on PATH."""

    def __init__(self, command: str) -> None:
        self.command = command
        super().__init__(f"There is no command '{command}' beside {sys.executable} or on PATH.")


class RunningProcess:
    """A started container. Leaving its `with` block kills whatever of it is still there."""

    def __init__(self, process: "subprocess.Popen[str]", on_line: Callable[[str], None]) -> None:
        self._process = process
        self._reader = threading.Thread(target=self._relay, args=(on_line,), daemon=True)
        self._reader.start()

    def _relay(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            on_line(line)

    @property
    def pid(self) -> int:
        """The container's first process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended and all its output was relayed. Raises `subprocess.TimeoutExpired`."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def stop(self, grace_seconds: float) -> int:
        """Send SIGTERM, wait as long as the platform would, then kill everything. Returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def kill(self) -> None:
        """Kill the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class ProcessRunner:
    """Runs containers as processes of this machine; `on_line` gets each line of output, from another thread."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line

    def start(self, spec: ContainerSpec) -> RunningProcess:
        """Start a container. Raises `CommandNotFoundError`."""
        command = [_find(spec.command[0]), *spec.command[1:]]
        for mount in spec.mounts:
            _link(mount, spec.base)
        inherited = {
            name: value for name, value in process_variables().items() if not name.startswith(PLATFORM_PREFIXES)
        }
        process = subprocess.Popen(
            command,
            env=inherited | process_only_variables(spec) | dict(spec.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=None if spec.cpus is None else partial(_keep_to, spec.cpus),
        )
        return RunningProcess(process, self._on_line)


def process_only_variables(spec: ContainerSpec) -> dict[str, str]:
    """Return what a process is told because it has neither a /opt/ml nor a port 8080 of its own."""
    port = {} if spec.port is None else {"SAGEMAKER_BIND_TO_PORT": str(spec.port)}
    return {"PYTHONUNBUFFERED": "1", "SAGEMAKER_BASE_DIR": str(spec.base)} | port


def _link(mount: Mount, base: Path) -> None:
    place = base / mount.place
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rmdir()  # an empty one, where a mount would hide it
    place.symlink_to(mount.source.resolve())


def _keep_to(cpus: float) -> None:
    """Run on so many cores: a process has no quota, and what counts its cores sees these."""
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, usable[: max(1, math.ceil(cpus))])


def _find(command: str) -> str:
    beside = Path(sys.executable).parent / command
    found = str(beside) if beside.exists() else shutil.which(command)
    if found is None:
        raise CommandNotFoundError(command)
    return found
