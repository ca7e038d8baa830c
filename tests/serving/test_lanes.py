"""The express lane and the ordinary lane give the same answers; and what only a raw socket can show."""

import json
import socket
from pathlib import Path

import pytest
from models import scale_model
from servers import RunningServer, Servers, read_all, sending, wait_until

from mooring.serving.settings import Limits

MAX_BODY = 100_000
HEADER_BYTES = Limits().header_bytes
# A query takes a request out of the express lane without changing what is asked.
LANES = ("", "?ordinary")


@pytest.fixture(scope="module")
def server(start_server: Servers, tmp_path_factory: pytest.TempPathFactory, fronts: int) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    server = start_server(root, max_body_bytes=MAX_BODY, header_seconds=1.0, keep_alive_seconds=2.0, fronts=fronts)
    assert server.load("m", scale_model(root / "m")).status_code == 200
    return server


def request(
    path: str, body: bytes = b"[[1,2,3]]", method: str = "POST", *, close: bool = True, **headers: str
) -> bytes:
    lines = {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    if close:
        lines["connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def split_answers(received: bytes) -> list[tuple[int, bytes]]:
    answers = []
    while received:
        status, headers, rest = parse(received)
        length = int(headers["content-length"])
        answers.append((status, rest[:length]))
        received = rest[length:]
    return answers


CHUNKED = b"4\r\n[[1,\r\n5\r\n2,3]]\r\n0\r\n\r\n"
TOO_MANY_CHUNKS = b"2710\r\n" + b"1" * 10_000 + b"\r\n"

CASES = {
    "json": request("/models/m/invoke{q}"),
    "custom attributes": request("/models/m/invoke{q}", x_amzn_sagemaker_custom_attributes="a=1"),
    "accept csv": request("/models/m/invoke{q}", accept="text/csv"),
    "accept anything": request("/models/m/invoke{q}", accept="*/*"),
    "accept nothing we have": request("/models/m/invoke{q}", accept="video/mp4"),
    "csv": request("/models/m/invoke{q}", b"1,2,3\n4,5,6\n", content_type="text/csv"),
    "no content type": request("/models/m/invoke{q}", content_type=""),
    "unknown content type": request("/models/m/invoke{q}", content_type="text/xml"),
    "broken json": request("/models/m/invoke{q}", b"[[1,2"),
    "wrong shape": request("/models/m/invoke{q}", b"[[1,2]]"),
    "empty body": request("/models/m/invoke{q}", b""),
    "image to a model of numbers": request("/models/m/invoke{q}", b"\x89PNG", content_type="application/x-image"),
    "unknown model": request("/models/nobody/invoke{q}"),
    "encoded name": request("/models/%6D/invoke{q}"),
    "body at the limit": request("/models/m/invoke{q}", b" " * (MAX_BODY - 9) + b"[[1,2,3]]"),
    "body over the limit": request("/models/m/invoke{q}", b" " * (MAX_BODY + 1)),
    "chunked": request("/models/m/invoke{q}", CHUNKED, transfer_encoding="chunked", content_length=""),
    "chunked over the limit": request(
        "/models/m/invoke{q}", TOO_MANY_CHUNKS * 11 + b"0\r\n\r\n", transfer_encoding="chunked", content_length=""
    ),
    "invocations": request("/invocations{q}"),
    "ping": request("/ping{q}", b"", "GET"),
}


@pytest.mark.parametrize("case", CASES)
def test_both_lanes_answer_alike(server: RunningServer, case: str) -> None:
    express, ordinary = (parse(server.raw(CASES[case].replace(b"{q}", lane.encode()))) for lane in LANES)
    for _, headers, _ in (express, ordinary):
        headers.pop("date", None)
        headers.pop("x-request-id", None)
    assert express == ordinary


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("json", 200),
        ("accept nothing we have", 406),
        ("unknown content type", 415),
        ("broken json", 400),
        ("wrong shape", 400),
        ("image to a model of numbers", 415),
        ("unknown model", 404),
        ("body at the limit", 200),
        ("body over the limit", 413),
        ("chunked", 200),
        ("chunked over the limit", 413),
    ],
)
@pytest.mark.parametrize("lane", LANES)
def test_status_says_what_happened(server: RunningServer, case: str, status: int, lane: str) -> None:
    assert parse(server.raw(CASES[case].replace(b"{q}", lane.encode())))[0] == status


@pytest.mark.parametrize("lane", LANES)
def test_connection_goes_on_after_an_error(server: RunningServer, lane: str) -> None:
    bad = request(f"/models/m/invoke{lane}", b"[[1,2", close=False)
    good = request(f"/models/m/invoke{lane}")
    assert [status for status, _ in split_answers(server.raw(bad + good))] == [400, 200]


def test_pipelined_requests_of_both_lanes_are_answered_in_order(server: RunningServer) -> None:
    wanted = []
    stream = b""
    for index in range(40):
        path = ["/models/m/invoke", "/models/m/invoke?ordinary", "/ping", "/models/nobody/invoke"][index % 4]
        if path == "/ping":
            stream += request(path, b"", "GET", close=False)
            wanted.append((200, b'{"status": "Healthy"}'))
        else:
            stream += request(path, json.dumps([[index, 0, 0]]).encode(), close=False)
            wanted.append((404, b"") if "nobody" in path else (200, json.dumps([[2.0 * index, 0.0, 0.0]]).encode()))
    stream += request("/ping", b"", "GET")
    answers = split_answers(server.raw(stream))
    assert [status for status, _ in answers] == [status for status, _ in wanted] + [200]
    for (status, body), (_, expected) in zip(answers, wanted, strict=False):
        if status == 200:
            assert json.loads(body) == json.loads(expected)


