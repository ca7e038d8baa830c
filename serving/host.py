"""A host: the process that holds models and runs them.

The main thread answers; a second thread loads and destroys, so that neither delays a request of another model. A host
ends when the front door does: its life pipe then reads end-of-file, even while a handler computes.
"""

import logging
import os
import selectors
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Self

from mooring.handler.protocol import Handler, InferenceRequest

from . import frames, oom
from .batcher import coalesce, slices
from .frames import Frame, FrameReader, Kind
from .host_loader import Finished, Loader
from .host_wire import error_frame, read_request_lines, response_lines

logger = logging.getLogger("mooring.serving.host")

READ_BYTES = 1 << 18


def run(listener: socket.socket, life: int, threads: int, variables: Mapping[str, str]) -> int:
    """Serve the front doors that connect to `listener` until the last one is gone. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    oom.prefer_this_process()
    threading.Thread(target=_end_with_front, args=(life,), daemon=True, name="life").start()
    with Host(listener, threads, variables) as host:
        host.serve()
    return 0


def _end_with_front(life: int) -> None:
    os.read(life, 1)  # blocks until the front door, which alone holds the other end, is gone
    os._exit(0)


class Host:
    """The loop of a host: read what is queued, run it in batches, answer."""

    def __init__(self, listener: socket.socket, threads: int, variables: Mapping[str, str]) -> None:
        self._listener = listener
        self._handlers: dict[int, Handler] = {}
        self._selector = selectors.DefaultSelector()
        self._readers: dict[socket.socket, FrameReader] = {}
        self._loader = Loader(threads, variables)
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
            inferences: list[tuple[int, tuple[socket.socket, Frame]]] = []
            for key, _ in self._selector.select():
                source = key.fileobj
                if source is self._listener:
                    self._accept()
                elif source is self._loader.wakeup:
                    self._collect_finished()
                else:
                    assert isinstance(source, socket.socket)
                    inferences += [(frame.number, (source, frame)) for frame in self._read(source)]
            for number, waiting in coalesce(inferences).items():
                self._answer(number, waiting)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._selector.register(connection, selectors.EVENT_READ)
        self._readers[connection] = FrameReader()
        self._seen_a_front = True

    def _read(self, connection: socket.socket) -> list[Frame]:
        """Take what has arrived: inference frames are returned, loads and unloads handed to the loader."""
        try:
            chunk = connection.recv(READ_BYTES)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._selector.unregister(connection)
            del self._readers[connection]
            connection.close()
            return []
        inferences = []
        for frame in self._readers[connection].feed(chunk):
            if frame.kind == Kind.INFER:
                inferences.append(frame)
            elif frame.kind == Kind.LOAD:
                self._loader.load(connection, frame)
            else:
                # The front door has drained the model, so nothing of it runs; from here on nobody finds it.
                self._loader.destroy(connection, frame, self._handlers.pop(frame.number, None))
        return inferences

    def _collect_finished(self) -> None:
        for finished in self._loader.finished():
            if finished.handler is not None:
                self._handlers[finished.number] = finished.handler
            self._send(finished.connection, _reply(finished))

    def _answer(self, number: int, waiting: list[tuple[socket.socket, Frame]]) -> None:
        handler = self._handlers.get(number)
        if handler is None:
            error = KeyError(f"no model has number {number}")
            for connection, frame in waiting:
                self._send(connection, error_frame(frame.id, error))
            return
        for batch in slices(waiting, handler.max_batch_rows):
            self._answer_batch(handler, batch)

    def _answer_batch(self, handler: Handler, batch: list[tuple[socket.socket, Frame]]) -> None:
        requests = [InferenceRequest(frame.body, *read_request_lines(frame.meta)) for _, frame in batch]
        try:
            answers = handler.respond(requests)
        except Exception as error:  # user code may raise anything; each request learns of it
            logger.exception("A handler raised instead of answering.")
            answers = [error] * len(batch)
        replies: dict[socket.socket, list[bytes]] = {}
        for (connection, frame), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                reply = error_frame(frame.id, answer)
            else:
                reply = frames.encode(Kind.ANSWER, frame.id, answer.status, response_lines(answer), answer.body)
            replies.setdefault(connection, []).append(reply)
        for connection, parts in replies.items():
            self._send(connection, b"".join(parts))

    def _send(self, connection: socket.socket, reply: bytes) -> None:
        try:
            connection.sendall(reply)
        except OSError:
            # That front door is gone; its end-of-file is read next.
            logger.debug("A reply found its front door gone.")


def _reply(finished: Finished) -> bytes:
    if finished.error is not None:
        return error_frame(finished.frame_id, finished.error)
    return frames.encode(Kind.DONE, finished.frame_id, 0, finished.facts)
