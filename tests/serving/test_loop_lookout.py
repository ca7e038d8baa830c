"""The front door's event loop stays awake for a moment when something is expected, and sleeps otherwise."""

import asyncio
import itertools
import os

import pytest

from mooring.serving import lookout
from mooring.serving.lookout import LoopLookout

# More turns of a loop than it looks out.
TURNS = 100


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one with each look. Each glance at the clock takes 10 µs, whatever else the machine does."""
    seen: list[None] = []
    ticks = itertools.count()
    monkeypatch.setattr(os, "sched_yield", lambda: seen.append(None))
    monkeypatch.setattr(lookout, "monotonic", lambda: next(ticks) * 1e-5)
    return seen


def expect(times: int, *, may_look_out: bool = True) -> None:
    """Expect something so many times, one after the other, and let the loop turn until nothing is left to do."""

    async def turn() -> None:
        waiting = LoopLookout(asyncio.get_running_loop(), may_look_out=may_look_out)
        for _ in range(times):
            waiting.expect()
            for _ in range(TURNS):
                await asyncio.sleep(0)

    asyncio.run(turn())


def test_loop_looks_again_and_again_and_then_no_more(looks: list[None]) -> None:
    expect(1)
    once = len(looks)
    assert 10 < once < 20
    expect(3)
    assert len(looks) == 4 * once


def test_what_is_expected_meanwhile_makes_the_lookout_longer_and_not_double(looks: list[None]) -> None:
    async def twice() -> None:
        waiting = LoopLookout(asyncio.get_running_loop(), may_look_out=True)
        waiting.expect()
        waiting.expect()
        before = len(looks)
        await asyncio.sleep(0)
        assert len(looks) == before + 1

    asyncio.run(twice())


def test_loop_rests_when_somebody_else_wants_the_core(looks: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "GAVE_WAY_S", -1.0)  # as if each yield took long
    monkeypatch.setattr(lookout, "REST_S", 60.0)
    expect(3)
    assert len(looks) == 1


def test_loop_of_one_core_always_sleeps(looks: list[None]) -> None:
    expect(3, may_look_out=False)
    assert not looks
