"""The profiler of a training loop: what a script puts around its batches and their parts."""

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from mooring.contract.debugger_config import ProfilerConfig, read_profiler_config
from mooring.contract.environment import process_variables
from mooring.contract.errors import ConfigurationFileError
from mooring.contract.paths import ContainerPaths

from .clocks import clock_here
from .recorder import Recorder
from .report import write_report
from .steps import DATA, OTHER, MarkedStep
from .summary import ranks_ended

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long the first rank waits for what the others have still to write, before it makes the report.
OTHERS_S = 5.0
POLL_S = 0.02


class Profiler:
    """Times the steps of a loop and samples the machine meanwhile; leaves a report where profilerconfig.json says.

        with Profiler() as profiler:
            for inputs, labels in profiler.steps(loader):
                with profiler.phase("forward"):
                    loss = cross_entropy(model(inputs), labels)
                with profiler.phase("backward"):
                    loss.backward()

    The wait for a batch is the phase "data"; what is in no phase is "other". A phase may hold another, whose time then
    counts as the other's only. `directory` comes before the configuration's. Use it from one thread. Nothing of it ends
    the run, whatever happens to its files. MOORING_PROFILE turns it on or off, or else the configuration does; where
    neither says, it is on, unless `by_default` is False.
    """

    def __init__(self, directory: Path | None = None, *, by_default: bool = True) -> None:
        variables = process_variables()
        paths = ContainerPaths.from_variables(variables)
        self._rank = int(variables.get("RANK", "0"))
        self._local_ranks = int(variables.get("LOCAL_WORLD_SIZE", "1"))
        config = _config(paths, variables, by_default=by_default)
        if directory is not None:
            config = ProfilerConfig(directory, config.is_enabled, config.interval_ms)
        facts = {
            "rank": self._rank,
            "local_rank": int(variables.get("LOCAL_RANK", "0")),
            "world_size": int(variables.get("WORLD_SIZE", "1")),
            "host": variables.get("SM_CURRENT_HOST") or socket.gethostname(),
            "job": variables.get("TRAINING_JOB_NAME") or "training job",
        }
        self._recorder = Recorder(paths, config, facts)
        self._next_step = 1
        self._mark: Callable[[], Any] = time.perf_counter
        self._parts: list[tuple[str, Any]] = []  # of the step that runs
        self._phases: dict[str, _Phase] = {}
        self._open: list[tuple[str, float | None]] = []  # phases, and when they began, for those between steps

    def steps(self, batches: Iterable[T], *, after: int | None = None) -> Iterator[T]:
        """Yield the batches. A step is the wait for one, and what the loop does with it.

        Steps are numbered on and on, or from the one after step `after`.
        """
        if after is not None:
            self._next_step = after + 1
        if not self._recorder.is_on:
            for batch in batches:  # not `yield from`, which would close an iterator that the loop goes on with later
                yield batch
            return
        self._recorder.clock = self._recorder.clock or clock_here()
        self._mark = self._recorder.clock.mark
        try:
            self._begin_step()
            for batch in batches:
                self._to(OTHER)
                yield batch
                self._end_step()
                self._begin_step()
            self._parts = []  # the wait for the end of the data is no step
        finally:
            if self._parts:
                self._end_step()  # the loop was left within it

    def phase(self, name: str) -> "_Phase":
        """Time a part of a step under a name of your own; between steps, something such as "validation"."""
        phase = self._phases.get(name)
        if phase is None:
            phase = self._phases[name] = _Phase(self, name)
        return phase

    def _enter(self, name: str) -> None:
        if self._parts:
            self._open.append((name, None))
            self._to(name)
        else:
            self._open.append((name, time.perf_counter()))

    def _leave(self) -> None:
        name, began = self._open.pop()
        if began is not None:
            if self._recorder.is_on:
                self._recorder.outside.append((name, time.perf_counter() - began))
        elif self._parts:
            outer, outer_began = self._open[-1] if self._open else (OTHER, None)
            self._to(outer if outer_began is None else OTHER)

    def _begin_step(self) -> None:
        self._began_at = self._recorder.time.now()
        self._to(DATA)

    def _to(self, name: str) -> None:
        self._parts.append((name, self._mark()))

    def _end_step(self) -> None:
        parts, self._parts = self._parts, []
        if self._recorder.is_on:
            self._recorder.done.append(MarkedStep(self._next_step, self._began_at, parts, self._mark()))
        self._next_step += 1

    def __enter__(self) -> Self:
        self._recorder.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._recorder.stop(is_well=kind is None)
        if self._rank != 0 or not self._recorder.is_on:
            return
        limit = time.monotonic() + (OTHERS_S if kind is None else 0.0)
        while ranks_ended(self._recorder.directory) < self._local_ranks and time.monotonic() < limit:
            time.sleep(POLL_S)
        try:
            logger.info("the profile of this run is in %s", write_report(self._recorder.directory))
        except Exception as error:  # noqa: BLE001 - the run is worth more than whatever this is
            logger.warning("The profile's report could not be made, training goes on: %s", error)


class _Phase:
    """A phase by its name, entered again in each step: a generator around each would cost as much again."""

    __slots__ = ("_name", "_profiler")

    def __init__(self, profiler: Profiler, name: str) -> None:
        self._profiler = profiler
        self._name = name

    def __enter__(self) -> None:
        self._profiler._enter(self._name)

    def __exit__(self, *_: object) -> None:
        self._profiler._leave()


def _config(paths: ContainerPaths, variables: Mapping[str, str], *, by_default: bool) -> ProfilerConfig:
    """Return how to profile; if the file cannot be used, into the folder there is without one."""
    try:
        return read_profiler_config(paths, variables, by_default=by_default)
    except ConfigurationFileError as error:
        config = ProfilerConfig(paths.output_data / "profile")
        logger.warning("Profiling as if there were no configuration, into %s: %s", config.directory, error)
        return config
