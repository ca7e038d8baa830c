"""A host looks out for the next request while requests follow each other closely, and sleeps otherwise."""

import selectors
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mooring.serving import lookout
from mooring.serving.lookout import MOST_IN_VAIN, Lookout


class NotingSelector(selectors.DefaultSelector):
    """A selector that notes for how long it was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.waits.append(timeout)
        return super().select(timeout)

    def sleeps(self) -> list[float | None]:
        """Return the waits since the last call that were not just looks."""
        waits, self.waits = self.waits, []
        return [seconds for seconds in waits if seconds != 0]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def selector(ends: tuple[socket.socket, socket.socket]) -> Iterator[NotingSelector]:
    with NotingSelector() as selector:
        selector.register(ends[0], selectors.EVENT_READ)
        yield selector


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look out for so long, and give way so readily, that a slow machine makes no difference."""
    monkeypatch.setattr(lookout, "LOOKOUT_S", 5.0)
    monkeypatch.setattr(lookout, "GAVE_WAY_S", 5.0)


def arrive_and_take(ends: tuple[socket.socket, socket.socket], waiting: Lookout) -> None:
    """Let a request be there at once."""
    ends[1].send(b"x")
    assert waiting.wait(None)
    ends[0].recv(1)


@pytest.mark.usefixtures("patient")
def test_host_sleeps_until_a_request_has_followed_closely(ends: Any, selector: NotingSelector) -> None:
    waiting = Lookout(selector, may_look_out=True)
    arrive_and_take(ends, waiting)
    assert selector.sleeps() == [None]
    arrive_and_take(ends, waiting)
    assert selector.sleeps() == []


@pytest.mark.usefixtures("patient")
def test_request_that_comes_meanwhile_ends_the_lookout(ends: Any, selector: NotingSelector) -> None:
    waiting = Lookout(selector, may_look_out=True)
    arrive_and_take(ends, waiting)
    selector.sleeps()
    with ThreadPoolExecutor(1) as thread:
        arrived = thread.submit(waiting.wait, None)
        ends[1].send(b"x")
        assert len(arrived.result(10)) == 1
    assert selector.sleeps() == []


def test_host_that_looks_out_in_vain_goes_back_to_sleep(
    ends: Any, selector: NotingSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "GAVE_WAY_S", 5.0)
    waiting = Lookout(selector, may_look_out=True)
    monkeypatch.setattr(lookout, "LOOKOUT_S", 5.0)
    arrive_and_take(ends, waiting)
    monkeypatch.setattr(lookout, "LOOKOUT_S", 0.0001)
    selector.waits.clear()
    for _ in range(MOST_IN_VAIN):
        assert waiting.wait(0.0002) == []
    assert 0 in selector.waits
    selector.waits.clear()
    assert waiting.wait(0.0002) == []
    assert selector.waits == [0.0002]


def test_host_rests_when_somebody_else_wants_the_core(
    ends: Any, selector: NotingSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOKOUT_S", 5.0)
    monkeypatch.setattr(lookout, "GAVE_WAY_S", -1.0)  # as if each yield took long
    monkeypatch.setattr(lookout, "REST_S", 60.0)
    waiting = Lookout(selector, may_look_out=True)
    arrive_and_take(ends, waiting)
    selector.waits.clear()
    assert waiting.wait(0.001) == []
    assert len(selector.waits) == 2  # one look, then asleep
    selector.waits.clear()
    assert waiting.wait(0.001) == []
    assert selector.waits == [0.001]


@pytest.mark.usefixtures("patient")
def test_lookout_ends_when_the_wait_does(ends: Any, selector: NotingSelector) -> None:
    waiting = Lookout(selector, may_look_out=True)
    arrive_and_take(ends, waiting)
    assert waiting.wait(0.005) == []
    assert waiting.wait(0) == []


@pytest.mark.usefixtures("patient")
def test_host_with_one_core_or_of_its_own_always_sleeps(ends: Any, selector: NotingSelector) -> None:
    waiting = Lookout(selector, may_look_out=False)
    for _ in range(3):
        arrive_and_take(ends, waiting)
    assert selector.sleeps() == [None] * 3
