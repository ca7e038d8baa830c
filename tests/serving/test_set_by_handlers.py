"""The status and headers that a model's code sets: what HTTP cannot say costs one answer, and no connection."""

import json
from pathlib import Path

import httpx
import pytest
from models import code_model
from servers import RunningServer, Servers, read_all

# Answers with a status, headers and parts as it is told; without parts, whole.
CODE = """
import json, os
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept, context):
    order = json.loads(body)
    if "status" in order: context.set_response_status(order["status"])
    for name, value in order.get("headers", {}).items(): context.set_response_header(0, name, value)
    parts = order.get("parts")
    return (part for part in parts) if parts else order.get("body", str(os.getpid())), "text/plain"
"""


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    server = start_server(root, fronts=fronts)
    assert server.load("m", code_model(root / "m", CODE)).status_code == 200
    return server


def ask(server: RunningServer, lane: str, **order: object) -> httpx.Response:
    return server.client.post(f"/models/m/invoke{lane}", content=json.dumps(order))


def raw(server: RunningServer, lane: str, *orders: dict[str, object]) -> bytes:
    """What comes back for several requests that are sent at once on one connection."""
    bodies = [json.dumps(order).encode() for order in orders]
    with server.connect() as connection:
        for index, body in enumerate(bodies):
            head = f"POST /models/m/invoke{lane} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
            close = "connection: close\r\n" if index + 1 == len(bodies) else ""
            connection.sendall(f"{head}{close}\r\n".encode() + body)
        return read_all(connection)


@pytest.mark.parametrize("parts", [[], ["one"]], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 700, 999, -1, 1 << 40, "404", "many", None, 204.5])
@pytest.mark.parametrize("lane", ["", "?ordinary"])
def test_status_that_no_answer_can_have_is_an_error_of_its_own(
    server: RunningServer, lane: str, status: object, parts: list[str]
) -> None:
    host = ask(server, lane).text
    answer = ask(server, lane, status=status, parts=parts)
    assert answer.status_code == 500
    assert ask(server, lane).text == host


@pytest.mark.parametrize("lane", ["", "?ordinary"])
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("answer", [{"body": "hello"}, {"parts": ["hello", "hello"]}], ids=["whole", "stream"])
def test_answer_that_has_no_body_by_its_status_is_sent_without_one(
    server: RunningServer, answer: dict[str, object], status: int, lane: str
) -> None:
    received = raw(server, lane, {"status": status, **answer}, {"body": "second"})
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode())
    assert b"content-length" not in head
    assert b"transfer-encoding" not in head
    assert rest.startswith(b"HTTP/1.1 200")
    assert rest.endswith(b"second")


@pytest.mark.parametrize("lane", ["", "?ordinary"])
@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive"])
def test_how_a_whole_answer_is_framed_is_not_its_handlers_to_say(server: RunningServer, name: str, lane: str) -> None:
    value = {"transfer-encoding": "chunked", "connection": "keep-alive"}.get(name.lower(), "3")
    headers = {name: value, "X-Mine": "kept"}
    received = raw(server, lane, {"headers": headers, "body": "hello"}, {"body": "second"})
    head = received.partition(b"\r\n\r\n")[0].lower()
    assert head.count(b"content-length: 5") == head.count(b"content-length") == 1
    assert b"transfer-encoding" not in head
    assert b"\r\nconnection" not in head
    assert b"x-mine: kept" in head
    assert received.endswith(b"second")


@pytest.mark.parametrize("lane", ["", "?ordinary"])
def test_length_that_a_handler_knows_of_its_stream_is_said_instead_of_chunks(server: RunningServer, lane: str) -> None:
    received = raw(server, lane, {"headers": {"Content-Length": "6"}, "parts": ["one", "two"]})
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert head.count(b"content-length: 6") == 1
    assert body == b"onetwo"
    refused = ask(server, lane, headers={"Content-Length": "6, 7"}, parts=["one"])
    assert refused.status_code == 500


@pytest.mark.parametrize("lane", ["", "?ordinary"])
def test_stream_that_is_answered_whole_has_one_length(
    start_server: Servers, tmp_path: Path, fronts: int, lane: str
) -> None:
    server = start_server(tmp_path, buffer_streams=True, fronts=fronts)
    assert server.load("m", code_model(tmp_path / "m", CODE)).status_code == 200
    received = raw(server, lane, {"headers": {"Content-Length": "6"}, "parts": ["one", "two"]})
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.count(b"content-length: 6") == head.count(b"content-length") == 1
    assert body == b"onetwo"
