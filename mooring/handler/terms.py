"""What a load is told beside the model's folder: threads, device, variables, and the model's own configuration."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import LoadCancelledError
from .model_config import ModelConfig

if TYPE_CHECKING:
    from .defaults.torch_weights import HeldWeights


class Cancellation:
    """Whether a load is still wanted. Cancelled by one thread while another loads."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self._stops: list[Callable[[], None]] = []

    @property
    def is_under_way(self) -> bool:
        """Whether something runs that can be stopped."""
        return bool(self._stops)

    def cancel(self) -> None:
        """Have the load end as soon as it can."""
        self.is_cancelled = True
        for stop in list(self._stops):
            stop()

    def check(self) -> None:
        """Raise `LoadCancelledError` if nobody wants the load any more."""
        if self.is_cancelled:
            raise LoadCancelledError

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Run what may take long and can be stopped by a call. Raises `LoadCancelledError` if it was."""
        self._stops.append(stop)
        try:
            self.check()
            yield
        except Exception as error:
            if self.is_cancelled:
                raise LoadCancelledError from error
            raise
        finally:
            self._stops.remove(stop)


@dataclass(frozen=True)
class LoadTerms:
    """The terms on which a host loads a model."""

    threads: int = 1  # cores that libraries may compute with
    gpu_id: int | None = None  # index among the visible CUDA devices; None on a machine without one
    variables: Mapping[str, str] = field(default_factory=dict)  # the process's, read at the door
    config: ModelConfig = field(default_factory=ModelConfig)
    cancellation: Cancellation = field(default_factory=Cancellation)
    held: "HeldWeights | None" = None  # where a transformers model's weights are mapped from, once that is known
