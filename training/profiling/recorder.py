"""The thread beside a loop that samples the machine, and writes down what it and the loop have done.

Whatever goes wrong here is said once and costs the profile, never the run.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mooring.contract.debugger_config import ProfilerConfig, read_profiler_config
from mooring.contract.environment import process_variables
from mooring.contract.errors import ConfigurationFileError
from mooring.contract.paths import ContainerPaths
from mooring.training.json_lines import append_row

from .clocks import Clock
from .gpus import GpuUsage
from .steps import MarkedStep, TimedStep, rounded, stretch
from .summary import RANK_FILES
from .usage import HostUsage, ProcessUsage, free_bytes

logger = logging.getLogger(__name__)

# A run of weeks is not to fill the disk: each time a file has grown by so much, half as much is written.
THIN_AFTER_BYTES = 8 << 20
STOP_S = 10.0


def rank_file(directory: Path, rank: int) -> Path:
    """Return the file that a rank writes, and nobody else on any host."""
    return directory / RANK_FILES.replace("*", f"{rank:05}")


class RunTime:
    """The time of the run: of the day when it began, and no jump of that clock after."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return it in seconds since the epoch."""
        return time.monotonic() + self._offset


class Recorder:
    """Samples and writes while its `with` block runs. `done` and `outside` are the loop's to append to."""

    def __init__(self, paths: ContainerPaths, config: ProfilerConfig, facts: Mapping[str, Any]) -> None:
        self.is_on = config.is_enabled
        self.time = RunTime()
        self.done: deque[MarkedStep] = deque()
        self.outside: deque[tuple[str, float]] = deque()
        self.clock: Clock | None = None
        self._paths = paths
        self._config = config
        self._facts = dict(facts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiler", daemon=True)
        self._file = rank_file(config.directory, int(facts["rank"]))
        self._seen_config = self._config_stamp()
        self._said: set[str] = set()
        self.stride = 1  # a run that has written much samples this many times less often
        self._is_first = True

    @property
    def directory(self) -> Path:
        """Where the profile lies. A folder named later than at the start is not heeded."""
        return self._config.directory

    def start(self) -> None:
        """Begin to sample."""
        self._facts["at"] = self._at()
        self._thread.start()

    def stop(self, *, is_well: bool) -> None:
        """Write what is left, and end."""
        self._stop.set()
        self._thread.join(STOP_S)
        if self._thread.is_alive() or not self.is_on:
            return
        if self.done and self.clock is not None and is_well:
            self._guarded(lambda: self.clock.wait(self.done[-1].end))  # type: ignore[union-attr]  # as it says above
        self._guarded(self._write_steps)
        self._write({"kind": "end", "at": self._at(), "is_well": is_well})

    def _run(self) -> None:
        # What begins its measuring here may take a moment, which the loop is not to wait for.
        leads = self._facts["local_rank"] == 0
        host = HostUsage() if leads else None
        process = ProcessUsage()
        gpus = GpuUsage(self._config.interval_ms) if leads and self.is_on else None
        self._write({"kind": "start", **self._facts, **(host.facts() if host else {})})
        sources: list[Callable[[], Mapping[str, Any]]] = [process.sample]
        sources += [each.sample for each in (host, gpus) if each is not None]
        try:
            while not self._stop.wait(self._config.interval_ms * self.stride / 1000):
                self._guarded(self._heed_config)
                if self.is_on:
                    self._guarded(lambda: self._write_sample(sources))
                    self._guarded(self._write_steps)
        finally:
            if gpus is not None:
                gpus.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write_sample(self, sources: list[Callable[[], Mapping[str, Any]]]) -> None:
        row: dict[str, Any] = {"kind": "sample", "at": self._at()}
        for source in sources:
            row |= source()
        if (free := free_bytes(self.directory)) is not None:
            row["disk_free"] = free
        self._write(row)

    def _write_steps(self) -> None:
        """Write the steps whose times are known, and what has been done between steps."""
        if steps := self._timed():
            if self._is_first:
                # It waits for workers to start and caches to fill, which says nothing about those that follow.
                self._is_first = False
                self._write(stretch(steps[:1]) | {"is_first": True})
                steps = steps[1:]
            if steps:
                self._write(stretch(steps))
        between: dict[str, float] = {}
        while self.outside:
            name, seconds = self.outside.popleft()
            between[name] = between.get(name, 0.0) + seconds
        if between:
            self._write({"kind": "outside", "at": self._at(), "phases": rounded(between)})

    def _timed(self) -> list[TimedStep]:
        steps = []
        while self.done and self.clock is not None and self.clock.is_passed(self.done[0].end):
            steps.append(self.done.popleft().timed(self.clock))
        return steps

    def _write(self, row: Mapping[str, Any]) -> None:
        if not self.is_on:
            return
        try:
            append_row(self._file, row)
            if self._file.stat().st_size > THIN_AFTER_BYTES * self.stride:
                self.stride *= 2
        except OSError as error:
            self._say(f"The profile of this run has gaps: {error}")

    def _at(self) -> float:
        return round(self.time.now(), 3)

    # --- what goes wrong, and what is asked for meanwhile -----------------------------------------------------------

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the run is worth more than whatever this is
            self._say(f"Profiling failed, training goes on: {type(error).__name__}: {error}")

    def _say(self, sentence: str) -> None:
        """Warn, once."""
        if sentence not in self._said:
            self._said.add(sentence)
            logger.warning("%s", sentence)

    def _heed_config(self) -> None:
        """Take over a configuration that has been written anew. One that cannot be used changes nothing."""
        stamp = self._config_stamp()
        if stamp == self._seen_config:
            return
        self._seen_config = stamp
        try:
            config = read_profiler_config(self._paths, process_variables())
        except ConfigurationFileError as error:
            self._say(f"Profiling goes on as before: {error}")
            return
        self._config = ProfilerConfig(self._config.directory, config.is_enabled, config.interval_ms)
        if config.is_enabled != self.is_on:
            logger.info("profiling is now %s", "on" if config.is_enabled else "off")
        self.is_on = config.is_enabled

    def _config_stamp(self) -> tuple[int, int] | None:
        try:
            status = self._paths.profiler_config_file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
