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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mooring.compat.finder import Room, install
from mooring.handler.defaults.model_cache import ModelCache
from mooring.handler.errors import LoadCancelledError
from mooring.handler.load import load_handler
from mooring.handler.protocol import Handler
from mooring.handler.resolve import HandlerChoice, HandlerKind, choose_handler
from mooring.handler.terms import Cancellation, LoadTerms
from mooring.handler.warm_up import warm_up

from . import frames
from .frames import Frame, Kind
from .memory import Trimmer, anonymous_bytes, mappings, private_bytes

if TYPE_CHECKING:
    from .host import HostTerms

logger = logging.getLogger(__name__)

# A trim walks the whole heap (3 ms with a hundred models, 17 to 69 with a thousand): all who wait share the next one,
# which comes so late that trims take this share of the time at most.
TRIM_SHARE = 0.1
# Loads between two counts of mappings while there are few.
LOADS_A_COUNT = 10
LOADER_NAME = "loader"
MANY_MAPPINGS = 8000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that answers, and how its requests are batched."""

    name: str
    handler: Handler
    max_batch_rows: int
    max_delay_s: float

    @classmethod
    def of(cls, name: str, handler: Handler, choice: HandlerChoice) -> "Loaded":
        """Return a handler with the batching that its own configuration allows: never more than it finds safe."""
        batching = choice.config.batching
        rows = handler.max_batch_rows
        if batching.max_rows:
            rows = min(rows, batching.max_rows)
        return cls(name, handler, rows, batching.max_delay_ms / 1000 if rows > 1 else 0.0)


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
    model: Loaded | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)


class Loader:
    """Queues loads and destructions, and wakes the main thread by a readable socket when one is over."""

    def __init__(self, terms: "HostTerms") -> None:
        self._terms = terms
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._finished: deque[Finished] = deque()
        self._cancellations: dict[int, Cancellation] = {}  # of loads to do, by the id of their frame
        self.wakeup, self._bell = socket.socketpair()
        self._trimmer = Trimmer()
        self._untrimmed: list[Finished] = []
        self._next_trim = float("-inf")
        self._loads = 0
        self._counted = 0

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, daemon=True, name=LOADER_NAME).start()

    def close(self) -> None:
        """Let go of the socket that wakes the main thread."""
        self.wakeup.close()
        self._bell.close()

    def load(self, connection: socket.socket, frame: Frame) -> None:
        """Load the model folder that the frame's body names, or queue it where others are being answered."""
        work = _Work(connection, frame)
        self._cancellations[frame.id] = work.cancellation
        if self._terms.is_shared:
            self._work.put(work)
        else:
            self._report(self._load(work))

    def do(self, connection: socket.socket, frame: Frame, model: Loaded | None) -> None:
        """Queue what a frame asks for: the destruction of a model that nobody can reach any more, or another form."""
        self._work.put(_Work(connection, frame, model))

    def cancel(self, frame_id: int) -> None:
        """Do not begin the load of a frame, stop it, or drop what it loaded; nothing if it is over, or no load."""
        cancellation = self._cancellations.get(frame_id)
        if cancellation is not None:
            cancellation.cancel()

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
            match work.frame.kind:
                case Kind.LOAD:
                    self._report(self._load(work))
                case Kind.UNLOAD:
                    self._destroy(work)
                case _:
                    self._report(self._change(work))

    def _seconds_to_trim(self) -> float | None:
        if not self._untrimmed:
            return None
        return max(0.0, self._next_trim - time.monotonic())

    def _load(self, work: _Work) -> Finished:
        frame = work.frame
        finished = Finished(work.connection, frame.id, frame.number)
        before = anonymous_bytes()
        try:
            work.cancellation.check()
            model = self._load_and_warm_up(work)
            work.cancellation.check()
        except Exception as error:  # a model may fail in any way; the front door tells who asked
            if not isinstance(error, LoadCancelledError):
                logger.warning("Loading failed.", exc_info=True)
            return replace(finished, error=error)
        finally:
            self._cancellations.pop(frame.id, None)
        # A host of its own is the model's in whole; in a shared one only the growth is.
        held = max(0, anonymous_bytes() - before) if self._terms.is_shared else private_bytes(os.getpid())
        facts: dict[str, Any] = {
            "bytes": held,
            "metadata": _metadata(model.handler),
            "mappings": self._mappings(),
        }
        return replace(finished, model=model, facts=json.dumps(facts).encode())

    def _load_and_warm_up(self, work: _Work) -> Loaded:
        terms = self._terms
        if terms.problem is not None:
            raise terms.problem
        folder = Path(os.fsdecode(work.frame.body))
        choice = choose_handler(folder, terms.variables)
        threads = choice.config.threads or terms.threads
        load_terms = LoadTerms(threads, terms.gpu_id, terms.variables, choice.config, work.cancellation)
        if not terms.is_shared:
            # Code that imports the earlier toolkits finds stand-ins, where the real ones are absent.
            install(Room.SERVING)
        handler = load_handler(choice, load_terms)
        work.cancellation.check()
        if choice.config.warm_up:
            self._tell_warming(work)
            warm_up(handler, choice)
        return Loaded.of(work.frame.meta.decode(), handler, choice)

    def _tell_warming(self, work: _Work) -> None:
        if self._terms.is_shared:
            self._report(Finished(work.connection, work.frame.id, work.frame.number, kind=Kind.WARMING))
        else:  # the main thread, which sends what is reported, is here
            work.connection.sendall(frames.encode(Kind.WARMING, work.frame.id, 0))

    def _mappings(self) -> int:
        """Return how many mappings this process has, counted anew now and then: it takes longer the more there are."""
        self._loads += 1
        if self._loads % LOADS_A_COUNT == 1 or self._counted >= MANY_MAPPINGS:
            self._counted = mappings()
        return self._counted

    def _change(self, work: _Work) -> Finished:
        """Change the form that a model is held in, or make one; the model answers from the old one meanwhile."""
        frame = work.frame
        finished = Finished(work.connection, frame.id, frame.number)
        before = anonymous_bytes()
        facts: dict[str, Any]
        try:
            if frame.kind == Kind.MAKE:
                facts = {"made": make_cached_form(Path(os.fsdecode(frame.body)), self._terms.variables)}
            else:
                assert work.model is not None
                work.model.handler.change_tier(json.loads(frame.body)["tier"])  # type: ignore[attr-defined]
                self._trimmer.trim()
                metadata = _metadata(work.model.handler)
                facts = {"bytes": anonymous_bytes() - before, "metadata": metadata, "mappings": mappings()}
        except Exception as error:  # onnxruntime's exceptions share no base but this
            logger.warning("A model keeps the form it has.", exc_info=True)
            return replace(finished, error=error)
        return replace(finished, facts=json.dumps(facts).encode())

    def _destroy(self, work: _Work) -> None:
        if work.model is not None:
            try:
                work.model.handler.close()
            except Exception:  # the model goes in any case
                logger.exception("A handler raised while it was closed.")
        self._untrimmed.append(Finished(work.connection, work.frame.id, work.frame.number))

    def _trim(self) -> None:
        started = time.monotonic()
        self._trimmer.trim()
        ended = time.monotonic()
        self._next_trim = ended + (ended - started) * (1 / TRIM_SHARE - 1)
        for finished in self._untrimmed:
            self._report(finished)
        self._untrimmed.clear()

    def _report(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._bell.send(b"\0")


def _metadata(handler: Handler) -> dict[str, Any]:
    """Return what a handler says of its inputs, outputs and form; user code says nothing."""
    found: dict[str, Any] = getattr(handler, "metadata", dict)()
    return found


def make_cached_form(folder: Path, variables: Mapping[str, str]) -> bool:
    """Make the mapped form of the model in a folder; returns whether there is one. For a process of its own."""
    os.nice(19)
    choice = choose_handler(folder, variables)
    cache: ModelCache | None
    if choice.kind is HandlerKind.TRANSFORMERS:
        from mooring.handler.defaults.safetensors_cache import SafetensorsCache

        cache, source = SafetensorsCache.open(variables), choice.root
    else:
        from mooring.handler.defaults.onnx_cache import OnnxCache

        cache, source = OnnxCache.open(variables), choice.files[0]
    if cache is None or not cache.has_room(choice.artifact_bytes):
        return False
    return cache.make(source) is not None
