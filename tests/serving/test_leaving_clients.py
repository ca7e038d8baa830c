"""Clients that leave before they are answered: nothing of what they asked may stay behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from models import code_model
from servers import RunningServer, Servers, wait_until

SPOOLED = b"[" + b"1," * 5000 + b"1]"
# Paths of both lanes, and one that no model need be behind.
PATHS = ("/models/{}/invoke", "/models/{}/invoke?ordinary", "/predictions/{}")
# Loads for as long as a file is there.
LOADS = """
import pathlib, time
def model_fn(model_dir):
    while (pathlib.Path(model_dir) / "wait").exists(): time.sleep(0.01)
def transform_fn(model, body, content_type, accept): return str(len(body)), "text/plain"
"""


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def server(start_server: Servers, tmp_path: Path, temporary: Path, fronts: int) -> Iterator[RunningServer]:
    server = start_server(
        tmp_path / "models", spool_bytes=1000, variables={"TMPDIR": str(temporary)}, fronts=fronts, drain_seconds=1.0
    )
    yield server
    assert not bodies(temporary)


def bodies(temporary: Path) -> list[Path]:
    return list(temporary.rglob("body-*"))


def request(path: str, length: int, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode() + body


def in_flight(server: RunningServer) -> int | None:
    """How many requests are inside; None before the model is known."""
    count: int | None = server.client.get("/models/m").json().get("inFlight")
    return count


@pytest.mark.parametrize("body", [b"1", SPOOLED], ids=["small", "spooled"])
def test_request_that_waits_for_a_load_ends_with_its_client(
    server: RunningServer, tmp_path: Path, temporary: Path, body: bytes
) -> None:
    folder = code_model(tmp_path / "models/m", LOADS)
    (folder / "wait").touch()
    order = {"model_name": "m", "url": str(folder)}
    assert server.client.post("/models?synchronous=false", json=order).status_code == 202
    wait_until(lambda: in_flight(server) == 0)
    for path in PATHS:
        with server.connect() as connection:
            connection.sendall(request(path.format("m"), len(body), body))
            wait_until(lambda: in_flight(server) == 1)
        wait_until(lambda: in_flight(server) == 0)
        wait_until(lambda: not bodies(temporary))
    (folder / "wait").unlink()
    wait_until(lambda: server.client.get("/models/m").json()["status"] == "ready")
    assert server.invoke("m", "four").text == "6"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0  # and nothing waits for an answer that nobody wants


@pytest.mark.parametrize("path", [*PATHS, "/v2/models/{}/infer"])
def test_upload_that_breaks_off_leaves_no_file(server: RunningServer, temporary: Path, path: str) -> None:
    with server.connect() as connection:
        connection.sendall(request(path.format("nobody"), 2 * len(SPOOLED), SPOOLED))
        wait_until(lambda: bodies(temporary))
    wait_until(lambda: not bodies(temporary))
    assert "Traceback" not in server.log.read_text()


def test_killed_server_leaves_no_body_to_the_next_one(
    server: RunningServer, start_server: Servers, tmp_path: Path, temporary: Path
) -> None:
    with server.connect() as connection:
        connection.sendall(request(PATHS[0].format("nobody"), 2 * len(SPOOLED), SPOOLED))
        wait_until(lambda: bodies(temporary))
        os.kill(server.process.pid, signal.SIGKILL)
    start_server(tmp_path / "models", variables={"TMPDIR": str(temporary)})
    wait_until(lambda: not bodies(temporary))
