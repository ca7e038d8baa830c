"""A model that keeps its shared host busy gets another one, and gives it back when it is calm or memory is short."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from models import scale_model, slow_model
from servers import RunningServer, Servers, wait_until, working_beside

from mooring.serving.residency import FIRST_FACTOR

CONSTANTS = {"copies.WINDOW_S": 2.0, "copies.CALM_S": 2.0}


@pytest.fixture
def server(start_server: Servers, tmp_path: Path) -> RunningServer:
    return started(start_server, slow_model(tmp_path / "busy"))


def started(start_server: Servers, model: Path, budget: int = 0) -> RunningServer:
    server = start_server(model.parent, shared_hosts=2, budget=budget, constants=CONSTANTS)
    assert server.load("busy", model).status_code == 200
    return server


def held(server: RunningServer) -> tuple[list[int], int]:
    """The hosts that the busy model lies in, and its bytes."""
    found = server.client.get("/models/busy").json()
    return found["hosts"], found["bytes"]


def has_two_others(server: RunningServer, dead: int) -> bool:
    hosts, _ = held(server)
    return len(hosts) == 2 and dead not in hosts


@contextmanager
def copied(server: RunningServer) -> Iterator[None]:
    """Have the model asked all the time, and wait until it lies in two hosts; every request is to be answered."""
    answers: set[tuple[int, str]] = set()

    def ask(_: int, is_over: threading.Event) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=60) as client:
            while not is_over.is_set():
                asked = client.post("/models/busy/invoke", json=[[1, 2, 3]])
                answers.add((asked.status_code, asked.text))

    with working_beside(ask, 4):
        wait_until(lambda: len(held(server)[0]) == 2, 60)
        yield
    assert answers == {(200, "[[2.0,4.0,6.0]]")}


def test_busy_model_gets_another_host_and_gives_it_back_when_it_is_calm(server: RunningServer) -> None:
    (first,), size = held(server)
    with copied(server):
        hosts, both = held(server)
        assert hosts[0] == first
        assert both == 2 * size
        others = [process for process in server.hosts() if process.pid == hosts[1]]
        before = others[0].cpu_times().user
        wait_until(lambda: others[0].cpu_times().user > before + 0.2, 60)
    wait_until(lambda: held(server) == ([first], size), 60)


def test_load_that_finds_no_room_gets_that_of_a_copy(
    server: RunningServer, start_server: Servers, tmp_path: Path
) -> None:
    large = scale_model(tmp_path / "large", padding_floats=16 << 20)
    wanted = (large / "model.onnx").stat().st_size * FIRST_FACTOR
    short = started(start_server, tmp_path / "busy", budget=int(wanted + 1.5 * held(server)[1]))
    with copied(short):
        assert short.load("large", large).status_code == 200
        assert len(held(short)[0]) == 1
    assert short.invoke("large", [[1, 2, 3]]).json() == [[2, 4, 6]]


def test_either_host_of_a_busy_model_may_die(server: RunningServer) -> None:
    with copied(server):
        for which in (0, 1):
            hosts, both = held(server)
            os.kill(hosts[which], 9)
            wait_until(partial(has_two_others, server, hosts[which]), 60)
            assert held(server)[1] == both
