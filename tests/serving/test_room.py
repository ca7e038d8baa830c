"""A model that finds all the memory taken by busy ones waits for them, where nobody else makes room."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, wait_until

from mooring.serving.errors import MIB, InsufficientMemoryError, ModelExistsError
from mooring.serving.eviction import Eviction
from mooring.serving.residency import ResidencyTable
from mooring.serving.room import Room

# The smallest model, and not two.
BUDGET = 300 << 10
WAITS = "waits for busy models to make room"
HELD = (
    "import pathlib, time\n"
    "def model_fn(model_dir): return pathlib.Path(model_dir)\n"
    "def transform_fn(folder, body, content_type, accept):\n"
    "    (folder / 'inside').touch()\n"
    "    while not (folder / 'released').exists(): time.sleep(0.01)\n"
    "    return 'held', accept\n"
)


@contextmanager
def one_busy_model(server: RunningServer, folder: Path) -> Iterator[Future[httpx.Response]]:
    """Keep a request inside `folder`'s model while the block runs; its answer is there after it."""
    with ThreadPoolExecutor(1) as client:
        held = client.submit(server.invoke, folder.name, [])
        try:
            wait_until((folder / "inside").exists, 30)
            yield held
        finally:
            (folder / "released").touch()


def test_request_waits_until_a_busy_model_is_done_and_can_go(start_server: Servers, tmp_path: Path) -> None:
    """It was answered 507 at once, and the many that asked with it each looked for room by themselves."""
    folder = code_model(tmp_path / "busy", HELD)
    scale_model(tmp_path / "wanted")
    server = start_server(tmp_path, "repository", eviction="lru", budget_bytes=BUDGET)
    with ThreadPoolExecutor(8) as clients:
        with one_busy_model(server, folder) as held:
            asked = [clients.submit(server.invoke, "wanted", [[1, 2, 3]]) for _ in range(8)]
            wait_until(lambda: WAITS in server.log.read_text())
            assert not any(request.done() for request in asked)
        assert held.result().text == "held"
        assert [request.result().json() for request in asked] == [[[2, 4, 6]]] * 8
    log = server.log.read_text()
    assert log.count(WAITS) == 1
    assert log.count("'wanted' loaded") == 1


def test_wait_for_room_ends_and_the_refusal_has_the_numbers(start_server: Servers, tmp_path: Path) -> None:
    folder = code_model(tmp_path / "busy", HELD)
    for name in ("wanted", "second-in-line"):
        scale_model(tmp_path / name)
    server = start_server(tmp_path, "repository", eviction="reuse", budget_bytes=BUDGET, room_seconds=0.3)
    with one_busy_model(server, folder), ThreadPoolExecutor(2) as clients:
        answers = [*clients.map(lambda name: server.invoke(name, [[1, 2, 3]]), ["wanted", "second-in-line"])]
        assert [answer.status_code for answer in answers] == [507, 507]
        assert "is free, with 1 loaded that cannot make room" in answers[0].json()["message"]
    # Nothing is remembered of it: there is room now.
    assert server.invoke("wanted", [[1, 2, 3]]).json() == [[2, 4, 6]]


def test_platform_is_told_at_once(start_server: Servers, tmp_path: Path) -> None:
    """It unloads another model when it hears of it, and would wait for nothing."""
    folder = code_model(tmp_path / "busy", HELD)
    server = start_server(tmp_path, budget_bytes=BUDGET)
    assert server.load("busy", folder).status_code == 200
    with one_busy_model(server, folder):
        assert server.load("wanted", scale_model(tmp_path / "wanted")).status_code == 507
    assert WAITS not in server.log.read_text()


