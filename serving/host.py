"""A host: the process that holds models and runs them.

The main thread answers; in a shared host a second thread loads and destroys, so that neither delays a request of
another model. A host ends when the front door does: its life pipe then reads end-of-file, even while it computes.
"""

import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from mooring.contract.errors import MooringError
from mooring.handler.errors import CancelledRequestError
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.stages import WATCH
from mooring.runner.parentage import die_with_writer

from . import frames, logs, oom, request_ids
from .frames import ANSWER, INFER, Frame, FrameReader, Kind
from .host_loader import LOADER_NAME, Finished, Loaded, Loader
from .host_wire import NOT_OF_WHOLE, WITHOUT_BODY, checked_status, error_frame, read_request_lines, response_lines
from .lookout import Lookout
from .running import RunningPage
from .streams import Stream, Streams
from .tally import Tallies

logger = logging.getLogger("mooring.serving.host")

READ_BYTES = 1 << 18
MOST_BODY_BYTES = frames.MAX_FRAME_BYTES - frames.MAX_META_BYTES
# A thread that computes in Python gives way to another this often; the default of 5 ms would show in answers.
SWITCH_S = 0.0005


@dataclass(frozen=True)
class HostTerms:
    """What a host is told when it is forked."""

    threads: int
    is_shared: bool
    gpu_id: int | None
    variables: Mapping[str, str]
    problem: MooringError | None = None  # why nothing can be loaded here: its packages could not be installed


@dataclass(slots=True)
class Waiting:
    """A request in the queue of its model."""

    connection: socket.socket
    frame_id: int
    meta: bytes
    body: bytes
    arrived: float


def run(listener: socket.socket, life: int, terms: HostTerms) -> int:
    """Serve the front doors that connect to `listener` until the last one is gone. Returns the exit status."""
    sys.setswitchinterval(SWITCH_S)
    oom.prefer_this_process()
    os.setpgid(0, 0)  # what the model's code starts ends with this process
    die_with_writer(life)
    threading.Thread(target=_end_with_front, args=(life,), daemon=True, name="life").start()
    with Host(listener, terms) as host:
        logs.configure_from(terms.variables, host.about)
        os.register_at_fork(after_in_child=host.become_copy)
        host.serve()
    return 0


def _end_with_front(life: int) -> None:
    os.read(life, 1)  # blocks until the front door, which alone holds the other end, is gone
    os.killpg(0, signal.SIGKILL)


