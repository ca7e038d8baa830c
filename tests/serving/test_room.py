"""A model that finds all the memory taken by busy ones waits for them, where nobody else makes room."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from models import code_model, scale_model
from servers import RunningServer, Servers, wait_until

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
