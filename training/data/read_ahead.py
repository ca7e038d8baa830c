"""Reads samples in a thread, so that reading goes on while training computes. What is read ahead is bounded."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue

from mooring.training.stop import current_stop

from .samples import Raw

# Samples are handed over in parcels: each costs two threads a turn of the interpreter's lock.
PARCEL_BYTES, PARCEL_SAMPLES = 1 << 20, 4096
PARCELS = 8
# How soon either thread notices that it is to stop.
NOTICE_S = 0.1

Parcel = list[Raw] | BaseException | None


class StopAskedError(Exception):
    """A stop was asked for while a reader waited for data."""


class ReadAhead:
    """An iterator over what `read` yields, which runs in a thread and is told a function to call before it waits.

    With `check`, which hears how many seconds a wait for the next sample has taken and may raise, that wait ends with
    `StopAskedError` when this process is asked to stop; without, it is taken to end by itself. `close` is to be called
    in the end.
    """

    def __init__(
        self,
        read: Callable[[Callable[[], None]], Iterable[Raw]],
        name: str,
        check: Callable[[float], None] | None = None,
    ) -> None:
        self._read = read
        self._check = check
        self._parcels: Queue[Parcel] = Queue(PARCELS)
        self._pending: list[Raw] = []
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reading {name}", daemon=True)
        self._thread.start()

    # --- the thread that reads --------------------------------------------------------------------------------------

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            size = 0
            for raw in self._read(self._hand_over):
                if not self._pending:
                    size = 0
                self._pending.append(raw)
                size += len(raw.content)
                if size >= PARCEL_BYTES or len(self._pending) >= PARCEL_SAMPLES:
                    self._hand_over()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the reader is to raise it
            last = error
        with suppress(_ClosedError):
            self._hand_over()
            self._put(last)

    def _hand_over(self) -> None:
        if self._pending:
            self._put(self._pending)
            self._pending = []

    def _put(self, parcel: Parcel) -> None:
        while not self._is_closed.is_set():
            with suppress(Full):
                self._parcels.put(parcel, timeout=NOTICE_S)
                return
        raise _ClosedError

    # --- the reader -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Raw]:
        while (parcel := self._next()) is not None:
            if isinstance(parcel, BaseException):
                raise parcel
            yield from parcel

    def _next(self) -> Parcel:
        if self._check is None:
            return self._parcels.get()
        waited = 0.0
        while True:
            with suppress(Empty):
                return self._parcels.get(timeout=NOTICE_S)
            stop = current_stop()
            if stop is not None and stop.was_asked:
                raise StopAskedError
            waited += NOTICE_S
            self._check(waited)

    def close(self) -> None:
        """End the thread. Whoever gave `read` sees to it that it does not wait for ever."""
        self._is_closed.set()
        self._thread.join()


class _ClosedError(Exception):
    """Nobody wants what is read any more."""
