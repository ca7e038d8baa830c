"""How long a streamed answer may take: as long as its own limit says, while its host has something to say."""

import json
import time
from pathlib import Path

import httpx
import pytest
from models import code_model
from servers import RunningServer, Servers, read_all, wait_until

RESPONSE_S, STREAM_S = 1.0, 8.0
LANES = ("", "?ordinary")
# Yields as many parts as it is told, so many seconds apart, each of so many bytes.
CODE = """
import json, os, time
def model_fn(model_dir): return None
def pieces(order):
    for _ in range(order["parts"]):
        yield "x" * order.get("bytes", 1)
        time.sleep(order.get("seconds", 0))
def transform_fn(model, body, content_type, accept):
    order = json.loads(body)
    return pieces(order) if "parts" in order else str(os.getpid()), "text/plain"
"""


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    server = start_server(root, response_seconds=RESPONSE_S, stream_seconds=STREAM_S, fronts=fronts)
    assert server.load("m", code_model(root / "m", CODE)).status_code == 200
    return server


def ask(server: RunningServer, lane: str = "", **order: object) -> httpx.Response:
    return server.client.post(f"/models/m/invoke{lane}", content=json.dumps(order))


@pytest.mark.parametrize("lane", LANES)
def test_stream_may_take_longer_than_an_answer(server: RunningServer, lane: str) -> None:
    assert ask(server, lane, parts=8, seconds=0.25).text == "x" * 8


@pytest.mark.parametrize("lane", LANES)
def test_stream_that_takes_longer_than_its_own_limit_is_cut_and_its_host_lives(
    server: RunningServer, lane: str
) -> None:
    host = ask(server).text
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, lane, parts=1000, seconds=0.25)
    assert ask(server).text == host


@pytest.mark.parametrize("lane", LANES)
def test_stream_whose_host_falls_silent_is_cut_and_the_host_replaced(server: RunningServer, lane: str) -> None:
    host = ask(server).text
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, lane, parts=2, seconds=1000)
    wait_until(lambda: ask(server).text not in (host, ""))


@pytest.mark.parametrize(("parts", "size", "seconds"), [(300, 1 << 16, 0.0), (6, 4 << 20, 0.3)])
@pytest.mark.parametrize("lane", LANES)
def test_host_that_waits_for_a_client_does_not_hang(
    server: RunningServer, lane: str, parts: int, size: int, seconds: float
) -> None:
    """Nobody reads for twice as long as an answer may take; then all of it is there."""
    host = ask(server).text
    order = json.dumps({"parts": parts, "bytes": size, "seconds": seconds}).encode()
    head = b"POST /models/m/invoke%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head % (lane.encode(), len(order)) + order)
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 2 * RESPONSE_S)
        assert read_all(connection).partition(b"\r\n\r\n")[2].count(b"x") == parts * size
    assert ask(server).text == host


def test_limit_of_streams_is_never_shorter_than_that_of_answers(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, response_seconds=10.0, stream_seconds=0.5)
    assert server.load("m", code_model(tmp_path / "m", CODE)).status_code == 200
    assert ask(server, parts=4, seconds=0.4).text == "xxxx"
