"""Requests that are meant to do harm, or might as well be: refused in words, and the server goes on."""

import contextlib
import io
import json
import re
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, read_all, wait_until

MAX_BODY = 12_000_000
# A query takes a request out of the express lane without changing what is asked.
LANES = ("", "?ordinary")
HEAD = "POST /models/m/invoke{lane} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ANSWER = b"[[2.0,4.0,6.0]]"
SLEEPS = (
    "import time\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    time.sleep(2.5)\n"
    "    return 'done', 'text/plain'\n"
)
LARGE = (
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept): return b'x' * %d, 'text/plain'\n"
)
RAISES = (
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    raise ValueError('cannot read ' + __file__)\n"
)


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    server = start_server(
        root,
        max_body_bytes=MAX_BODY,
        header_seconds=1.0,
        keep_alive_seconds=3.0,
        response_seconds=10.0,
        chunk_count=1000,
        header_count=20,
        header_bytes=4000,
        fronts=fronts,
    )
    assert server.load("m", scale_model(root / "m")).status_code == 200
    assert server.load("code", code_model(root / "code", RAISES)).status_code == 200
    return server


@pytest.fixture(autouse=True)
def _goes_on(server: RunningServer) -> Iterator[None]:
    """Whatever was sent, the next client is answered, and nothing is left inside."""
    yield
    assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
    wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 0)


def post(lane: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{HEAD.format(lane=lane)}{lines}\r\n".encode() + body


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def invoke(server: RunningServer, lane: str, body: bytes, *headers: str) -> tuple[int, bytes]:
    received = server.raw(post(lane, body, f"content-length: {len(body)}", "connection: close", *headers))
    return statuses(received)[0], received


# --- framing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANES)
def test_flood_of_chunks_is_refused(server: RunningServer, lane: str) -> None:
    """Chunks of a byte cost a server a hundred times what they cost their sender."""
    body = b"1\r\n1\r\n" * 200_000 + b"0\r\n\r\n"
    assert statuses(server.raw(post(lane, body, "transfer-encoding: chunked"))) == [413]


@pytest.mark.parametrize("lane", LANES)
def test_as_many_chunks_as_are_allowed_are_read(server: RunningServer, lane: str) -> None:
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b"[[1,2,3]]".ljust(999)) + b"0\r\n\r\n"
    received = server.raw(post(lane, body, "transfer-encoding: chunked", "connection: close"))
    assert statuses(received) == [200]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "broken",
    [b"zz\r\n", b"ffffffffffffffffff\r\n", b"-1\r\n", b"5\r\n[[1,2,3]]\r\n"],
    ids=["no number", "overflow", "negative", "longer than it says"],
)
def test_broken_chunk_is_answered_at_once(server: RunningServer, lane: str, broken: bytes) -> None:
    """A body that cannot be read further never ends: waiting for the rest of it would be for ever."""
    with server.connect() as connection:
        connection.sendall(post(lane, b"4\r\n[[1,\r\n" + broken, "transfer-encoding: chunked"))
        assert statuses(read_all(connection)) == [400]


@pytest.mark.parametrize("lane", LANES)
def test_broken_body_behind_another_request_does_not_overtake_its_answer(server: RunningServer, lane: str) -> None:
    first = post("", b"[[1,2,3]]", "content-length: 9")
    received = server.raw(first + post(lane, b"zz\r\n", "transfer-encoding: chunked"))
    assert statuses(received) == [200, 400]


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: -1",),
        ("content-length: +9",),
        ("content-length: 9, 9",),
        ("content-length: 0x9",),
        ("content-length: 99999999999999999999999",),
        ("content-length: 9", "content-length: 10"),
        ("content-length: 9", "content-length: 9"),
        ("content-length: 9", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: 9"),
        ("transfer-encoding: chunked, identity",),
        ("transfer-encoding: xchunked",),
        ("transfer-encoding : chunked",),
    ],
    ids=" ".join,
)
def test_ambiguous_length_is_refused(server: RunningServer, lines: tuple[str, ...]) -> None:
    """Where two readers see two lengths, one of them can be made to take a body for a request."""
    received = server.raw(post("", b"9\r\n[[1,2,3]]\r\n0\r\n\r\n", *lines))
    assert statuses(received) == [400]


@pytest.mark.parametrize("lane", LANES)
def test_body_longer_than_it_says_is_no_second_request(server: RunningServer, lane: str) -> None:
    received = server.raw(post(lane, b"[[1,2,3]]GET-ME-THIS", "content-length: 9"))
    assert statuses(received) == [200, 400]


