"""Real servers for the tests: processes with sockets and signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

START_TIMEOUT_S = 30.0

# What `serve` does, with limits and constants a test would not want to wait for.
PROGRAM = """
import json, os, sys
from importlib import import_module
from pathlib import Path
from mooring.serving import logs
from mooring.serving.pool import make_pool
from mooring.serving.eviction import Eviction
from mooring.serving.server import serve
from mooring.serving.settings import Limits, Mode, ServerSettings
from mooring.serving.socket_binding import bind
given = json.loads(sys.argv[1])
settings = ServerSettings(
    mode=Mode(given["mode"]), root=Path(given["root"]), host=given["host"],
    eviction=Eviction(given["eviction"]), limits=Limits(**given["limits"]),
)
for name, value in given["constants"].items():
    module, _, constant = name.rpartition(".")
    setattr(import_module(f"mooring.serving.{module}"), constant, value)
logs.configure(settings.limits.log_level, settings.limits.log_format)
listener = bind(settings.host, settings.port)
pool = make_pool(dict(os.environ), settings)
pool.start()
sys.exit(serve(settings, dict(os.environ), listener, pool))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningServer:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.new_client()

    def new_client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def load(self, name: str, url: Path) -> httpx.Response:
        return self.client.post("/models", json={"model_name": name, "url": str(url)})

    def invoke(self, name: str, value: Any, **headers: str) -> httpx.Response:
        return self.client.post(
            f"/models/{name}/invoke", content=json.dumps(value), headers={"content-type": "application/json"} | headers
        )

    def raw(self, request: bytes) -> bytes:
        """Send bytes and read until the server closes."""
        with self.connect() as connection, sending(connection, request):
            return read_all(connection)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def hosts(self) -> list[psutil.Process]:
        """The host processes: grandchildren, by way of the zygote."""
        hosts = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it may go between the two questions
                hosts += child.children()
        return hosts

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def wait_until_healthy(self) -> None:
        wait_until(lambda: self.process.poll() is not None or self.ping_status() == 200, START_TIMEOUT_S)
        assert self.process.poll() is None, self.log.read_text()

    def wait_for_fronts(self, count: int) -> None:
        """Until they are there the front door answers by itself, so connections from before are given up."""
        wait_until(lambda: f"mooring_fronts {count:.1f}\n" in self.client.get("/metrics").text, START_TIMEOUT_S)
        self.client.close()
        self.client = self.new_client()

    def ping_status(self) -> int:
        """The status of /ping, 0 where nobody listens."""
        return self.status("/ping")

    def status(self, path: str) -> int:
        """The status of a path, 0 where nobody listens."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@contextmanager
def sending(connection: socket.socket, stream: bytes) -> Iterator[None]:
    """Send from a thread while the block reads, so that neither side waits for the other."""

    def send() -> None:
        with suppress(ConnectionError):  # the server may have heard enough
            connection.sendall(stream)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # it may go between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def working_beside(work: Callable[[int, threading.Event], None], count: int) -> Iterator[None]:
    """Run work in threads while the block runs. It is told its number, and ends when the event is set."""
    is_over = threading.Event()
    threads = [threading.Thread(target=work, args=(index, is_over)) for index in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


class Servers:
    """Starts servers, and ends what is still running when the test session does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[RunningServer] = []

    def __call__(
        self,
        root: Path,
        mode: str = "multi",
        *,
        eviction: str = "platform",
        budget: int = 0,
        host: str = "127.0.0.1",
        healthy: bool = True,
        variables: dict[str, str] | None = None,
        constants: dict[str, float] | None = None,
        command: Sequence[str] = (),
        **limits: Any,
    ) -> RunningServer:
        port = free_port()
        log = self._folder / f"server-{port}.log"
        given = {
            "mode": mode,
            "root": str(root),
            "eviction": eviction,
            "host": host,
            "limits": {"port": port, "budget_bytes": budget} | limits,
            "constants": constants or {},
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, sys.executable, "-c", PROGRAM, json.dumps(given)],
                stderr=output,
                stdout=output,
                text=True,
                env=os.environ | (variables or {}),
            )
        server = RunningServer(process, port, log)
        self._running.append(server)
        if healthy:
            server.wait_until_healthy()
            if limits.get("fronts"):
                server.wait_for_fronts(limits["fronts"])
        return server

    @property
    def count(self) -> int:
        """How many have been started and not been closed."""
        return len(self._running)

    def close(self, beyond: int = 0) -> None:
        """End the servers but the first so many."""
        while len(self._running) > beyond:
            server = self._running.pop()
            server.client.close()
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
