"""The training jobs of what is tried: the one that was given, and samples that show, fail or wait. Each is run once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from subprocess import TimeoutExpired

from mooring.contract.paths import ContainerPaths
from mooring.runner.process_runner import RunningProcess
from mooring.workbench.attend import as_shells_do
from mooring.workbench.job import GRACE_SECONDS, TrainingJob

from . import samples
from .finding import NotApplicableError
from .server import PAUSE_S, Log
from .servers import start
from .subject import Subject

# How long a line that was written may take to be seen here.
LINE_SECONDS = 3.0
# What would have another program run than a sample's script.
PROGRAM_VARIABLES = (
    "SAGEMAKER_PROGRAM",
    "SAGEMAKER_SUBMIT_DIRECTORY",
    "SAGEMAKER_TRAINING_MODULE",
    "MOORING_ALGORITHM",
)
NO_SCRIPTS = (
    "`train` did not run the script in /opt/ml/code that SAGEMAKER_PROGRAM names, so it has an algorithm of its own, "
    "and what that reads is not to be seen from outside."
)


@dataclass(frozen=True)
class FinishedJob:
    """What came of a job. One that did not end in time was killed, and has no exit code."""

    code: int | None
    seconds: float  # from its start, or from SIGTERM where it was stopped
    paths: ContainerPaths
    log: Log

    @cached_property
    def seen(self) -> dict[str, object] | None:
        """What the sample script saw, None where it was not run."""
        return samples.read_seen(self.paths.model)

    @property
    def model_files(self) -> list[str]:
        """The names of what it left to be deployed."""
        files = (path for path in sorted(self.paths.model.rglob("*")) if path.is_file())
        return [str(path.relative_to(self.paths.model)) for path in files]

    @property
    def failure(self) -> str | None:
        """The failure file, None where there is none."""
        if not self.paths.failure.is_file():
            return None
        return self.paths.failure.read_text(encoding="utf-8", errors="replace")

    def __str__(self) -> str:
        if self.code is None:
            return f"The job was still running after {self.seconds:.0f} s.{self.log.last_words}"
        ended = f"The job ended with exit code {self.code} after {self.seconds:.1f} s."
        return f"{ended}{self.log.last_words}" if self.code else ended


@dataclass(frozen=True)
class StoppedJob:
    """What came of a job that was sent SIGTERM once it was under way, if it ever was."""

    ended: FinishedJob
    was_under_way: bool
    was_heard_of: bool  # what it had written came out before the signal


class Jobs:
    """Runs jobs, each when it is first asked for."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @cached_property
    def main(self) -> FinishedJob:
        """The job that was given, else the sample that shows what it sees."""
        return self.run() if self._subject.given.has_job else self.sample

    @cached_property
    def sample(self) -> FinishedJob:
        """The sample that shows what a script sees."""
        return self.run(samples.SHOWS_WHAT_IT_SEES)

    @property
    def seen(self) -> dict[str, object]:
        """What a script sees. Raises `NotApplicableError` where scripts are not run."""
        sample = self.sample
        if sample.seen is not None:
            return sample.seen
        if sample.code != 0:
            raise NotApplicableError(f"The sample's script left no mark, and its job ended with {sample.code}.")
        raise NotApplicableError(NO_SCRIPTS)

    @cached_property
    def failed(self) -> FinishedJob:
        """The sample that fails. Raises `NotApplicableError` where scripts are not run."""
        _ = self.seen
        return self.run(samples.FAILS)

    @cached_property
    def stopped(self) -> StoppedJob:
        """A job that was sent SIGTERM: the sample that waits for it where scripts are run, else the one given."""
        runs_scripts = self.sample.seen is not None
        with self._started(samples.WAITS if runs_scripts else None) as (container, paths, log):
            left = paths.model / samples.WAITING_FILE

            def has_begun() -> bool:
                return left.exists() if runs_scripts else bool(log.lines)

            def has_ended() -> bool:
                return container.poll() is not None

            _comes_true(lambda: has_begun() or has_ended(), self._subject.given.timeout_seconds)
            was_heard_of = _comes_true(lambda: has_ended() or samples.WAITING in log.lines, LINE_SECONDS)
            was_under_way = has_begun() and not has_ended()
            sent = time.monotonic()
            code = as_shells_do(container.stop(GRACE_SECONDS))
            return StoppedJob(FinishedJob(code, time.monotonic() - sent, paths, log), was_under_way, was_heard_of)

    def run(self, script: str | None = None, options: tuple[str, ...] = (), *, is_open: bool = False) -> FinishedJob:
        """Run a sample's script, or without one the job that was given, to its end. `options` are Docker's."""
        began = time.monotonic()
        with self._started(script, options, is_open=is_open) as (container, paths, log):
            try:
                code: int | None = as_shells_do(container.wait(self._subject.given.timeout_seconds))
            except TimeoutExpired:
                code = None
            return FinishedJob(code, time.monotonic() - began, paths, log)

    @contextmanager
    def _started(
        self, script: str | None, options: tuple[str, ...] = (), *, is_open: bool = False
    ) -> Iterator[tuple[RunningProcess, ContainerPaths, Log]]:
        """Start a job. One that is open leaves its folders to whatever user it runs as."""
        folder = self._subject.new_folder()
        (spec,) = (self._subject.job if script is None else self._sample(script)).prepare(folder)
        if is_open:
            for path in (path for path in spec.base.rglob("*") if path.is_dir()):
                path.chmod(0o777)
        log = Log()
        with start(replace(spec, options=options), log) as container:
            yield container, ContainerPaths(spec.base), log

    def _sample(self, script: str) -> TrainingJob:
        variables = self._subject.given.variables
        return TrainingJob(
            {samples.CHANNEL: samples.write_channel(self._subject.new_folder() / "channel")},
            samples.HYPERPARAMETERS,
            samples.write_script(self._subject.new_folder() / "code", script),
            image=self._subject.image,
            variables={name: variables[name] for name in variables if name not in PROGRAM_VARIABLES},
        )


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not (is_true := condition()) and time.monotonic() < limit:
        time.sleep(PAUSE_S)
    return is_true
