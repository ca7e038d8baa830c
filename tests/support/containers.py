"""Containers for the tests: started with any option of `docker run`, looked at, asked, stopped, and removed."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from mooring.contract.paths import ContainerPaths

PORT = 8080
HEALTHY_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 300.0


def docker(*words: str, timeout: float = RUN_TIMEOUT_S) -> str:
    """Run a docker command and return what it printed; fails with what it said if it does not succeed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"docker {' '.join(words)} ended with {done.returncode}: {done.stderr or done.stdout}"
    return done.stdout


def said(image: str, *command: str, options: Sequence[str] = ()) -> str:
    """Run a command in a container of an image to its end and return what it printed."""
    return docker("run", "--rm", *options, image, *command)


def mounted(base: Path) -> list[str]:
    """Return the options that mount what lies in a folder at /opt/ml as the platform does: folder by folder."""
    options = []
    for folder in sorted(path for path in base.iterdir() if path.is_dir()):
        options += ["--volume", f"{folder}:/opt/ml/{folder.name}"]
    return options


class Container:
    """One that was started."""

    def __init__(self, image: str, *command: str, options: Sequence[str] = (), name: str | None = None) -> None:
        self.name = name or f"mooring-test-{uuid.uuid4().hex[:12]}"
        docker("run", "--detach", "--name", self.name, *options, image, *command)

    @property
    def state(self) -> dict[str, Any]:
        """What the engine knows of it: Running, ExitCode, OOMKilled."""
        (found,) = json.loads(docker("inspect", self.name))
        state: dict[str, Any] = found["State"]
        return state

    @property
    def logs(self) -> str:
        """What it has printed."""
        done = subprocess.run(
            ["docker", "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        return done.stdout

    def wait(self, seconds: float = RUN_TIMEOUT_S) -> int:
        """Return its exit code, once it has ended."""
        return int(docker("wait", self.name, timeout=seconds))

    def stop(self, grace_seconds: int = 120) -> int:
        """Stop it as the platform does, SIGTERM and a grace before SIGKILL; returns its exit code."""
        docker("stop", "--time", str(grace_seconds), self.name)
        return int(self.state["ExitCode"])

    def execute(self, *command: str) -> str:
        """Run a command inside and return what it printed."""
        return docker("exec", self.name, *command)

    def wait_for(self, condition: Callable[[], Any], seconds: float = RUN_TIMEOUT_S) -> None:
        """Wait until something holds; fails with the log if the container ends first or it never comes."""
        limit = time.monotonic() + seconds
        while not condition():
            assert self.state["Running"], f"it ended with {self.state['ExitCode']}:\n{self.logs}"
            assert time.monotonic() < limit, f"it never came:\n{self.logs}"
            time.sleep(0.05)

    def wait_for_line(self, text: str, count: int = 1) -> None:
        """Wait until `count` lines of its output hold a text."""
        self.wait_for(lambda: sum(text in line for line in self.logs.splitlines()) >= count)

    def remove(self) -> None:
        """Remove it, whatever runs in it."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, timeout=120)


@contextmanager
def running(image: str, *command: str, options: Sequence[str] = (), name: str | None = None) -> Iterator[Container]:
    """Run a container until the block ends."""
    container = Container(image, *command, options=options, name=name)
    try:
        yield container
    finally:
        container.remove()


@contextmanager
def serving(image: str, *command: str, options: Sequence[str] = (), port: int = PORT) -> Iterator["Served"]:
    """Run a container that serves, reached at a port of this machine's loopback, and wait until it is healthy."""
    published = ["--publish", f"127.0.0.1::{port}"]
    with running(image, *(command or ("serve",)), options=[*published, *options]) as container:
        address = docker("port", container.name, f"{port}/tcp").splitlines()[0]
        with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            served = Served(container, client)
            container.wait_for(served.is_healthy, HEALTHY_TIMEOUT_S)
            yield served


class Served:
    """A server in a container."""

    def __init__(self, container: Container, client: httpx.Client) -> None:
        self.container = container
        self.client = client

    def is_healthy(self) -> bool:
        """Whether /ping answers 200."""
        try:
            return self.client.get("/ping", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def load(self, name: str, url: str) -> httpx.Response:
        """Have a multi-model server load a model."""
        return self.client.post("/models", json={"model_name": name, "url": url})

    def invoke(self, name: str, value: Any) -> httpx.Response:
        """Ask a model of a multi-model server."""
        return self.client.post(f"/models/{name}/invoke", json=value)

    def ask(self, value: Any) -> httpx.Response:
        """Ask the one model of a server."""
        return self.client.post("/invocations", json=value)


@contextmanager
def network(*options: str) -> Iterator[str]:
    """Make a network between containers; it is gone when the block ends."""
    name = f"mooring-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", *options, name)
    try:
        yield name
    finally:
        subprocess.run(["docker", "network", "rm", name], capture_output=True, timeout=60)


@contextmanager
def training(image: str, base: Path, *, options: Sequence[str] = (), name: str | None = None) -> Iterator[Container]:
    """Run `train` in a container on the files below a folder."""
    ContainerPaths(base).failure.parent.mkdir(parents=True, exist_ok=True)
    with running(image, "train", options=[*mounted(base), *options], name=name) as container:
        yield container