@pytest.mark.parametrize("lane", LANES)
def test_body_shorter_than_it_says_is_given_up(server: RunningServer, lane: str) -> None:
    with server.connect() as connection:
        connection.sendall(post(lane, b"[[1,2,3]]", "content-length: 90"))
        assert statuses(read_all(connection)) in ([408], [])


@pytest.mark.parametrize("lane", LANES)
def test_length_that_nobody_could_keep_is_refused_before_the_body(server: RunningServer, lane: str) -> None:
    with server.connect() as connection:
        connection.sendall(post(lane, b"", f"content-length: {2**63 - 1}"))
        assert statuses(connection.recv(4096)) == [413]


@pytest.mark.parametrize("lane", LANES)
def test_headers_after_the_body_count_too(server: RunningServer, lane: str) -> None:
    trailers = b"".join(b"x-%d: 1\r\n" % number for number in range(30))
    received = server.raw(post(lane, b"9\r\n[[1,2,3]]\r\n0\r\n" + trailers + b"\r\n", "transfer-encoding: chunked"))
    assert statuses(received) == [431]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(("count", "size"), [(30, 1), (2, 3000)], ids=["count", "bytes"])
def test_too_much_of_a_head_is_refused(server: RunningServer, lane: str, count: int, size: int) -> None:
    headers = [f"x-{number}: {'a' * size}" for number in range(count)]
    assert statuses(server.raw(post(lane, b"[[1,2,3]]", "content-length: 9", *headers))) == [431]


# --- pace -------------------------------------------------------------------------------------------------------------


def drip(connection: socket.socket, stream: bytes) -> bytes:
    """Send a byte at a time, each when the one before has had no answer for a while; returns the answer."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        for byte in stream:
            if selector.select(0.2):
                break
            connection.sendall(bytes([byte]))
    return read_all(connection)


@pytest.mark.parametrize(
    "start",
    [b"", HEAD.format(lane="").encode()[:-2], post("", b"[", "content-length: 90")],
    ids=["line", "head", "body"],
)
def test_byte_by_byte_is_not_for_ever(server: RunningServer, start: bytes) -> None:
    """Each byte is progress; a request is not: the clock is that of the head, and of the body's rate."""
    with server.connect() as connection:
        connection.sendall(start)
        assert statuses(drip(connection, b" " * 60 if start else b"GET /" + b"a" * 60)) == [408]


def test_reader_that_never_reads_is_let_go(server: RunningServer) -> None:
    """Answers that nobody takes must not be kept for ever, nor more requests be read meanwhile."""
    body = json.dumps([[1.5, 2.5, 3.5]] * 20_000).encode()
    before = server_connections(server)
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.setblocking(False)
        request = post("", body, f"content-length: {len(body)}")
        sent = 0
        with contextlib.suppress(BlockingIOError):
            for _ in range(200):
                sent += connection.send(request)
        assert sent < 200 * len(request)
        assert server.invoke("m", [[1, 2, 3]]).status_code == 200
    wait_until(lambda: server_connections(server) <= before)


def server_connections(server: RunningServer) -> int:
    import psutil

    return len(psutil.Process(server.process.pid).net_connections("tcp"))


def test_thousand_connections_are_all_answered(server: RunningServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this process may not open 1,000 sockets")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    request = post("", b"[[1,2,3]]", "content-length: 9", "connection: close")
    try:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in range(1000)]
            for connection in connections:
                connection.sendall(request)
            assert all(read_all(connection).endswith(ANSWER) for connection in connections)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000_000,
        b'{"a":' * 1_000_000,
        b"[" * 900 + b"]" * 900,
        b"[[1e999, 1, 1]]",
        b"[[1e39, 1, 1]]",
        b"[[" + b"9" * 5000 + b", 1, 1]]",
        b"[[NaN, 1, 1]]",
        b"[[Infinity, 1, 1]]",
        b'[["1", null, {}]]',
        b"[[1, 2, 3], [4, 5]]",
        b"\xff\xfe[\x00",
        b"null",
        b"{}",
        b'{"instances": 5}',
    ],
    ids=lambda body: body[:16].decode("latin-1"),
)
def test_json_that_is_no_input_is_the_callers_fault(server: RunningServer, lane: str, body: bytes) -> None:
    status, received = invoke(server, lane, body)
    assert status == 400
    assert len(received) < 2000


def test_null_is_a_number_that_is_none_and_comes_back_as_null(server: RunningServer) -> None:
    assert server.client.post("/models/m/invoke", content=b"[[null, 1, 2]]").json() == [[None, 2, 4]]


