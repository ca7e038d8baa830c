"""Which samples of a channel are a rank's own: pure arithmetic on ranks and hosts."""

from dataclasses import dataclass
from math import gcd

from mooring.contract.channels import Distribution
from mooring.contract.errors import UserCodeError


class BatchSizeError(UserCodeError):
    """A batch of the whole run cannot be divided among those who read data of their own."""

    def __init__(self, batch_size: int, readers: int) -> None:
        self.batch_size = batch_size
        self.readers = readers
        super().__init__(
            f"The batch size is {batch_size}, over all ranks; expected a multiple of {readers}, "
            "since as many parts of the data are read side by side and each gives as many samples to a batch."
        )


@dataclass(frozen=True)
class Place:
    """A rank's place among all ranks, and among those of its host."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @property
    def host(self) -> int:
        """This host's number. Hosts have as many ranks each."""
        return self.rank // self.local_world_size

    @property
    def hosts(self) -> int:
        """The number of hosts."""
        return self.world_size // self.local_world_size


@dataclass(frozen=True)
class Share:
    """Of a stream that `count` of the run's `world_size` ranks see alike, every `count`th sample from `index` on.

    `files` says the same of the files that make the stream, where ranks read files of their own.
    """

    index: int
    count: int
    world_size: int
    files: tuple[int, int] = (0, 1)

    @property
    def is_everything(self) -> bool:
        """Whether all ranks see the same stream, which then ends for all at once."""
        return self.count == self.world_size

    def of(self, total: int) -> int:
        """Return how many samples of a batch, or of those consumed, are this stream's. Raises `BatchSizeError`."""
        part, rest = divmod(total * self.count, self.world_size)
        if rest:
            raise BatchSizeError(total, self.world_size // gcd(self.count, self.world_size))
        return part


def share_of_files(place: Place, distribution: Distribution, *, is_by_file: bool) -> Share:
    """Return a rank's share of a channel's files: of all its host has, or of those that are its own.

    Hosts of a sharded channel have different files already; only their own ranks divide those.
    """
    is_sharded = distribution is Distribution.SHARDED_BY_S3_KEY
    index, count = (place.local_rank, place.local_world_size) if is_sharded else (place.rank, place.world_size)
    if is_by_file:
        return Share(0, 1, place.world_size, files=(index, count))
    return Share(index, count, place.world_size)


def share_of_pipe(place: Place, distribution: Distribution) -> Share:
    """Return a rank's share of its own pipe, of which hosts get the same data or each a part."""
    if distribution is Distribution.SHARDED_BY_S3_KEY:
        return Share(0, 1, place.world_size)
    return Share(place.host, place.hosts, place.world_size)
