"""What loads and destroys the models of a host, one at a time, while its main thread goes on answering.

One at a time, so that the growth of memory during a load is that model's alone. In a host with a single model there is
nobody to answer meanwhile, so that it is loaded on the main thread, where its author expects to be.
"""

import json
import logging
import os
import queue
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mooring.handler.errors import LoadCancelledError
from mooring.handler.load import load_handler
from mooring.handler.protocol import Handler
from mooring.handler.resolve import HandlerChoice, choose_handler
from mooring.handler.terms import LoadTerms
from mooring.handler.warm_up import warm_up

from . import frames
from .frames import Frame, Kind
from .memory import Trimmer, anonymous_bytes, private_bytes

if TYPE_CHECKING:
    from .host import HostTerms

logger = logging.getLogger(__name__)

# A trim walks the whole heap (17 to 69 ms with a thousand models), so all who wait share one a second.
TRIM_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that answers, and how its requests are batched."""

    handler: Handler
    max_batch_rows: int
    max_delay_s: float

    @classmethod
    def of(cls, handler: Handler, choice: HandlerChoice) -> "Loaded":
        """Return a handler with the batching that its own configuration allows: never more than it finds safe."""
        batching = choice.config.batching
        rows = handler.max_batch_rows
        if batching.max_rows:
            rows = min(rows, batching.max_rows)
        return cls(handler, rows, batching.max_delay_ms / 1000 if rows > 1 else 0.0)


@dataclass(slots=True)
class Finished:
    """A load or destruction that is over, or a step of one: what to tell the front door."""

    connection: socket.socket
    frame_id: int
    number: int
    model: Loaded | None = None
    error: Exception | None = None
    facts: bytes = b""
    kind: Kind = Kind.DONE


@dataclass(slots=True)
class _Work:
    connection: socket.socket
    frame: Frame
    is_load: bool
    model: Loaded | None = None


class Loader:
    """Queues loads and destructions, and wakes the main thread by a readable socket when one is over."""

    def __init__(self, terms: "HostTerms") -> None:
        self._terms = terms
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._finished: deque[Finished] = deque()
        self._cancelled: set[int] = set()
        self.wakeup, self._bell = socket.socketpair()
        self._trimmer = Trimmer()
        self._untrimmed: list[Finished] = []
        self._last_trim = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, daemon=True, name="loader").start()

    def load(self, connection: socket.socket, frame: Frame) -> None:
        """Load the model folder that the frame's body names, or queue it where others are being answered."""
        work = _Work(connection, frame, is_load=True)
        if self._terms.is_shared:
            self._work.put(work)
        else:
            self._report(self._load(work))

    def destroy(self, connection: socket.socket, frame: Frame, model: Loaded | None) -> None:
        """Queue the destruction of a model that nobody can reach any more."""
        self._work.put(_Work(connection, frame, is_load=False, model=model))

    def cancel(self, frame_id: int) -> None:
        """Do not begin the load of a frame, or drop what it loaded."""
        self._cancelled.add(frame_id)

    def finished(self) -> list[Finished]:
        """Return what is over since the last call. For the main thread, when `wakeup` is readable."""
        self.wakeup.recv(4096)
        over = []
        while self._finished:
            over.append(self._finished.popleft())
        return over

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=self._seconds_to_trim())
            except queue.Empty:
                self._trim()
                continue
            if work.is_load:
                self._report(self._load(work))
            else:
                self._destroy(work)

    def _seconds_to_trim(self) -> float | None:
        if not self._untrimmed:
            return None
        return max(0.0, self._last_trim + TRIM_INTERVAL_S - time.monotonic())

    def _load(self, work: _Work) -> Finished:
        frame = work.frame
        finished = Finished(work.connection, frame.id, frame.number)
        before = anonymous_bytes()
        started = time.monotonic()
        try:
            self._stop_if_cancelled(frame)
            model = self._load_and_warm_up(work)
            self._stop_if_cancelled(frame)
        except Exception as error:  # a model may fail in any way; the front door tells who asked
            if not isinstance(error, LoadCancelledError):
                logger.warning("Loading failed.", exc_info=True)
            self._cancelled.discard(frame.id)
            return replace(finished, error=error)
        # A host of its own is the model's in whole; in a shared one only the growth is.
        held = max(0, anonymous_bytes() - before) if self._terms.is_shared else private_bytes(os.getpid())
        facts: dict[str, Any] = {
            "bytes": held,
            "seconds": time.monotonic() - started,
            "max_batch_rows": model.max_batch_rows,
            "metadata": getattr(model.handler, "metadata", dict)(),
        }
        return replace(finished, model=model, facts=json.dumps(facts).encode())

    def _load_and_warm_up(self, work: _Work) -> Loaded:
        terms = self._terms
        if terms.problem is not None:
            raise terms.problem
        folder = Path(os.fsdecode(work.frame.body))
        choice = choose_handler(folder, terms.variables)
        load_terms = LoadTerms(choice.config.threads or terms.threads, terms.gpu_id, terms.variables, choice.config)
        handler = load_handler(choice, load_terms)
        self._stop_if_cancelled(work.frame)
        if choice.config.warm_up:
            self._tell_warming(work)
            warm_up(handler, choice)
        return Loaded.of(handler, choice)

    def _tell_warming(self, work: _Work) -> None:
        if self._terms.is_shared:
            self._report(Finished(work.connection, work.frame.id, work.frame.number, kind=Kind.WARMING))
        else:  # the main thread, which sends what is reported, is here
            work.connection.sendall(frames.encode(Kind.WARMING, work.frame.id, 0))

    def _stop_if_cancelled(self, frame: Frame) -> None:
        if frame.id in self._cancelled:
            raise LoadCancelledError

    def _destroy(self, work: _Work) -> None:
        if work.model is not None:
            try:
                work.model.handler.close()
            except Exception:  # the model goes in any case
                logger.exception("A handler raised while it was closed.")
        self._untrimmed.append(Finished(work.connection, work.frame.id, work.frame.number))

    def _trim(self) -> None:
        self._trimmer.trim()
        self._last_trim = time.monotonic()
        for finished in self._untrimmed:
            self._report(finished)
        self._untrimmed.clear()

    def _report(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._bell.send(b"\0")
