"""One request on its way through the server: what to ask of which model, and where the answer goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mooring.contract.errors import MooringError

    from .catalog import Resident


class Invocation(ABC):
    """A request for a model. Exactly one of `answer` and `fail` is called, once, on the event loop's thread."""

    __slots__ = ("attempts", "body", "deadline", "meta", "name", "resident")

    def __init__(self, name: str, meta: bytes, body: bytes) -> None:
        self.name = name
        self.meta = meta  # header lines, as `frames.encode_lines` makes them
        self.body = body
        self.attempts = 0
        self.deadline = 0.0  # on the event loop's clock
        self.resident: Resident | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether the client is gone, so that nobody wants the answer."""
        return False

    @abstractmethod
    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Deliver the model's answer: status code, header lines, body."""

    @abstractmethod
    def fail(self, error: MooringError) -> None:
        """Deliver an error; the door that the request came through chooses its status code."""
