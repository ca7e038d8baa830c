"""Training jobs as the platform runs them: a tree of files, the command `train`, its processes and what it leaves."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mooring.contract.paths import ContainerPaths
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.platform_files import write_training_inputs
from mooring.runner.process_runner import ProcessRunner, RunningProcess

TIMEOUT_S = 240.0


@dataclass
class Run:
    """One run of `train`."""

    process: RunningProcess
    lines: list[str]

    @classmethod
    def start(cls, spec: ContainerSpec) -> "Run":
        """Start what `spec` says, and collect what it prints."""
        lines: list[str] = []
        return cls(ProcessRunner(on_line=lines.append).start(spec), lines)

    @property
    def output(self) -> str:
        """Everything it has printed."""
        return "".join(self.lines)

    def wait(self) -> int:
        """Return its exit code."""
        return self.process.wait(TIMEOUT_S)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds; fails if the run ends first."""
        limit = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, f"train ended with {self.process.poll()}:\n{self.output}"
            assert time.monotonic() < limit, f"it never came:\n{self.output}"
            time.sleep(0.01)

    def wait_for_line(self, text: str, count: int = 1) -> None:
        """Wait until `count` lines hold a text."""
        self.wait_for(lambda: sum(text in line for line in list(self.lines)) >= count)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Signal the first process, as the platform does."""
        os.kill(self.process.pid, number)

    def agent(self) -> psutil.Process:
        """Return the agent."""
        return psutil.Process(self.process.pid).children()[0]

    def ranks(self) -> list[psutil.Process]:
        """Return the rank leaders, in order. What else the agent has started leads no session."""
        leaders = []
        with suppress(IndexError, psutil.NoSuchProcess):  # there is no agent yet, or any more
            for child in self.agent().children():
                with suppress(ProcessLookupError):
                    if os.getsid(child.pid) == child.pid:
                        leaders.append(child)
        return sorted(leaders, key=lambda process: process.pid)

    def family(self) -> list[psutil.Process]:
        """Return every process of the run."""
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]


@dataclass
class Job:
    """A job's folder, in which `train` may run more than once."""

    base: Path
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def write(
        cls,
        base: Path,
        script: str = "",
        *,
        name: str = "train.py",
        hyperparameters: Mapping[str, Any] | None = None,
        channels: Mapping[str, str | None] | None = None,
        ranks: int | None = None,
    ) -> "Job":
        """Write the platform's files, and a script if there is one."""
        paths = write_training_inputs(base, hyperparameters=hyperparameters or {}, channels=channels or {})
        variables = {} if ranks is None else {"MOORING_PROCESSES_PER_HOST": str(ranks)}
        if script:
            (paths.code / name).write_text(script, encoding="utf-8")
            variables["SAGEMAKER_PROGRAM"] = name
        return cls(base, variables)

    @property
    def paths(self) -> ContainerPaths:
        """Where its files lie."""
        return ContainerPaths(self.base)

    def start(self, **variables: str) -> Run:
        """Start `train`."""
        return Run.start(ContainerSpec(command=("train",), base=self.base, variables=self.variables | variables))

    def run(self, **variables: str) -> tuple[int, str]:
        """Run `train` to its end; returns exit code and output."""
        run = self.start(**variables)
        with run.process:
            return run.wait(), run.output

    @property
    def failure(self) -> str:
        """The failure file's text."""
        return self.paths.failure.read_text(encoding="utf-8")