def test_thousands_of_pipelined_errors_do_not_exhaust_the_stack(server: RunningServer) -> None:
    stream = request("/models/nobody/invoke", close=False) * 3000 + request("/models/nobody/invoke")
    received = server.raw(stream)
    assert received.count(b"HTTP/1.1 404") == 3001


def test_client_that_asks_first_is_told_to_continue(server: RunningServer) -> None:
    head, body = request("/models/m/invoke", expect="100-continue").split(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert parse(read_all(connection))[0] == 200


def test_client_that_asks_first_is_refused_before_it_sends(server: RunningServer) -> None:
    head = request("/models/m/invoke", expect="100-continue", content_length=str(MAX_BODY + 1)).split(b"\r\n\r\n")[0]
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "start",
    [b"", b"POST /models/m/inv", b"POST /models/m/invoke HTTP/1.1\r\nhost: x\r\n"],
    ids=["nothing", "line", "head"],
)
def test_half_a_request_does_not_stay_open_for_ever(server: RunningServer, start: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(start)
        answer = read_all(connection)
    assert not start or answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("lane", LANES)
def test_body_that_trickles_is_given_up(server: RunningServer, lane: str) -> None:
    with server.connect() as connection:
        connection.sendall(request(f"/models/m/invoke{lane}", b"[", content_length="5000"))
        read_all(connection)
    assert server.invoke("m", [[1, 2, 3]]).status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /ping HTTP/1.1\r\n" + b"x-many: 1\r\n" * 200 + b"\r\n", 431),
        (b"GET /ping HTTP/1.1\r\nx-long: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"this is not HTTP\r\n\r\n", 400),
        (b"POST /models/m/invoke HTTP/1.1\r\ncontent-length: minus\r\n\r\n", 400),
        (b"POST /models/m/invoke HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
    ],
    ids=["many headers", "long header", "long target", "no HTTP", "bad length", "two lengths"],
)
def test_hostile_head_is_refused_and_the_server_goes_on(server: RunningServer, head: bytes, status: int) -> None:
    assert parse(server.raw(head))[0] == status
    assert server.client.get("/ping").status_code == 200


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("count", [1, 120])
def test_head_of_all_the_bytes_that_are_allowed_reaches_the_model(server: RunningServer, lane: str, count: int) -> None:
    """One byte more is refused, and neither leaves anything behind."""
    path, body = f"/models/m/invoke{lane}", b"[[1,2,3]]"
    counted = len(path + "content-length9" + "connectionclose") + count * len("x-000")
    for size, status in ((HEADER_BYTES, 200), (HEADER_BYTES + 1, 431)):
        each, more = divmod(size - counted, count)
        headers = [f"x-{index:03}: {'v' * (each + (more if index == 0 else 0))}\r\n" for index in range(count)]
        first = f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        assert parse(server.raw(f"{first}{''.join(headers)}\r\n".encode() + body))[0] == status
    wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 0)


@pytest.mark.parametrize("wanted", ["websocket", "h2c"])
def test_upgrade_is_not_taken_up_and_the_request_is_answered(server: RunningServer, wanted: str) -> None:
    stream = request("/models/m/invoke", close=False, connection="upgrade", upgrade=wanted)
    status, headers, body = parse(server.raw(stream))
    assert (status, headers["connection"], json.loads(body)) == (200, "close", [[2.0, 4.0, 6.0]])


def test_garbage_behind_a_request_does_not_overtake_its_answer(server: RunningServer) -> None:
    answers = split_answers(server.raw(request("/models/m/invoke", close=False) + b"garbage\r\n\r\n"))
    assert [status for status, _ in answers] == [200, 400]


def test_client_that_leaves_costs_nobody_anything(server: RunningServer) -> None:
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(request("/models/m/invoke"))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 0)
    assert server.invoke("m", [[1, 2, 3]]).status_code == 200


def test_idle_connection_is_closed_after_the_keep_alive_time(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(request("/ping", b"", "GET", close=False))
        assert split_answers(read_all(connection))[0][0] == 200


def test_http_1_0_closes_after_the_answer(server: RunningServer) -> None:
    status, headers, _ = parse(server.raw(b"GET /ping HTTP/1.0\r\n\r\n"))
    assert status == 200
    assert headers["connection"] == "close"


def test_slow_reader_gets_everything(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("m", scale_model(tmp_path / "m"))
    body = json.dumps([[1.5, 2.5, 3.5]] * 5000).encode()
    stream = request("/models/m/invoke", body, close=False) * 20 + request("/models/m/invoke", body)
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        with sending(connection, stream):
            received = b""
            while chunk := connection.recv(3000):
                received += chunk
    answers = split_answers(received)
    assert len(answers) == 21
    assert all(json.loads(body) == [[3.0, 5.0, 7.0]] * 5000 for _, body in answers)
