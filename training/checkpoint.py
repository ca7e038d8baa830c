"""Checkpoints: written while training goes on, believed only when whole, resumed from by default."""

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from mooring.contract.environment import checkpoint_directory, process_variables
from mooring.contract.errors import UserCodeError
from mooring.contract.paths import ContainerPaths

from .manifest import (
    MANIFEST,
    DamagedCheckpointError,
    Entries,
    entries_of,
    host_manifest_name,
    read_manifest,
    verify,
    write_manifest,
)
from .retention import Retention
from .state import GENERATORS, OPAQUE_PARTS, TrainingState

logger = logging.getLogger(__name__)

FOLDER = re.compile(r"step-(\d+)")
METADATA = ".metadata"

T = TypeVar("T")


class CheckpointMismatchError(UserCodeError):
    """A checkpoint of another model: tensors are missing, unexpected or of another shape."""

    def __init__(self, folder: Path, missing: list[str], unexpected: list[str], reshaped: list[str]) -> None:
        self.missing = missing
        self.unexpected = unexpected
        self.reshaped = reshaped
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("not in the checkpoint", missing),
                ("not in the model", unexpected),
                ("of another shape", reshaped),
            )
            if names
        ]
        super().__init__(
            f"{folder} was written by another model or optimizer; {'; '.join(parts)}. "
            "Train with the settings it was written with, or into an empty checkpoint folder."
        )


