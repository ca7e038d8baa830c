"""An event loop of a handler's own, for user code that is asynchronous; made when something has to be awaited.

It runs only while a request is answered or a piece of a stream is made, on the thread that asks for it.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoop:
    """Runs coroutines to their end: without a loop, which costs less, until one of them has to wait."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop; from now on coroutines run on it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns. It awaits nothing but what `awaited` and `at_once` give it."""
        if self._loop is not None:
            return self._loop.run_until_complete(work)
        try:
            work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        raise AssertionError("a coroutine waits although there is no loop")

    async def awaited(self, result: Any) -> Any:
        """Return a result, or what it gives where it has to be awaited."""
        if not is_awaitable(result):
            return result
        loop = self.loop()
        return await result if loop.is_running() else loop.run_until_complete(_wait_for(result))

    async def at_once(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Return all results, in order: of work done at the same time where there is something to wait for."""
        if self._loop is not None and self._loop.is_running():
            return await asyncio.gather(*work)
        return [await each for each in work]

    def close(self) -> None:
        """End what still runs on the loop."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def is_awaitable(result: Any) -> bool:
    """Whether a result has to be awaited. Asked of everything that a function returns, so it looks at little."""
    return hasattr(type(result), "__await__")


async def _wait_for(result: Awaitable[Any]) -> Any:
    return await result