class Host:
    """The loop of a host: read what is queued, run it in batches, answer."""

    def __init__(self, listener: socket.socket, terms: HostTerms) -> None:
        self._listener = listener
        self._terms = terms
        self._models: dict[int, Loaded] = {}
        self._selector = selectors.DefaultSelector()
        self._lookout = Lookout(self._selector, may_look_out=terms.is_shared and terms.threads > 1)
        # Kept: to get and give back as much memory for every read takes five times as long as the read.
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._readers: dict[socket.socket, FrameReader] = {}
        self._queues: dict[int, list[Waiting]] = {}
        self._running: Sequence[Waiting] = ()
        self._running_model = ""
        self._cancelled: set[int] = set()  # ids of frames whose handler runs at this moment
        self._loader = Loader(terms)
        self._tallies = Tallies()
        self._page = RunningPage.beside(listener.getsockname())
        self._streams = Streams(self._page, self._cancelled)
        self._is_copy = False
        self._seen_a_front = False

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._loader.wakeup, selectors.EVENT_READ)
        self._loader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._selector.close()

    def serve(self) -> None:
        """Run until every front door that connected is gone."""
        while self._readers or not self._seen_a_front:
            self._take_arrivals(self._seconds_to_wait())
            for number in list(self._queues):
                self._run_queue(number)
            self._streams.advance()
            if self._tallies.seconds_until_due(time.monotonic()) == 0:
                self._tell_tallies()

    def about(self) -> Mapping[str, str]:
        """Return which requests run now, and of which model, for lines of the log."""
        if threading.current_thread().name == LOADER_NAME:
            return {}
        if self._streams.advancing is not None:
            return {"request_id": request_ids.of_frame(os.getpid(), self._streams.advancing.frame_id).decode()}
        ids = [
            request_ids.named_in(read_request_lines(waiting.meta)[2])
            or request_ids.of_frame(os.getpid(), waiting.frame_id)
            for waiting in self._running
        ]
        return {"request_id": b" ".join(ids).decode("latin-1"), "model": self._running_model} if ids else {}

    def become_copy(self) -> None:
        """Let go of what belongs to the host, in a process that a model's code has forked from it.

        Otherwise it would take frames that are meant for the host, and keep its connections open after its death.
        """
        self._is_copy = True
        self._selector.close()
        self._loader.close()
        for connection in (self._listener, *self._readers):
            connection.close()

    # --- arrivals ---------------------------------------------------------------------------------------------------

    def _seconds_to_wait(self) -> float | None:
        """How long nothing need be done unless something arrives: None for ever."""
        if self._streams.may_go_on:
            return 0.0
        now = time.monotonic()
        until_told = self._tallies.seconds_until_due(now)
        if not self._queues:
            return until_told
        due = (self._due(number, waiting) for number, waiting in self._queues.items())
        until_due = max(0.0, min(due) - now)
        return until_due if until_told is None else min(until_due, until_told)

    def _due(self, number: int, waiting: Sequence[Waiting]) -> float:
        """When a queue is to be run: at once, or when its oldest request has waited for company long enough."""
        model = self._models.get(number)
        if model is None or len(waiting) >= model.max_batch_rows:
            return 0.0
        return waiting[0].arrived + model.max_delay_s

    def _take_arrivals(self, timeout: float | None) -> None:
        for key, _ in self._lookout.wait(timeout):
            source = key.fileobj
            if source is self._listener:
                self._accept()
            elif source is self._loader.wakeup:
                self._collect_finished()
            else:
                assert isinstance(source, socket.socket)
                self._read(source)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, frames.SOCKET_BYTES)
        self._selector.register(connection, selectors.EVENT_READ)
        self._readers[connection] = FrameReader()
        self._seen_a_front = True

    def _read(self, connection: socket.socket) -> None:
        """Sort what has arrived: requests into queues, loads and unloads to the loader."""
        reader = self._readers[connection]
        room = reader.room()
        try:
            size = connection.recv_into(self._buffer if room is None else room)
        except ConnectionError:
            size = 0
        if not size:
            self._hang_up(connection)
            return
        now = time.monotonic()
        arrived = reader.feed(bytes(self._buffer[:size])) if room is None else reader.fill(size)
        for kind, frame_id, number, meta, body in arrived:
            if kind == INFER:
                self._queues.setdefault(number, []).append(Waiting(connection, frame_id, meta, body, now))
            else:
                self._read_rare(connection, Frame(kind, frame_id, number, meta, body))

    def _read_rare(self, connection: socket.socket, frame: Frame) -> None:
        if frame.kind == Kind.INFER_FILE:
            try:
                body = Path(os.fsdecode(frame.body)).read_bytes()
            except FileNotFoundError:  # it was given up meanwhile, and its body deleted
                self._send(connection, error_frame(frame.id, CancelledRequestError()))
                return
            except OSError as error:
                logger.warning("The body of a request cannot be read: %s", error)
                self._send(connection, error_frame(frame.id, error))
                return
            waiting = Waiting(connection, frame.id, frame.meta, body, time.monotonic())
            self._queues.setdefault(frame.number, []).append(waiting)
        elif frame.kind == Kind.LOAD:
            self._loader.load(connection, frame)
        elif frame.kind == Kind.UNLOAD:
            # The front door has drained the model, so nothing of it runs; from here on nobody finds it.
            self._loader.do(connection, frame, self._models.pop(frame.number, None))
        elif frame.kind in (Kind.CHANGE_TIER, Kind.MAKE):
            self._loader.do(connection, frame, self._models.get(frame.number))
        elif frame.kind == Kind.CANCEL:
            self._cancel(connection, frame.id)
        elif frame.kind == Kind.CREDIT:
            self._streams.credit(connection, frame.id, frame.number)

    def _hang_up(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._readers[connection]
        connection.close()
        self._streams.hang_up(connection)

    def _collect_finished(self) -> None:
        for finished in self._loader.finished():
            if finished.model is not None:
                self._models[finished.number] = finished.model
                self._set_torch_threads()
            self._send(finished.connection, _reply(finished))

    def _set_torch_threads(self) -> None:
        """Give torch its threads on this thread too: OpenMP's number belongs to the thread that set it."""
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._terms.threads)

    # --- cancelling -------------------------------------------------------------------------------------------------

    def _cancel(self, connection: socket.socket, frame_id: int) -> None:
        """Drop a request that waits, stop a stream or a load; one that runs is told when it asks."""
        if self._streams.cancel(connection, frame_id):
            return
        for number, queue in list(self._queues.items()):
            for waiting in queue:
                if waiting.frame_id == frame_id:
                    queue.remove(waiting)
                    if not queue:
                        del self._queues[number]
                    self._send(connection, error_frame(frame_id, CancelledRequestError()))
                    return
        if any(waiting.frame_id == frame_id for waiting in self._running):
            self._cancelled.add(frame_id)
        else:
            self._loader.cancel(frame_id)

    def _is_cancelled(self, frame_id: int) -> bool:
        """Whether the client of a running request is gone. Looks at what has arrived meanwhile."""
        self._take_arrivals(0)
        return frame_id in self._cancelled

    # --- answering --------------------------------------------------------------------------------------------------

    def _run_queue(self, number: int) -> None:
        model = self._models.get(number)
        if model is None:
            error = KeyError(f"no model has number {number}")
            for waiting in self._queues.pop(number, ()):
                self._send(waiting.connection, error_frame(waiting.frame_id, error))
            return
        queue = self._queues.get(number)
        if not queue or (model.max_delay_s and self._due(number, queue) > time.monotonic()):
            return
        # One batch: other models have their turn, and what has arrived meanwhile joins the next.
        batch = queue[: model.max_batch_rows]
        del queue[: model.max_batch_rows]
        if not queue:
            self._queues.pop(number, None)
        self._run_batch(number, model, batch)

    def _run_batch(self, number: int, model: Loaded, batch: Sequence[Waiting]) -> None:
        begun = time.monotonic()
        WATCH.reset()
        self._running = batch
        self._running_model = model.name
        self._page.note([waiting.frame_id for waiting in batch])
        requests = [
            InferenceRequest(
                waiting.body,
                *read_request_lines(waiting.meta),
                partial(self._is_cancelled, waiting.frame_id),
            )
            for waiting in batch
        ]
        answers: Sequence[InferenceResponse | Exception]
        try:
            answers = model.handler.respond(requests)
        except Exception as error:  # user code may raise anything; each request learns of it
            logger.exception("A handler raised instead of answering.")
            answers = [error] * len(batch)
        if self._is_copy:
            os._exit(0)  # the handler forked and came back twice; the other one answers
        self._page.clear()
        replies: dict[socket.socket, list[bytes]] = {}
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, InferenceResponse) and answer.chunks is not None:
                stream = Stream(waiting.frame_id, answer.chunks, partial(self._send, waiting.connection))
                self._streams.begin(waiting.connection, stream, answer)
            else:
                replies.setdefault(waiting.connection, []).append(_answer_frame(waiting.frame_id, answer))
        for connection, parts in replies.items():
            self._send(connection, b"".join(parts) if len(parts) > 1 else parts[0])
        self._tallies.ran(number, [begun - waiting.arrived for waiting in batch])
        self._running = ()
        self._cancelled.clear()

    def _tell_tallies(self) -> None:
        frame = frames.encode(Kind.TALLY, 0, 0, b"", self._tallies.take())
        for connection in list(self._readers):
            self._send(connection, frame)

    def _send(self, connection: socket.socket, reply: bytes) -> None:
        try:
            connection.sendall(reply)
        except OSError:
            # That front door is gone; its end-of-file is read next.
            logger.debug("A reply found its front door gone.")


def _answer_frame(frame_id: int, answer: InferenceResponse | Exception) -> bytes:
    if isinstance(answer, Exception):
        return error_frame(frame_id, answer)
    try:
        status = checked_status(answer)
        body = b"" if status in WITHOUT_BODY else answer.body
        if len(body) > MOST_BODY_BYTES:
            raise ValueError(f"The answer has {len(body):,} bytes; the limit is {MOST_BODY_BYTES:,}.")
        return frames.encode(ANSWER, frame_id, status, response_lines(answer, NOT_OF_WHOLE), body)
    except (ValueError, TypeError, frames.FrameError) as error:
        logger.warning("An answer cannot be sent: %s", error)
        return error_frame(frame_id, error)


def _reply(finished: Finished) -> bytes:
    if finished.error is not None:
        return error_frame(finished.frame_id, finished.error)
    return frames.encode(finished.kind, finished.frame_id, 0, finished.facts)
