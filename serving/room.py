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
    """The line of loads that wait for memory, first come first served."""

    def __init__(self, room_seconds: float) -> None:
        self._room_seconds = room_seconds
        self._line = asyncio.Lock()  # whose holder is the next to find room
        self._time = asyncio.get_running_loop().time
        # Takes back the memory of copies; returns whether there were any.
        self.give_up_copies: Callable[[], Awaitable[bool]] = _none_there

    async def find(self, name: str, promise: Callable[[], Awaitable[T]]) -> T:
        """Return what `promise` returns once it finds room. Raises `InsufficientMemoryError` if it does not in time."""
        try:
            return await promise()
        except InsufficientMemoryError as first:
            error = first
        if await self.give_up_copies():
            try:
                return await promise()
            except InsufficientMemoryError as second:
                error = second
        if not error.may_pass:
            raise error
        logger.info("Model '%s' waits for busy models to make room.", name)
        return await self._wait(promise, error)

    async def _wait(self, promise: Callable[[], Awaitable[T]], error: InsufficientMemoryError) -> T:
        deadline = self._time() + self._room_seconds
        try:
            await asyncio.wait_for(self._line.acquire(), self._room_seconds)
        except TimeoutError:
            raise error from None
        try:
            while True:
                try:
                    return await promise()
                except InsufficientMemoryError as newest:
                    if not newest.may_pass or self._time() >= deadline:
                        raise
                await asyncio.sleep(ROOM_CHECK_S)
        finally:
            self._line.release()
