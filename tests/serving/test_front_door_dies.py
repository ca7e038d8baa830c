"""Kill any process of the server, at once and under load: nothing is orphaned, and what can live on does."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, alive, wait_until, working_beside

STARTS_OTHERS = (
    "import os, re, subprocess, time\n"
    "def model_fn(model_dir):\n"
    "    subprocess.Popen(['sleep', '1000'])\n"
    "    if os.fork() == 0:\n"
    "        while True: time.sleep(1)\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    exec(body)\n"
    "    return str(os.getpid()), accept\n"
)
STREAM = (
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    def parts():\n"
    "        while True: yield 'x' * 1000\n"
    "    return parts(), 'text/plain'\n"
)


@pytest.fixture
def server(start_server: Servers, tmp_path: Path) -> RunningServer:
    server = start_server(tmp_path)
    assert server.load("data", scale_model(tmp_path / "data")).status_code == 200
    assert server.load("code", code_model(tmp_path / "code", STARTS_OTHERS)).status_code == 200
    assert server.load("stream", code_model(tmp_path / "stream", STREAM)).status_code == 200
    return server


@contextmanager
def asking(server: RunningServer) -> Iterator[list[int]]:
    """Ask for predictions until the block or the server ends; the statuses are complete after it."""
    statuses: list[int] = []

    def ask(_: int, is_over: threading.Event) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=20) as client, suppress(httpx.TransportError):
            while not is_over.is_set():
                statuses.append(client.post("/models/data/invoke", content=b"[[1, 2, 3]]").status_code)

    with working_beside(ask, 2):
        wait_until(lambda: statuses)
        yield statuses


@pytest.mark.parametrize("code", ["time.sleep(1000)", "re.match('(a+)+$', 'a' * 64 + 'b')"], ids=["sleeps", "computes"])
def test_killed_front_door_under_load_leaves_nothing_running(server: RunningServer, code: str) -> None:
    """Neither hosts that are busy, nor what the code in them has started, nor one that lets no other thread run."""
    family = server.family()
    assert len(family) == 6  # the zygote, three hosts, and two that a model has started
    with server.connect() as streaming, server.connect() as stuck, asking(server) as statuses:
        streaming.sendall(b"POST /models/stream/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]")
        assert streaming.recv(1000)
        head = (
            f"POST /models/code/invoke HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: {len(code)}"
        )
        stuck.sendall(f"{head}\r\n\r\n{code}".encode())
        wait_until(lambda: server.client.get("/models/code").json()["inFlight"] == 1)
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not alive(family))
        with suppress(ConnectionResetError):
            assert stuck.recv(1000) == b""
    assert set(statuses) == {200}


@pytest.mark.slow
def test_every_process_behind_the_front_door_may_be_killed_at_once(server: RunningServer) -> None:
    before = server.family()
    with asking(server) as statuses:
        for process in before:
            with suppress(psutil.NoSuchProcess):  # what belongs to a host that has been killed
                process.kill()
        wait_until(lambda: not alive(before))
        wait_until(lambda: server.client.get("/models/code").json()["status"] == "ready", 30)
        assert server.invoke("data", [[1, 2, 3]]).json() == [[2, 4, 6]]
    # A request that was running when its host was killed, twice, is told so; nothing else can have happened to it.
    assert set(statuses) <= {200, 507}
    assert server.stop() == 0


def test_container_ends_when_its_first_process_is_killed(server: RunningServer) -> None:
    """With the front door the socket is gone too: the port can be taken at once by the one that replaces it."""
    family = server.family()
    server.process.kill()
    assert server.process.wait(10) == -signal.SIGKILL
    wait_until(lambda: not alive(family))
    with socket.socket() as successor:
        successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        successor.bind(("127.0.0.1", server.port))
        successor.listen()