class Checkpointer:
    """Saves and resumes one run's state. Every method that is not a property is to be called on all ranks alike.

        with Checkpointer(state) as checkpoints:
            checkpoints.resume()
            for batch in batches:
                ...
                state.step += 1
                checkpoints.save()

    A save that fails (a full disk, say) is logged, training goes on, and the last good checkpoint stays.
    """

    def __init__(self, state: TrainingState, directory: Path | None = None, *, keep: Retention | None = None) -> None:
        variables = process_variables()
        self._state = state
        self._directory = directory or checkpoint_directory(ContainerPaths.from_variables(variables))
        self._keep = keep or Retention()
        self._host = variables.get("SM_CURRENT_HOST", "algo-1")
        self._is_host_leader = variables.get("LOCAL_RANK", "0") == "0"
        # Saving talks among ranks while training does: in a group of its own, on CPU, whatever the training's backend.
        self._group = dist.new_group(backend="gloo")
        self._stager = _make_stager()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_flight: Future[None] | None = None

    # --- saving -----------------------------------------------------------------------------------------------------

    def save(self, metric: float | None = None) -> None:
        """Begin to save the state as it is now; returns once it is copied. One save is in flight at a time.

        `metric` is what `Retention.best` compares.
        """
        self.wait()
        staged = self._stager.stage(self._state.capture())
        assert isinstance(staged, dict)
        self._in_flight = self._writer.submit(self._write, self._state.step, staged, metric)

    def wait(self) -> None:
        """Wait until the save in flight has ended, if there is one."""
        if self._in_flight is not None:
            self._in_flight.result()
            self._in_flight = None

    def _write(self, step: int, staged: dict[str, Any], metric: float | None) -> None:
        """Write a checkpoint, manifests last. Runs in the writer's thread, on all ranks in step."""
        folder = self._folder(step)
        try:
            self._together(lambda: self._clear(folder))
            self._together(lambda: self._write_files(folder, staged))
            entries = self._together(lambda: (self._host, entries_of(self._own_files(folder))))
            manifests = self._together(lambda: self._write_host_manifest(folder, entries))
            self._together(lambda: self._write_manifest(folder, step, manifests, metric))
        except _SaveError as error:
            if self._is_host_leader:
                shutil.rmtree(folder, ignore_errors=True)  # a disk that is full needs the room
                logger.warning("The checkpoint of step %d failed, training goes on: %s", step, error)
            return
        if dist.get_rank() == 0:
            logger.info("checkpoint of step %d is in %s", step, folder)
        self._make_room()

    def _make_room(self) -> None:
        """Remove the checkpoints that are not to be kept. What cannot be removed stays, and costs nothing but room."""
        try:
            # The first rank's answer counts: only its host has all manifests.
            kept = self._together(self._kept)[0]
            self._together(lambda: self._prune(kept))
        except _SaveError as error:
            if self._is_host_leader:
                logger.warning("An older checkpoint could not be removed: %s", error)

    def _together(self, action: Callable[[], T]) -> list[T]:
        """Do something on every rank and return what each got, in the order of ranks.

        Raises `_SaveError` on all of them if it failed on any: nobody may wait for a rank that gave up.
        """
        result, problem = None, None
        try:
            result = action()
        except CheckpointException as error:
            problem = "; ".join(f"rank {rank}: {failure!r}" for rank, (failure, _) in error.failures.items())
        except OSError as error:
            problem = f"rank {dist.get_rank()} on {self._host}: {error}"
        gathered = self._gather((result, problem))
        problems = sorted({problem for _, problem in gathered if problem is not None})
        if problems:
            raise _SaveError("; ".join(problems))
        return [result for result, _ in gathered]

    def _gather(self, mine: Any) -> list[Any]:
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, mine, group=self._group)
        return gathered

    def _clear(self, folder: Path) -> None:
        """Remove what an earlier attempt at this step left."""
        if self._is_host_leader:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)

    def _write_files(self, folder: Path, staged: dict[str, Any]) -> None:
        dcp_save(staged, storage_writer=FileSystemWriter(folder, sync_files=True), process_group=self._group)

    def _own_files(self, folder: Path) -> Iterator[Path]:
        """Yield the files that this rank wrote; DCP puts the rank into their names."""
        yield from folder.glob(f"__{dist.get_rank()}_*")
        if dist.get_rank() == 0:
            yield folder / METADATA

    def _write_host_manifest(self, folder: Path, entries: list[tuple[str, Entries]]) -> Entries:
        """Write this host's manifest if this rank leads it, and return the manifest's own entry."""
        if not self._is_host_leader:
            return {}
        file = folder / host_manifest_name(self._host)
        files = {name: entry for host, part in entries if host == self._host for name, entry in part.items()}
        write_manifest(file, {"host": self._host, "files": files})
        return entries_of([file])

    def _write_manifest(self, folder: Path, step: int, manifests: list[Entries], metric: float | None) -> None:
        if dist.get_rank() == 0:
            hosts = {name: entry for part in manifests for name, entry in part.items()}
            content = {"step": step, "world_size": dist.get_world_size(), "metric": metric, "hosts": hosts}
            write_manifest(folder / MANIFEST, content)

    def _kept(self) -> set[int]:
        return self._keep.kept(dict(self._complete()))

    def _complete(self) -> Iterator[tuple[int, float | None]]:
        """Yield the steps that have a manifest here, each with its metric."""
        for step in self._steps():
            with suppress(DamagedCheckpointError):
                yield step, read_manifest(self._folder(step)).get("metric")

    def _prune(self, kept: set[int]) -> None:
        """Remove what is older than the newest and not kept. Newer folders are of a run that was ahead, and damaged."""
        if not self._is_host_leader:
            return
        for step in self._steps():
            if step not in kept and step < max(kept):
                # Without its manifest it is no checkpoint, whenever the rest of it goes.
                (self._folder(step) / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(self._folder(step))

    # --- resuming ---------------------------------------------------------------------------------------------------

    def resume(self, at_most: int | None = None) -> int | None:
        """Put the state where the newest valid checkpoint left it, and return its step; None if there is none.

        `at_most` is the newest step that will do, such as the best's. Raises `CheckpointMismatchError` if the
        checkpoint is another model's.
        """
        step = self.newest_valid(at_most)
        if step is None:
            if dist.get_rank() == 0:
                logger.info("no checkpoint in %s: starting from the beginning", self._directory)
            return None
        folder = self._folder(step)
        reader = FileSystemReader(folder)
        saved = reader.read_metadata().state_dict_metadata
        target = self._state.capture()
        if not any(name.startswith(f"{GENERATORS}.rank-{dist.get_rank()}.") for name in saved):
            del target[GENERATORS]  # fewer ranks wrote it: this one's generators stay as they were seeded
        _check_match(folder, saved, target)
        dcp_load(target, storage_reader=reader, process_group=self._group)
        self._state.restore(target)
        if dist.get_rank() == 0:
            logger.info("resumed after step %d from %s", step, folder)
        return step

    def newest_valid(self, at_most: int | None = None) -> int | None:
        """Return the newest step that is valid on all hosts, None if there is none.

        Each host's leader looks at what its host has.
        """
        ceiling = at_most
        while True:
            here = self._newest_valid_here(ceiling) if self._is_host_leader else None
            found = [step for is_leader, step in self._gather((self._is_host_leader, here)) if is_leader]
            if None in found:
                return None
            ceiling = int(min(found))
            if max(found) == ceiling:
                return ceiling

    def _newest_valid_here(self, ceiling: int | None) -> int | None:
        for step in self._steps():
            if ceiling is not None and step > ceiling:
                continue
            try:
                verify(self._folder(step))
            except DamagedCheckpointError as error:
                logger.warning("The checkpoint of step %d is skipped: %s", step, error)
            else:
                return step
        return None

    # --- the folder -------------------------------------------------------------------------------------------------

    def _steps(self) -> list[int]:
        """Return the steps that have a folder, newest first."""
        if not self._directory.is_dir():
            return []
        matches = (FOLDER.fullmatch(entry.name) for entry in self._directory.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def _folder(self, step: int) -> Path:
        return self._directory / f"step-{step:08}"

    def close(self) -> None:
        """Wait for the save in flight, and let go of the buffers."""
        self.wait()
        self._writer.shutdown()
        self._stager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()


class _SaveError(Exception):
    """A save failed on some rank."""


def _check_match(folder: Path, saved: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Raise `CheckpointMismatchError` unless the checkpoint holds the same tensors of model and optimizer."""
    wanted = {name: tensor.shape for part in ("model", "optimizer") for name, tensor in _tensors(part, target[part])}
    held = {
        name: entry.size
        for name, entry in saved.items()
        if isinstance(entry, TensorStorageMetadata) and name.partition(".")[0] in ("model", "optimizer")
    }
    opaque = {name for name in OPAQUE_PARTS if name in target and name not in saved}
    missing = sorted((wanted.keys() - held.keys()) | opaque)
    unexpected = sorted(held.keys() - wanted.keys())
    reshaped = sorted(
        f"{name} {tuple(held[name])} in the checkpoint, {tuple(wanted[name])} here"
        for name in wanted.keys() & held.keys()
        if wanted[name] != held[name]
    )
    if missing or unexpected or reshaped:
        raise CheckpointMismatchError(folder, missing, unexpected, reshaped)


def _tensors(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a nested state under the names that DCP gives them."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}.{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(f"{prefix}.{name}", value)


def _make_stager() -> DefaultStager:
    """Return a stager that keeps its buffers between saves."""
    has_gpu = torch.cuda.is_available()
    return DefaultStager(
        StagingOptions(
            use_pinned_memory=has_gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=has_gpu
        )
    )