def test_client_that_leaves_while_its_model_waits_for_room_is_not_computed_for(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start_server(tmp_path, "repository", eviction="lru", budget_bytes=BUDGET, room_seconds=20.0)
    code_model(tmp_path / "held", HELD)
    (tmp_path / "counts").mkdir()
    code_model(tmp_path / "counts", COUNTS)
    body = b"POST /models/counts/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(server.invoke, "held", 1)
        wait_until((tmp_path / "held/inside").exists)
        for _ in range(3):
            with server.connect() as connection:
                connection.sendall(body)
                wait_until(lambda: WAITS in server.log.read_text())
        (tmp_path / "held/released").touch()
        assert busy.result().status_code == 200
        assert server.invoke("counts", 1).text == "1"


COUNTS = (
    "seen = []\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    seen.append(body)\n"
    "    return str(len(seen)), 'text/plain'\n"
)


class Crowd:
    """Loads into memory for 100 MiB, of which a busy model has 90."""

    def __init__(self, room_seconds: float) -> None:
        self.table = ResidencyTable(100 * MIB, Eviction.LRU)
        self.table.factors["onnx"] = 1.0
        self.admit("busy", 90 * MIB)
        self.table.records["busy"].leases = 1
        self._room = Room(room_seconds)
        self._asked = asyncio.Event()

    def admit(self, name: str, size: int) -> None:
        self.table.admit(name, url=name, path=Path(name), kind="onnx", artifact_bytes=size, available=1 << 40, now=0.0)

    def load(self, name: str, size: int) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._load(name, size))

    def _load(self, name: str, size: int) -> Coroutine[Any, Any, None]:
        async def promise() -> None:
            self._asked.set()
            self.admit(name, size)

        return self._room.find(name, promise)

    async def wait_with_too_much(self) -> asyncio.Task[None]:
        """Have a model wait, the first in line, that fits once the busy one is gone."""
        first = self.load("first", 50 * MIB)
        await self._asked.wait()
        return first

    @property
    def admitted(self) -> list[str]:
        return [name for name in self.table.records if name != "busy"]


def test_load_that_comes_later_does_not_take_the_room_of_who_waits() -> None:
    """It found room before the first in line looked again, which was refused in the end."""

    async def load() -> list[str]:
        crowd = Crowd(room_seconds=10.0)
        first = await crowd.wait_with_too_much()
        later = [crowd.load(name, 5 * MIB) for name in ("second", "third")]
        crowd.table.remove(crowd.table.records["busy"])
        await asyncio.gather(first, *later)
        return crowd.admitted

    assert asyncio.run(load()) == ["first", "second", "third"]


def test_who_leaves_the_line_holds_nobody_up() -> None:
    async def load() -> list[str]:
        crowd = Crowd(room_seconds=10.0)
        first = await crowd.wait_with_too_much()
        second, third = crowd.load("second", 5 * MIB), crowd.load("third", 5 * MIB)
        first.cancel()
        second.cancel()
        await third
        return crowd.admitted

    assert asyncio.run(load()) == ["third"]


def test_load_that_fails_while_it_waits_holds_nobody_up() -> None:
    async def load() -> list[str]:
        crowd = Crowd(room_seconds=10.0)
        first = await crowd.wait_with_too_much()
        later = crowd.load("later", 5 * MIB)
        crowd.admit("first", MIB)  # by somebody else
        with pytest.raises(ModelExistsError):
            await first
        await later
        return crowd.admitted

    assert asyncio.run(load()) == ["first", "later"]


def test_load_behind_one_that_never_fits_has_its_turn_within_the_time_that_each_may_wait() -> None:
    async def load() -> list[str]:
        crowd = Crowd(room_seconds=0.2)
        first = await crowd.wait_with_too_much()
        later = crowd.load("later", 5 * MIB)
        with pytest.raises(InsufficientMemoryError):
            await first
        await later
        return crowd.admitted

    assert asyncio.run(load()) == ["later"]


def test_line_that_is_over_makes_nobody_wait() -> None:
    async def load() -> bool:
        crowd = Crowd(room_seconds=0.1)
        with pytest.raises(InsufficientMemoryError):
            await (await crowd.wait_with_too_much())
        coming = crowd.load("later", 5 * MIB)
        await asyncio.sleep(0)  # one turn of the loop, in which it is asked and promised
        return coming.done()

    assert asyncio.run(load())
