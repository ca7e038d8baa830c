"""What makes an answer piece by piece, a user's generator or iterator, as the chunks of a streamed answer.

The first piece is made before the answer is, so that the status and headers it sets, or the error it raises, count.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from . import codecs
from .answers import plain, to_bytes
from .errors import HandlerError
from .event_loop import EventLoop
from .user_module import user_code

WHAT = "The model's stream"


class _End:
    """Follows the last piece."""


class Source(Protocol):
    """Where pieces come from, one at a time."""

    def take(self) -> Any:
        """Return the next piece, `_End` after the last."""

    def close(self) -> None:
        """Stop making them."""


class Plain:
    """Pieces of a generator or iterator."""

    def __init__(self, made: Iterator[Any]) -> None:
        self._made = made

    def take(self) -> Any:
        """Return the next piece."""
        with user_code(WHAT):
            return next(self._made, _End)

    def close(self) -> None:
        """Close a generator, which sees it as GeneratorExit."""
        close = getattr(self._made, "close", None)
        if close is not None:
            with user_code(WHAT):
                close()


class Asynchronous:
    """Pieces of an asynchronous generator, made in one task, so that its timeouts and task groups work."""

    def __init__(self, made: AsyncIterator[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._made = made
        self._loop = loop
        self._queue: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue(1)
        self._task = loop.create_task(self._make())

    async def _make(self) -> None:
        error: BaseException | None = None
        try:
            async for piece in self._made:
                await self._queue.put((piece, None))
        except (Exception, asyncio.CancelledError) as raised:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # closed from outside; a generator may raise the same by itself
                raise
            error = raised
        finally:
            close = getattr(self._made, "aclose", None)
            if close is not None:
                await close()
        await self._queue.put((_End, error))

    async def take_inside(self) -> Any:
        """Return the next piece, to a coroutine on the same loop."""
        piece, error = await self._queue.get()
        if error is not None:
            with user_code(WHAT):
                raise error
        return piece

    def take(self) -> Any:
        """Return the next piece."""
        return self._loop.run_until_complete(self.take_inside())

    def close(self) -> None:
        """Cancel the generator where it waits."""
        self._task.cancel()
        # Another model function may be running on the loop right now; it goes on, and the task ends meanwhile.
        if not self._loop.is_running() and not self._loop.is_closed():
            self._loop.run_until_complete(asyncio.wait([self._task]))
            if not self._task.cancelled():
                self._task.exception()  # what it raised as it was closed; nobody waits for it


class Chunks:
    """The chunks of an answer: text and bytes as they are, other values as lines of JSON. Empty ones are left out."""

    def __init__(self, source: Source, first: Any) -> None:
        self._source: Source | None = source
        self._first = [first]

    def __iter__(self) -> "Chunks":
        return self

    def __next__(self) -> bytes:
        while self._source is not None:
            piece = self._first.pop() if self._first else self._source.take()
            if piece is _End:
                self.close()
                break
            chunk = _to_chunk(piece)
            if chunk:
                return chunk
        raise StopIteration

    def close(self) -> None:
        """Stop what makes them."""
        source, self._source = self._source, None
        if source is not None:
            source.close()


def is_stream(result: Any) -> bool:
    """Whether a result makes its answer piece by piece."""
    kind = type(result)
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__")


async def open_chunks(made: Any, event_loop: EventLoop) -> Chunks:
    """Return the chunks of a stream, the first of them made. Raises what making it raises."""
    if isinstance(made, Iterator):
        source: Source = Plain(made)
        return Chunks(source, source.take())
    loop = event_loop.loop()
    source = Asynchronous(made, loop)
    return Chunks(source, await source.take_inside() if loop.is_running() else source.take())


def _to_chunk(piece: Any) -> bytes:
    try:
        if isinstance(piece, (str, bytes, bytearray, memoryview)):
            return to_bytes(piece)
        return codecs.encode_json(plain(piece)) + b"\n"
    except UnicodeEncodeError as error:
        raise HandlerError(f"{WHAT} made text that is no Unicode: {error}.") from error
    except TypeError as error:
        raise HandlerError(f"{WHAT} made something that cannot be sent: {error}.") from error
