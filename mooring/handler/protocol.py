"""What stands between a request and a model: requests and responses as values, and the handler that maps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request. Content type and accept are as the client sent them, empty where it sent none."""

    body: bytes
    content_type: str
    accept: str
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """One answer."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Handler(Protocol):
    """A loaded model that answers requests."""

    @property
    def max_batch_rows(self) -> int:
        """How many requests may be given at once; 1 means one at a time."""

    def respond(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | Exception]:
        """Return one answer or error per request, in order; the error of one never spoils another's answer."""

    def close(self) -> None:
        """Let go of the model; nothing is asked of it afterwards."""
