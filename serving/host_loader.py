"""The thread of a host that loads and destroys models, one at a time, while the main thread goes on answering.

One at a time, so that the growth of memory during a load is that model's alone.
"""

import json
import logging
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mooring.handler.load import load_handler
from mooring.handler.protocol import Handler
from mooring.handler.resolve import choose_handler
from mooring.handler.terms import LoadTerms

from .frames import Frame
from .memory import Trimmer, anonymous_bytes

logger = logging.getLogger(__name__)

# A trim walks the whole heap (17 to 69 ms with a thousand models), so all who wait share one a second.
TRIM_INTERVAL_S = 1.0


@dataclass(slots=True)
class Finished:
    """A load or destruction that is over: what to tell the front door."""

    connection: socket.socket
    frame_id: int
    number: int
    handler: Handler | None = None
    error: Exception | None = None
    facts: bytes = b""


@dataclass(slots=True)
class _Work:
    connection: socket.socket
    frame: Frame
    is_load: bool
    handler: Handler | None = None


class Loader:
    """Queues loads and destructions, and wakes the main thread by a readable socket when one is over."""

    def __init__(self, threads: int, variables: Mapping[str, str]) -> None:
        self._threads = threads
        self._variables = variables
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._finished: deque[Finished] = deque()
        self.wakeup, self._bell = socket.socketpair()
        self._trimmer = Trimmer()
        self._untrimmed: list[Finished] = []
        self._last_trim = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, daemon=True, name="loader").start()

    def load(self, connection: socket.socket, frame: Frame) -> None:
        """Queue the load of the model folder that the frame's body names."""
        self._work.put(_Work(connection, frame, is_load=True))

    def destroy(self, connection: socket.socket, frame: Frame, handler: Handler | None) -> None:
        """Queue the destruction of a handler that nobody can reach any more."""
        self._work.put(_Work(connection, frame, is_load=False, handler=handler))

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
        before = anonymous_bytes()
        started = time.monotonic()
        try:
            folder = Path(os.fsdecode(frame.body))
            handler = load_handler(choose_handler(folder, self._variables), folder, LoadTerms(self._threads, variables=self._variables))
        except Exception as error:  # a model may fail in any way; the front door tells who asked
            logger.warning("Loading failed.", exc_info=True)
            return Finished(work.connection, frame.id, frame.number, error=error)
        facts = {
            "bytes": max(0, anonymous_bytes() - before),
            "seconds": time.monotonic() - started,
            "max_batch_rows": handler.max_batch_rows,
        }
        return Finished(work.connection, frame.id, frame.number, handler, facts=json.dumps(facts).encode())

    def _destroy(self, work: _Work) -> None:
        if work.handler is not None:
            try:
                work.handler.close()
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