BILLION = 10**9


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": [BILLION, BILLION], "data": [1]},
        {"shape": [BILLION, 3], "data": []},
        {"shape": [0, 10**30], "data": []},
        {"shape": [0, 2**62, 2**62], "data": []},
        {"shape": [-1, 3], "data": [1, 2, 3]},
        {"shape": [1.0, 3], "data": [1, 2, 3]},
        {"shape": [1] * 1000, "data": [1]},
        {"shape": "3", "data": [1, 2, 3]},
        {"shape": [1, 3], "data": [1e39, 1, 1]},
        {"shape": [1, 3], "datatype": "INT8", "data": [300, 1, 1]},
        {"shape": [1, 3], "datatype": "OBJECT", "data": [1, 1, 1]},
        {"shape": [1, 3], "parameters": {"binary_data_size": BILLION}},
        {"shape": [1, 3], "parameters": {"binary_data_size": -1}},
        {"shape": [1, 3], "parameters": {"shared_memory_region": "any"}},
        {"shape": [1, 3]},
    ],
    ids=str,
)
def test_tensor_that_cannot_be_is_the_callers_fault(server: RunningServer, tensor: dict[str, object]) -> None:
    """A shape is a claim: memory is taken for what has arrived, and shared memory is never opened by name."""
    given = {"inputs": [{"name": "x", "datatype": "FP32"} | tensor]}
    answer = server.client.post("/v2/models/m/infer", json=given)
    assert answer.status_code == 400, answer.text
    assert "error" in answer.json()


