"""The front door's event loop stays awake for a moment when something is expected, and sleeps otherwise."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from selecting import NotingSelector

from mooring.serving import lookout
from mooring.serving.lookout import LoopLookout

Scenario = Callable[[LoopLookout], Awaitable[None]]


def looks(scenario: Scenario, *, may_look_out: bool = True) -> list[float | None]:
    """How long the loop was ready to wait each time while the scenario went on; 0 is a look."""
    selector = NotingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        waiting = LoopLookout(loop, may_look_out=may_look_out)
        selector.waits.clear()
        loop.run_until_complete(scenario(waiting))
        return selector.waits
    finally:
        loop.close()


async def expect_and_wait(waiting: LoopLookout) -> None:
    waiting.expect()
    await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def _long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look out for so long that a loop's own turns, which are a few looks too, are told from it."""
    monkeypatch.setattr(lookout, "LOOKOUT_S", 0.02)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give way so readily that a slow machine makes no difference."""
    monkeypatch.setattr(lookout, "GAVE_WAY_S", 5.0)


@pytest.mark.usefixtures("patient")
def test_loop_looks_again_and_again_and_then_sleeps() -> None:
    waits = looks(expect_and_wait)
    assert waits.count(0) > 20
    assert any(wait for wait in waits)


@pytest.mark.usefixtures("patient")
def test_what_is_expected_again_goes_on_without_a_second_round() -> None:
    async def twice(waiting: LoopLookout) -> None:
        waiting.expect()
        waiting.expect()
        await asyncio.sleep(0)
        assert len(asyncio.get_running_loop()._ready) == 1  # type: ignore[attr-defined]

    looks(twice)


def test_loop_rests_when_somebody_else_wants_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "GAVE_WAY_S", -1.0)  # as if each yield took long
    monkeypatch.setattr(lookout, "REST_S", 60.0)

    async def twice(waiting: LoopLookout) -> None:
        await expect_and_wait(waiting)
        await expect_and_wait(waiting)

    assert looks(twice).count(0) < 10


def test_loop_of_one_core_always_sleeps() -> None:
    assert looks(expect_and_wait, may_look_out=False).count(0) < 10
