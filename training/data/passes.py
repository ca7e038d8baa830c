"""One pass over a channel, as this rank sees it: files one after the other, or the next FIFO of a pipe."""

import io
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mooring.artifact.recordio import CutRecordError
from mooring.contract.channels import Channel, InputMode
from mooring.contract.environment import process_variables

from .files import MOUNT_READ_BYTES, READ_BYTES, cut_files, cut_stream
from .formats import Format
from .pipe import Pipe, PipeError
from .progress import Progress
from .read_ahead import ReadAhead
from .samples import Raw
from .shuffle import shuffled

logger = logging.getLogger(__name__)

WAIT_S = 900.0
PIPE_READ_BYTES = 1 << 20
# The number of the next FIFO of each pipe, for all that read it in this process: the platform counts on from pass to
# pass, and begins at 0 in a new container.
_next_numbers: dict[Path, int] = {}


class Passes(Protocol):
    """What can be read from front to back, again and again."""

    @property
    def sample_format(self) -> Format:
        """How it falls into samples."""

    def samples(self, epoch: int) -> Generator[Raw, None, None]:
        """Yield the samples of a pass. Closing the generator ends the pass."""


@dataclass(frozen=True)
class FilePasses:
    """Passes over files, in an order of each epoch's own if there is a seed."""

    channel: Channel
    files: tuple[Path, ...]
    sample_format: Format
    seed: int | None
    tells_progress: bool

    def samples(self, epoch: int) -> Generator[Raw, None, None]:
        """Yield the samples; of files on a mount in a thread that reads ahead."""
        files = self.files if self.seed is None else shuffled(self.files, self.seed, epoch)
        total = sum(file.stat().st_size for file in files)
        on_read = Progress(f"channel '{self.channel.name}', epoch {epoch}", total, is_told=self.tells_progress).advance
        if self.channel.mode is not InputMode.FAST_FILE:
            yield from cut_files(files, self.sample_format, on_read, READ_BYTES)
            return
        with closing(
            ReadAhead(lambda _: cut_files(files, self.sample_format, on_read, MOUNT_READ_BYTES), self.channel.name)
        ) as ahead:
            yield from ahead


@dataclass(frozen=True)
class PipePasses:
    """Passes over a pipe: each opens the next FIFO, and closes it when its end was read or nobody wants the rest."""

    channel: Channel
    path: Path
    sample_format: Format
    wait_s: float = WAIT_S
    tells_progress: bool = False

    def samples(self, epoch: int) -> Generator[Raw, None, None]:
        """Yield the samples of the next FIFO."""
        number = self._take_number()
        fifo = self.path.with_name(f"{self.path.name}_{number}")
        if epoch != number and self.channel.shuffle_seed is not None:
            logger.warning(
                "Epoch %d of channel '%s' is read from %s, and the platform shuffles by the number of the FIFO: "
                "the order is not the one of a run that was not interrupted.",
                epoch,
                self.channel.name,
                fifo.name,
            )
        progress = Progress(f"channel '{self.channel.name}', epoch {epoch}", None, is_told=self.tells_progress)
        with _opened(fifo, self.wait_s, self.sample_format, self.channel.name) as ahead:
            for raw in ahead:
                progress.advance(len(raw.content))
                yield raw

    def _take_number(self) -> int:
        number = _next_numbers.get(self.path)
        if number is None:
            number = _newest(self.path) if process_variables().get("TORCHELASTIC_RESTART_COUNT", "0") != "0" else 0
        _next_numbers[self.path] = number + 1
        return number


def _newest(path: Path) -> int:
    """Return the newest FIFO's number: ranks that were started again do not know how far those before them came."""
    numbers = (entry.name.removeprefix(f"{path.name}_") for entry in path.parent.glob(f"{path.name}_*"))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


@contextmanager
def _opened(fifo: Path, wait_s: float, sample_format: Format, name: str) -> Iterator[ReadAhead]:
    """Read a FIFO in a thread while the block runs."""
    pipe = Pipe(fifo, wait_s)

    def read(before_waiting: Callable[[], None]) -> Iterator[Raw]:
        pipe.before_waiting = before_waiting
        with io.BufferedReader(pipe, PIPE_READ_BYTES) as stream:
            try:
                yield from cut_stream(stream, str(fifo), sample_format)
            except CutRecordError as error:
                problem = f"the writer ended within record {error.record}, which begins at byte {error.offset:,}"
                raise PipeError(fifo, f"channel '{name}': {problem} ({error.problem})") from error

    ahead = ReadAhead(read, name, pipe.check)
    try:
        yield ahead
    finally:
        pipe.wake()
        ahead.close()
        pipe.close()
