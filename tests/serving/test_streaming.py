"""Answers that are made piece by piece, through both lanes."""

import json
import socket
from pathlib import Path

import httpx
import pytest
from models import code_model
from servers import RunningServer, Servers, read_all, wait_until

LANES = ("", "?ordinary")
# Does what its request says, and leaves notes in its folder.
CODE = """
import json, os, pathlib
NOTES = pathlib.Path(__file__).parent.parent
def model_fn(model_dir): return None
def pieces(order):
    made = 0
    try:
        for part in order.get("parts", []):
            if part == "raise": raise ValueError("secret detail")
            yield part
        while order.get("endless"):
            made += 1
            (NOTES / "made").write_text(str(made))
            yield "x" * 65536
    finally:
        (NOTES / "closed").write_text("yes")
def transform_fn(model, body, content_type, accept):
    order = json.loads(body)
    return pieces(order), order.get("type", "text/plain")
"""
# Works on its second piece for as long as somebody wants it.
ASKING = """
import json, pathlib, time
def model_fn(model_dir): return pathlib.Path(model_dir)
def pieces(folder, context):
    yield "first"
    while not context.is_cancelled(): time.sleep(0.001)
    (folder / "asked").write_text("yes")
def transform_fn(model, body, content_type, accept, context):
    return pieces(model, context) if json.loads(body) else "short", "text/plain"
"""
ASYNC_CODE = """
import asyncio, json
async def model_fn(model_dir): return 2
async def predict_fn(data, model):
    await asyncio.sleep(0.3)
    return data * model
"""
ASYNC_STREAM = """
import json
def model_fn(model_dir): return None
async def transform_fn(model, body, content_type, accept):
    async def words():
        for word in json.loads(body): yield word
    return words(), "text/plain"
"""


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    server = start_server(root, fronts=fronts)
    assert server.load("m", code_model(root / "m", CODE)).status_code == 200
    return server


def order(server: RunningServer, lane: str, **given: object) -> httpx.Response:
    return server.client.post(f"/models/m/invoke{lane}", content=json.dumps(given))


@pytest.mark.parametrize("lane", LANES)
def test_parts_arrive_in_order_without_a_length(server: RunningServer, lane: str) -> None:
    answer = order(server, lane, parts=["one ", "two ", "three"], type="text/plain")
    assert answer.text == "one two three"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("lane", LANES)
def test_first_part_is_there_before_the_last_is_made(server: RunningServer, lane: str) -> None:
    with server.client.stream("POST", f"/models/m/invoke{lane}", content=json.dumps({"endless": True})) as answer:
        assert next(answer.iter_raw(65536)).startswith(b"x")


@pytest.mark.parametrize("lane", LANES)
def test_error_before_the_first_part_is_a_status(server: RunningServer, lane: str) -> None:
    answer = order(server, lane, parts=["raise"])
    assert answer.status_code == 500
    assert "ValueError" in answer.json()["message"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("lane", LANES)
def test_later_error_of_events_is_an_event(server: RunningServer, lane: str) -> None:
    answer = order(server, lane, parts=["data: 1\n\n", "raise"], type="text/event-stream")
    assert answer.status_code == 200
    assert answer.text.startswith("data: 1\n\nevent: error\ndata: {")
    assert "ValueError" in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize("lane", LANES)
def test_later_error_of_anything_else_cuts_the_answer(server: RunningServer, lane: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        order(server, lane, parts=["1", "raise"])
    assert order(server, lane, parts=["1"]).text == "1"


@pytest.mark.parametrize("lane", LANES)
def test_client_that_leaves_closes_the_generator(server: RunningServer, root: Path, lane: str) -> None:
    (root / "m/closed").unlink(missing_ok=True)
    with server.client.stream("POST", f"/models/m/invoke{lane}", content=json.dumps({"endless": True})) as answer:
        parts = answer.iter_raw(65536)  # kept: the connection closes with it
        next(parts)
        assert not (root / "m/closed").exists()
    wait_until((root / "m/closed").exists)
    wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 0)


@pytest.mark.parametrize("lane", LANES)
def test_reader_that_does_not_read_stops_the_making(server: RunningServer, root: Path, lane: str) -> None:
    (root / "m/made").unlink(missing_ok=True)
    body = json.dumps({"endless": True}).encode()
    head = f"POST /models/m/invoke{lane} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with server.connect() as connection:
        connection.sendall(head + body)
        wait_until((root / "m/made").exists)
        # Other requests are answered meanwhile, by the same process.
        last = times_seen = 0
        while times_seen < 10:
            assert order(server, "", parts=["ok"]).text == "ok"
            made = int((root / "m/made").read_text() or 0)
            assert made < 400  # 64 KiB each: what buffers and window hold
            times_seen = times_seen + 1 if made == last > 0 else 0
            last = made
    wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 0)


def test_generator_that_asks_is_told_that_its_client_left(server: RunningServer, root: Path) -> None:
    assert server.load("asking", code_model(root / "asking", ASKING)).status_code == 200
    (before,) = server.client.get("/models/asking").json()["hosts"]
    with server.client.stream("POST", "/models/asking/invoke", content=b"true") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
    wait_until((root / "asking/asked").exists)
    wait_until(lambda: server.client.get("/models/asking").json()["inFlight"] == 0)
    assert server.invoke("asking", False).text == "short"
    assert server.client.get("/models/asking").json()["hosts"] == [before]


def test_streams_of_one_process_take_turns(server: RunningServer) -> None:
    """Two endless streams both go on, and a short one is answered in between."""
    body = json.dumps({"endless": True})
    with (
        server.client.stream("POST", "/models/m/invoke", content=body) as first,
        httpx.stream("POST", f"{server.client.base_url}/models/m/invoke", content=body) as second,
    ):
        parts = [first.iter_raw(65536), second.iter_raw(65536)]
        for _ in range(20):
            assert [len(next(part)) > 0 for part in parts] == [True, True]


def test_old_client_gets_a_stream_that_ends_with_the_connection(server: RunningServer) -> None:
    body = json.dumps({"parts": ["a", "b"]}).encode()
    with server.connect() as connection:
        head = b"POST /models/m/invoke HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        received = read_all(connection)
    assert received.endswith(b"\r\n\r\nab")
    assert b"chunked" not in received


def test_streams_are_answered_whole_where_that_is_asked_for(start_server: Servers, root: Path) -> None:
    server = start_server(root, buffer_streams=True)
    server.load("m", root / "m")
    answer = order(server, "", parts=["one ", "two"])
    assert (answer.text, answer.headers["content-length"]) == ("one two", "7")
    assert order(server, "", parts=["1", "raise"]).status_code == 500


def test_requests_to_asynchronous_functions_run_at_the_same_time(server: RunningServer, root: Path) -> None:
    server.load("async", code_model(root / "async", ASYNC_CODE))
    body = b"[1, 2]"
    request = b"POST /models/async/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    connections = [server.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(request)
    answers = [connection.recv(4096) for connection in connections]
    assert all(answer.endswith(b"[2,4]") for answer in answers)
    for connection in connections:
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def test_asynchronous_generators_stream(server: RunningServer, root: Path) -> None:
    server.load("words", code_model(root / "words", ASYNC_STREAM))
    assert server.invoke("words", ["a", "b"]).text == "ab"
