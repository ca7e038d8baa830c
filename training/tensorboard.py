"""Metrics as TensorBoard reads them, when a job asks for it. Its package is imported with the first report."""

import atexit
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mooring.contract.errors import PlatformError

# A process that is killed loses what it has not written; a writer's own two minutes are too long for that.
FLUSH_S = 5


class TensorBoardMissingError(PlatformError):
    """TensorBoard's files are asked for, but its package is not installed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(
            f"TensorBoard's files are asked for in {directory}, but the package is not installed. "
            "Install mooring[tensorboard], or set MOORING_TENSORBOARD to false."
        )


def add_scalars(directory: Path, numbers: Mapping[str, float], step: int) -> None:
    """Add a point to the curve of each metric. Raises `TensorBoardMissingError`, `OSError`."""
    writer = _writer(directory)
    for name, value in numbers.items():
        writer.add_scalar(name, value, step)


@functools.cache
def _writer(directory: Path) -> Any:
    """Return the writer of a folder; it writes in a thread of its own, which does not outlive the process."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TensorBoardMissingError(directory) from error
    writer = SummaryWriter(str(directory), flush_secs=FLUSH_S)
    atexit.register(writer.close)  # or what is still in its queue is lost
    return writer
