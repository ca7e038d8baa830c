"""How a process waits for what comes next: asleep, or on the lookout while requests follow each other closely.

To fall asleep and be woken costs more than a small model: the processor lets its caches go cold meanwhile. So who was
woken soon after a wait began looks again and again for a while the next times, as a hypervisor does for a halted guest.
Who has looked out in vain for some times sleeps, so that requests that come now and then cost nothing more; and who
finds that somebody else wants the core rests. docs/decisions/0019 has figures.
"""

import asyncio
import os
import selectors
from time import monotonic

# How long to be on the lookout: longer than a small model's answer takes to its client and back as the next request.
LOOKOUT_S = 0.0003
# How often to look out in vain before sleeping: under load some waits are short and some are not.
MOST_IN_VAIN = 8
# A yield that takes longer than this has given the core to somebody who wanted it: the host rests for so long.
GAVE_WAY_S = 0.00002
REST_S = 0.001

Ready = list[tuple[selectors.SelectorKey, int]]


class Lookout:
    """Waits for events of a selector. Without `may_look_out` it always sleeps."""

    def __init__(self, selector: selectors.BaseSelector, *, may_look_out: bool) -> None:
        self._select = selector.select
        self._may_look_out = may_look_out
        self._hope = 0  # how often it looks out even if in vain
        self._rests_until = 0.0

    def wait(self, seconds: float | None) -> Ready:
        """Return what is ready, as soon as anything is, or nothing after so many seconds; None waits for ever."""
        begun = monotonic()
        if self._hope and begun >= self._rests_until:
            ready = self._look_out(begun, LOOKOUT_S if seconds is None else min(seconds, LOOKOUT_S))
            if ready:
                self._hope = MOST_IN_VAIN
                return ready
            self._hope -= 1
            seconds = None if seconds is None else max(0.0, seconds - (monotonic() - begun))
        ready = self._select(seconds)
        if ready and self._may_look_out and monotonic() - begun < LOOKOUT_S:
            self._hope = MOST_IN_VAIN
        return ready

    def _look_out(self, begun: float, seconds: float) -> Ready:
        now = begun
        while now - begun < seconds:
            ready = self._select(0)
            if ready:
                return ready
            before = monotonic()
            os.sched_yield()
            now = monotonic()
            if now - before > GAVE_WAY_S:
                self._rests_until = now + REST_S
                break
        return []


class LoopLookout:
    """Keeps an event loop from falling asleep for a while. Without `may_look_out` it does nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, may_look_out: bool) -> None:
        self._loop = loop
        self._is_on = False
        self._until = 0.0
        self._rests_until = 0.0 if may_look_out else float("inf")

    def expect(self) -> None:
        """Look out for something that comes soon."""
        now = monotonic()
        if now < self._rests_until:
            return
        self._until = now + LOOKOUT_S
        if not self._is_on:
            self._is_on = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Have the loop look once without waiting, and come back here."""
        before = monotonic()
        if before > self._until:
            self._is_on = False
            return
        os.sched_yield()
        now = monotonic()
        if now - before > GAVE_WAY_S:
            self._is_on = False
            self._rests_until = now + REST_S
            return
        self._loop.call_soon(self._look)