def npy(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + b"\0" * 12


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-npy", npy((BILLION, BILLION))),
        ("application/x-npy", npy((-1, 3))),
        ("application/x-npy", npy((3,), "|O")),
        ("application/x-npz", b"PK\3\4" + b"\0" * 100),
        ("text/csv", b"1,2,3\n" * 3 + b"1,nan,x\n"),
        ("text/csv", b'"' * 1_000_000),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n" * 100_000 + b"--b--\r\n"),
        ("multipart/form-data; boundary=" + "b" * 1000, b"--" + b"b" * 1000),
        ("multipart/form-data; boundary=b", b"-" * 1_000_000),
        ("application/jsonlines", b"[" * 1_000_000),
        ("application/x-www-form-urlencoded", b"a=1&" * 100_000),
        ("application/x-pickle", b"cos\nsystem\n(S'true'\ntR."),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_body_that_is_not_its_type_is_the_callers_fault(
    server: RunningServer, lane: str, content_type: str, body: bytes
) -> None:
    """Parts, depths and claims are bounded, and nothing that a client sends is unpickled."""
    received = server.client.post(f"/models/m/invoke{lane}", content=body, headers={"content-type": content_type})
    assert received.status_code in (400, 415)
    assert len(received.text) < 2000


# --- what answers say -------------------------------------------------------------------------------------------------

# A path of a machine, a frame of a traceback, an object's address.
INTERNAL = re.compile(
    r'(?<![\w.{}/])/(?!models|v2|docs|invocations|predictions|nowhere|ping)\w+/|Traceback|File \\?"|0x[0-9a-f]{6}'
)

BAD = [
    ("POST", "/models/m/invoke", b"[[1,2"),
    ("POST", "/models/m/invoke", b"[[1,2]]"),
    ("POST", "/models/code/invoke", b"[]"),
    ("POST", "/models/nobody/invoke", b"[]"),
    ("POST", "/models/..%2f..%2fetc/invoke", b"[]"),
    ("POST", "/models/%00/invoke", b"[]"),
    ("POST", "/models/" + "a" * 300 + "/invoke", b"[]"),
    ("POST", "/predictions/code", b"[]"),
    ("POST", "/invocations", b"[]"),
    ("POST", "/v2/models/m/infer", b"[]"),
    ("POST", "/v2/models/code/infer", b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}'),
    ("POST", "/v2/models/m/versions/9/infer", b"{}"),
    ("POST", "/v2/repository/models/nobody/load", b""),
    ("POST", "/v2/repository/models/..%2fm/load", b""),
    ("POST", "/v2/repository/models/link/load", b""),
    ("POST", "/v2/repository/models/" + "a" * 300 + "/load", b""),
    ("POST", "/v2/repository/index", b"["),
    ("POST", "/models", b"["),
    ("POST", "/models", b'{"model_name": "x", "url": "/nowhere"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "\\u0000"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "' + b"a/" * 5000 + b'"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "ROOT/empty"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "ROOT/damaged"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "ROOT/raises"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "ROOT/missing"}'),
    ("POST", "/models", b'{"model_name": "x", "url": "ROOT/file.tar.gz"}'),
    ("PUT", "/models/m?min_worker=x", b""),
    ("GET", "/models?limit=x", b""),
    ("GET", "/models?next_page_token=%00", b""),
    ("GET", "/models/nobody", b""),
    ("DELETE", "/models/nobody", b""),
    ("GET", "/nowhere", b""),
    ("PATCH", "/models", b""),
]


@pytest.fixture(scope="module")
def bad_models(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "link").symlink_to("/etc")
    (root / "damaged").mkdir()
    (root / "damaged/model.onnx").write_bytes(b"no model")
    code_model(root / "raises", "def model_fn(model_dir): raise OSError(2, 'no such file', __file__)\n")
    code_model(root / "missing", "import nothing_of_that_name\n")
    (root / "file.tar.gz").write_bytes(b"no archive")


@pytest.mark.usefixtures("bad_models")
@pytest.mark.parametrize(
    ("method", "path", "body"), BAD, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_errors_say_nothing_of_the_machine(
    server: RunningServer, root: Path, method: str, path: str, body: bytes
) -> None:
    """An error that names a file, a region or an address is the first half of somebody's attack."""
    given = body.replace(b"ROOT", str(root).encode())
    for lane in ("", "&ordinary" if "?" in path else "?ordinary"):
        answer = server.client.request(method, path + lane, content=given)
        assert 400 <= answer.status_code < 600
        text = answer.text.replace(str(root), "")  # where the client itself said it
        assert INTERNAL.search(text) is None, text
        if b"ROOT" not in body:
            assert str(root) not in answer.text


# --- lines without an end ---------------------------------------------------------------------------------------------

ENDLESS = {
    "target": b"GET /",
    "name of a header": b"GET /ping HTTP/1.1\r\nhost: x\r\n",
    "value of a header": b"GET /ping HTTP/1.1\r\nhost: x\r\nx-a: ",
    "extension of a chunk": b"POST /models/m/invoke HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;",
    "trailer": b"POST /models/m/invoke HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nx-a: ",
}


@pytest.mark.parametrize("begun", ENDLESS.values(), ids=ENDLESS)
def test_line_that_does_not_end_is_refused_before_it_fills_memory(server: RunningServer, begun: bytes) -> None:
    processes = [psutil.Process(server.process.pid), *server.family()]
    before = sum(process.memory_info().rss for process in processes)
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(begun)
        for _ in range(64):
            connection.sendall(b"a" * (1 << 20))
        assert sum(process.memory_info().rss for process in processes) < before + (16 << 20)
    assert server.raw(begun + b"a" * 1_000_000).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("target", [b"CONNECT a:80", b"GET http://:99999999/", b"GET http://[", b"OPTIONS //:x:y/"])
def test_target_that_is_no_path_is_refused_in_words(server: RunningServer, target: bytes) -> None:
    received = server.raw(target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert 400 <= statuses(received)[0] < 500
    assert "httptools" not in server.log.read_text()


def test_half_a_head_behind_a_slow_request_is_not_late_while_nobody_reads_it(server: RunningServer, root: Path) -> None:
    """The server itself reads no further than the next request; only then does a client's time begin."""
    assert server.load("sleeps", code_model(root / "sleeps", SLEEPS)).status_code == 200
    slow = b"POST /models/sleeps/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
    next_head = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(slow + next_head[:20])
        received = connection.recv(65536)
        connection.sendall(next_head[20:])
        received += read_all(connection)
    assert statuses(received) == [200, 200]


# --- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANES)
def test_slow_reader_gets_all_of_a_large_answer_after_which_the_connection_closes(
    start_server: Servers, root: Path, fronts: int, lane: str
) -> None:
    """It takes twice as long to read as an answer may take to make."""
    seconds, size = 2.0, 24 << 20
    server = start_server(root, response_seconds=seconds, max_body_bytes=1 << 30, fronts=fronts)
    assert server.load("large", code_model(root / "large", LARGE % size)).status_code == 200
    received = 0
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        head = f"POST /models/large/invoke{lane} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        connection.sendall(f"{head}content-length: 1\r\n\r\n1".encode())
        begun = time.monotonic()
        while chunk := connection.recv(1 << 16):
            received += len(chunk)
            wait_until_time(begun + 2.5 * seconds * received / size)
    assert received > size


def wait_until_time(moment: float) -> None:
    wait_until(lambda: time.monotonic() > moment)
