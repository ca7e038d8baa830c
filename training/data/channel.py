"""A channel as a training script opens it: by name, in whatever mode the platform gave it, and without a platform."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import default_collate

from mooring.contract.channels import Channel, Distribution, InputMode, read_channels, require_channel
from mooring.contract.environment import process_variables
from mooring.contract.errors import UserCodeError
from mooring.contract.paths import ContainerPaths
from mooring.training.sampler import DataPosition, GlobalBatchSampler

from .batches import Batches, ShareOfBatches
from .files import data_files
from .formats import Format, format_of
from .host_sampler import HostBatchSampler
from .manifests import Augmented, listed_files, manifest_of
from .passes import WAIT_S, FilePasses, Passes, PipePasses
from .progress import Progress
from .rows import Rows
from .shares import Place, Share, share_of_files, share_of_pipe

logger = logging.getLogger(__name__)

VARIABLE = "SM_CHANNEL_"
# What a file's name says where the channel's description says nothing.
CONTENT_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".rec": "application/x-recordio",
    ".txt": "text/plain",
}


class InputModeError(UserCodeError):
    """A channel cannot be read so in the mode that it has."""

    def __init__(self, channel: str, mode: InputMode, problem: str) -> None:
        self.channel = channel
        self.mode = mode
        super().__init__(f"Channel '{channel}' has input mode {mode.value}: {problem}.")


class EmptyChannelError(UserCodeError):
    """A channel has no files here, or on another host; raised on all ranks alike."""

    def __init__(self, channel: str, folder: Path, hosts: list[str]) -> None:
        self.channel = channel
        self.folder = folder
        self.hosts = tuple(hosts)
        where = f" on {', '.join(hosts)}" if hosts else ""
        hint = (
            "A channel that is ShardedByS3Key needs at least as many objects as there are hosts"
            if hosts
            else "Hidden files, those that begin with an underscore, and parts of downloads do not count"
        )
        super().__init__(f"Channel '{channel}' has no files in {folder}{where}. {hint}.")


def channel(name: str) -> "InputChannel":
    """Open a channel of this job by its name. Raises `MissingChannelError`, which names those there are.

    Where no inputdataconfig.json is, a channel is what SM_CHANNEL_<NAME> names, or a folder below input/data.

        train = channel("train")
        batches = train.batches(256, state.position, seed=1)
    """
    variables = process_variables()
    paths = ContainerPaths.from_variables(variables)
    channels, content = read_channels(paths)
    if not content:
        channels = _found(paths, variables)
    return InputChannel(_alone_or_first_of_several(channels, name), channels)


def _alone_or_first_of_several(channels: Mapping[str, Channel], name: str) -> Channel:
    """Return a channel; where each rank of a host has a pipe of its own, what they are all called without the rank."""
    first = channels.get(f"{name}_0")
    if name not in channels and first is not None and first.mode is InputMode.PIPE:
        return replace(first, name=name, path=first.path.with_name(name))
    return require_channel(channels, name)


def _found(paths: ContainerPaths, variables: Mapping[str, str]) -> dict[str, Channel]:
    """Return the channels that variables and folders tell of, all in File mode."""
    folders = sorted(paths.input_data.iterdir()) if paths.input_data.is_dir() else []
    found = {path.name: Channel(path.name, path) for path in folders if path.is_dir()}
    for variable, path in variables.items():
        name = variable.removeprefix(VARIABLE)
        if name != variable and path:
            known = next((given for given in found if given.upper() == name), name.lower())
            found[known] = Channel(known, Path(path))
    return found


@dataclass(frozen=True)
class InputChannel:
    """One channel. `description` is what the platform says of it."""

    description: Channel
    _all: Mapping[str, Channel]

    @property
    def name(self) -> str:
        """Its name."""
        return self.description.name

    @property
    def path(self) -> Path:
        """Its folder; in Pipe mode what the names of its FIFOs begin with."""
        return self.description.path

    @property
    def mode(self) -> InputMode:
        """How its data arrives."""
        return self.description.mode

    def files(self, *suffixes: str) -> list[Path]:
        """Return its data files by name, from subfolders, too; only those with one of the suffixes, if any are given.

        Left out are hidden files, what begins with an underscore (`_SUCCESS`, `_temporary`), and parts of downloads.
        Raises `InputModeError` in Pipe mode, `EmptyChannelError` if there is none.
        """
        if self.mode is InputMode.PIPE:
            raise InputModeError(self.name, self.mode, "it has no files; read it with batches()")
        found = data_files(self.path, suffixes)
        if not found:
            raise EmptyChannelError(self.name, self.path, [])
        return found

    def listed_files(self) -> list[Path]:
        """Return the files that the channel's manifest lists, in its order. Raises `ManifestError`."""
        return listed_files(self.path)

    def batches(
        self,
        batch_size: int,
        position: DataPosition | None = None,
        sample_format: Format | None = None,
        *,
        seed: int = 0,
        shuffle: int = 0,
        by_file: bool | None = None,
        drop_last: bool = True,
        collate: Callable[[list[Any]], Any] = default_collate,
        wait_s: float = WAIT_S,
        num_workers: int = 0,
        **options: Any,
    ) -> Batches:
        """Return this rank's share of batches of `batch_size` samples over all ranks, from where the position stands.

        The channel is read from front to back, so this is for every mode. With `shuffle`, files come in an order of
        each epoch's own, and so do samples, of which that many are held. With `by_file` each rank reads files of its
        own; otherwise each reads all that its host has and keeps its share. `drop_last=False` is for validation: the
        rest after the last whole batch comes, too, and ranks may get different numbers of batches. `wait_s` is how
        long a pipe may be silent. Other options are those of torch's DataLoader. Call it on all ranks alike.
        """
        place = _place()
        if self.mode is InputMode.PIPE and num_workers:
            problem = "one process can read it, and does so in a thread beside training; num_workers must be 0"
            raise InputModeError(self.name, self.mode, problem)
        chosen = sample_format or self._format()
        if self.mode is InputMode.PIPE:
            passes, share = self._pipe_passes(place, chosen, wait_s)
        else:
            passes, share = self._file_passes(place, chosen, by_file=by_file, seed=seed if shuffle else None)
        data = ShareOfBatches(
            passes,
            batch_size,
            position if position is not None else DataPosition(),
            share,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            collate=collate,
        )
        may_differ = drop_last and (not share.is_everything or self.mode is InputMode.PIPE)
        group = dist.new_group(backend="gloo") if may_differ and place.world_size > 1 else None
        return Batches(data, group, {"num_workers": num_workers, **options})

    def rows(self, sample_format: Format | None = None) -> Rows:
        """Return the samples by number, for a sampler that shuffles a whole epoch; where they begin is found now.

        For File mode. Raises `NoRandomAccessError` for compressed files, `InputModeError` in Pipe mode.

            rows = train.rows()
            loader = data_loader(rows, train.sampler(rows, 256, state.position, seed=1), num_workers=2)
        """
        if self.mode is InputMode.PIPE:
            raise InputModeError(self.name, self.mode, "samples come in the order of the pipe; read it with batches()")
        if self.mode is InputMode.FAST_FILE:
            logger.warning(
                "Channel '%s' has input mode FastFile, which fetches from S3 what is read, and is slow where samples "
                "are read in any order; batches() reads from front to back.",
                self.name,
            )
        chosen, files = self._files_of(sample_format or self._format(), self.files())
        total = sum(file.stat().st_size for file in files)
        progress = Progress(f"channel '{self.name}', finding samples", total, is_told=_place().rank == 0)
        return Rows.open(files, chosen, progress)

    def sampler(self, rows: Rows, batch_size: int, position: DataPosition, *, seed: int = 0) -> GlobalBatchSampler:
        """Return batches of the whole run, of which each rank is given its share, for `data_loader`.

        Where hosts have different files, the host with the fewest rows decides on the number of batches. Call it on
        all ranks alike.
        """
        place = _place()
        if self.description.distribution is Distribution.FULLY_REPLICATED or place.hosts == 1:
            return GlobalBatchSampler(
                len(rows), batch_size, position, seed=seed, rank=place.rank, world_size=place.world_size
            )
        share = share_of_files(place, self.description.distribution, is_by_file=False)
        fewest = torch.tensor(len(rows) // share.of(batch_size))
        dist.all_reduce(fewest, dist.ReduceOp.MIN, group=dist.new_group(backend="gloo"))
        return HostBatchSampler(len(rows), batch_size, position, share, seed=seed, batches=int(fewest))

    def _pipe_passes(self, place: Place, sample_format: Format, wait_s: float) -> tuple[Passes, Share]:
        own = self._own_pipe(place)
        passes = PipePasses(own, own.path, sample_format, wait_s, tells_progress=place.rank == 0)
        return passes, share_of_pipe(place, own.distribution)

    def _file_passes(
        self, place: Place, sample_format: Format, *, by_file: bool | None, seed: int | None
    ) -> tuple[Passes, Share]:
        chosen, files = self._files_of(sample_format, self._files_everywhere(place))
        is_by_file = self._is_by_file(len(files), place) if by_file is None else by_file
        share = share_of_files(place, self.description.distribution, is_by_file=is_by_file)
        first, step = share.files
        mine = tuple(files[first::step])
        return FilePasses(self.description, mine, chosen, seed, tells_progress=place.rank == 0), share

    def _files_of(self, sample_format: Format, files: list[Path]) -> tuple[Format, list[Path]]:
        """Return what is to be read: the channel's files, or its manifest if that lists them."""
        if isinstance(sample_format, Augmented):
            return sample_format.of_files(self.path), [manifest_of(self.path)]
        return sample_format, files

    def _format(self) -> Format:
        given = self.description.content_type
        if given is None and self.mode is not InputMode.PIPE:
            names = {path.name.removesuffix(".gz") for path in data_files(self.path)}
            kinds = {CONTENT_TYPES.get(Path(name).suffix) for name in names}
            given = kinds.pop() if len(kinds) == 1 else None
        return format_of(self.name, given, self.description.record_wrapper)

    def _is_by_file(self, files: int, place: Place) -> bool:
        """Whether ranks read files of their own: on a mount, which fetches what is read, if there are enough."""
        is_sharded = share_of_files(place, self.description.distribution, is_by_file=False)
        is_by_file = self.mode is InputMode.FAST_FILE and files >= is_sharded.count > 1
        if is_by_file and place.rank == 0:
            logger.info("channel '%s': each rank reads files of its own, of %d", self.name, files)
        return is_by_file

    def _own_pipe(self, place: Place) -> Channel:
        """Return the channel whose pipe this rank reads: `<name>_<local rank>` where a host has several."""
        if place.local_world_size == 1 and self.name in self._all:
            return self.description
        names = [f"{self.name}_{rank}" for rank in range(place.local_world_size)]
        missing = [name for name in names if name not in self._all]
        if missing:
            problem = (
                f"{place.local_world_size} ranks of this host cannot read one FIFO. Give the job a channel for each, "
                f"with data of its own: {', '.join(names)} (missing: {', '.join(missing)})"
            )
            raise InputModeError(self.name, self.mode, problem)
        return self._all[names[place.local_rank]]

    def _files_everywhere(self, place: Place) -> list[Path]:
        """Return this host's files. Raises `EmptyChannelError` on all ranks alike if a host has none."""
        files = data_files(self.path)
        host = process_variables().get("SM_CURRENT_HOST", f"host {place.host}")
        counts: list[Any] = [(host, len(files))]
        if place.world_size > 1:
            counts *= place.world_size
            # In a group of its own: NCCL's would want what it carries on a GPU.
            dist.all_gather_object(counts, (host, len(files)), group=dist.new_group(backend="gloo"))
        empty = sorted({name for name, count in counts if not count})
        if empty:
            raise EmptyChannelError(self.name, self.path, empty if place.hosts > 1 else [])
        return files


def _place() -> Place:
    """Return this rank's place; without a process group it is the only one."""
    if not dist.is_initialized():
        return Place(0, 1, 0, 1)
    variables = process_variables()
    rank, world_size = dist.get_rank(), dist.get_world_size()
    local = int(variables.get("LOCAL_WORLD_SIZE", world_size))
    return Place(rank, world_size, int(variables.get("LOCAL_RANK", rank % local)), local)
