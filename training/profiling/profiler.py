"""The profiler of a training loop: what a script puts around its batches and their parts."""

import logging
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
        self._parts: list[tuple[str, Any]] = []  # of the step that runs
        self._names: list[str] = []  # of the phases that are open

    def steps(self, batches: Iterable[T], *, after: int | None = None) -> Iterator[T]:
        """Yield the batches. A step is the wait for one, and what the loop does with it.

        Steps are numbered on and on, or from the one after step `after`.
        """
        if after is not None:
            self._next_step = after + 1
        if not self._recorder.is_on:
            for batch in batches:  # noqa: UP028 - `yield from` would close an iterator that the loop goes on with later
                yield batch
            return
        self._recorder.clock = self._recorder.clock or clock_here()
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

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of a step under a name of your own; between steps, something such as "validation"."""
        if not self._parts:
            began = time.perf_counter()
            try:
                yield
            finally:
                if self._recorder.is_on:
                    self._recorder.outside.append((name, time.perf_counter() - began))
            return
        self._names.append(name)
        self._to(name)
        try:
            yield
        finally:
            self._names.pop()
            if self._parts:
                self._to(self._names[-1] if self._names else OTHER)

    def _begin_step(self) -> None:
        self._began_at = self._recorder.time.now()
        self._to(DATA)

    def _to(self, name: str) -> None:
        clock = self._recorder.clock
        assert clock is not None
        self._parts.append((name, clock.mark()))

    def _end_step(self) -> None:
        clock = self._recorder.clock
        assert clock is not None
        parts, self._parts = self._parts, []
        if self._recorder.is_on:
            self._recorder.done.append(MarkedStep(self._next_step, self._began_at, tuple(parts), clock.mark()))
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


def _config(paths: ContainerPaths, variables: Mapping[str, str], *, by_default: bool) -> ProfilerConfig:
    """Return how to profile; if the file cannot be used, into the folder there is without one."""
    try:
        return read_profiler_config(paths, variables, by_default=by_default)
    except ConfigurationFileError as error:
        config = ProfilerConfig(paths.output_data / "profile")
        logger.warning("Profiling as if there were no configuration, into %s: %s", config.directory, error)
        return config
