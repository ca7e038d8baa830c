"""How a load gets memory that is not free: copies of busy models go first, then it waits for models that are busy."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import InsufficientMemoryError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How often a load looks whether a busy model has become idle.
ROOM_CHECK_S = 0.02


async def _none_there() -> bool:
    return False


class Room:
    """The line of loads that wait for memory, first come first served.

    Who comes while others wait goes to the end of the line, also one that needs little where the first needs more than
    there will be: it is then its turn after `room_seconds` at most.
    """

    def __init__(self, room_seconds: float) -> None:
        self._room_seconds = room_seconds
        self._line = asyncio.Lock()  # whose holder is the next to find room
        self._waiting = 0  # holder included
        self._time = asyncio.get_running_loop().time
        # Takes back the memory of copies; returns whether there were any.
        self.give_up_copies: Callable[[], Awaitable[bool]] = _none_there

    async def find(self, name: str, promise: Callable[[], Awaitable[T]]) -> T:
        """Return what `promise` returns once it finds room. Raises `InsufficientMemoryError` if it does not in time."""
        if not self._waiting:
            try:
                return await self.ask(promise)
            except InsufficientMemoryError as error:
                if not error.may_pass:
                    raise
        logger.info("Model '%s' waits for busy models to make room.", name)
        self._waiting += 1
        try:
            return await self._wait(promise)
        finally:
            self._waiting -= 1

    async def ask(self, promise: Callable[[], Awaitable[T]]) -> T:
        """Return what `promise` returns, once more without the copies of models if there are any."""
        try:
            return await promise()
        except InsufficientMemoryError:
            if not await self.give_up_copies():
                raise
        return await promise()

    async def _wait(self, promise: Callable[[], Awaitable[T]]) -> T:
        deadline = self._time() + self._room_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._line.acquire()
        except TimeoutError:
            return await self.ask(promise)  # those before have had their time as well: none of them is overtaken
        try:
            while True:
                try:
                    return await self.ask(promise)
                except InsufficientMemoryError as newest:
                    if not newest.may_pass or self._time() >= deadline:
                        raise
                await asyncio.sleep(ROOM_CHECK_S)
        finally:
            self._line.release()
