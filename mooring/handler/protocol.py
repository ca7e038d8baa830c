"""What stands between a request and a model: requests and responses as values, and the handler that maps them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


def _never() -> bool:
    return False


# Not frozen: to make a frozen one takes three times as long, and every request makes two.
@dataclass(slots=True)
class InferenceRequest:
    """One request. Content type and accept are as the client sent them, empty where it sent none."""

    body: bytes
    content_type: str
    accept: str
    headers: Mapping[str, str]  # names in lower case
    is_cancelled: Callable[[], bool] = _never  # whether the client is gone, for handlers that compute for long


@dataclass(slots=True)
class InferenceResponse:
    """One answer: whole in `body`, or streamed in `chunks`, which are sent one by one as they are made.

    The first chunk is awaited before the status is sent. The iterator is closed when the client leaves.
    """

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterator[bytes] | None = None


class Handler(Protocol):
    """A loaded model that answers requests."""

    @property
    def max_batch_rows(self) -> int:
        """How many rows, or requests where rows cannot be counted, may be given at once; 1 means one at a time."""

    def respond(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | Exception]:
        """Return one answer or error per request, in order; the error of one never spoils another's answer."""

    def close(self) -> None:
        """Let go of the model; nothing is asked of it afterwards."""
