"""The servers of what is tried: one for all rows of a part that only ask, and one for each row that needs its own."""

import hashlib
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from mooring.contract.paths import DEFAULT_BASE
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.docker_runner import DockerRunner
from mooring.runner.process_runner import ProcessRunner, RunningProcess
from mooring.workbench.endpoint import Endpoint
from mooring.workbench.job import Limits

from .row import Part
from .samples import write_large_model
from .server import LOOPBACK, Log, NotHealthyError, Server
from .subject import Subject

# What models are called: the platform's names for them say nothing either.
FIRST, SECOND, DAMAGED = (hashlib.sha256(word).hexdigest()[:32] for word in (b"first", b"second", b"damaged"))
NOT_A_MODEL = b"This is no model.\n"


@dataclass(frozen=True)
class Conditions:
    """Under what a server is started, other than the platform's usual."""

    options: tuple[str, ...] = ()  # Docker's
    limits: Limits = field(default_factory=Limits)
    port: int | None = None  # in its container
    is_multi_model: bool = False
    can_write_model: bool = False
    model_bytes: int = 0  # of each model of a multi-model server, in place of what is served otherwise


class Servers:
    """Starts servers. Leaving its `with` block ends them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._stack = ExitStack()
        self._shared: dict[Part, Server | NotHealthyError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def shared(self, part: Part = Part.SERVING) -> Server:
        """Return the server that rows of a part share, started anew if one of them ended it.

        Raises `NotHealthyError`, and then does so without another try.
        """
        known = self._shared.get(part)
        if known is None or (isinstance(known, Server) and not known.is_running):
            try:
                known = self._stack.enter_context(self.own(Conditions(is_multi_model=part is Part.MULTI_MODEL)))
            except NotHealthyError as error:
                known = error
            self._shared[part] = known
        if isinstance(known, NotHealthyError):
            raise known
        return known

    @contextmanager
    def own(self, conditions: Conditions) -> Iterator[Server]:
        """Give a server for one row, healthy, and end it after. Raises `NotHealthyError`."""
        subject = self._subject
        is_mounted = not conditions.is_multi_model and not conditions.can_write_model
        endpoint = Endpoint(
            subject.model if is_mounted else None,
            _free_port(),
            subject.image,
            self._variables(conditions),
            conditions.limits,
        )
        base = subject.new_folder() / "ml"
        spec = replace(endpoint.prepare(base), options=conditions.options)
        if conditions.can_write_model and subject.model is not None:
            shutil.copytree(subject.model, base / "model")
        urls = self._write_models(base / "models", conditions.model_bytes) if conditions.is_multi_model else {}
        if conditions.port is not None and subject.image:
            published = ("--publish", f"{LOOPBACK}:{endpoint.port}:{conditions.port}")
            spec = replace(spec, port=None, options=(*spec.options, *published))
        log = Log()
        with start(spec, log) as container:
            server = Server(endpoint, container, log, model_urls=urls)
            server.wait_until_healthy(subject.given.timeout_seconds)
            yield server

    def _variables(self, conditions: Conditions) -> dict[str, str]:
        variables = dict(self._subject.given.variables)
        if conditions.is_multi_model:
            variables["SAGEMAKER_MULTI_MODEL"] = "true"
        if conditions.port is not None and self._subject.image:  # a process is told of a port in any case
            variables["SAGEMAKER_BIND_TO_PORT"] = str(conditions.port)
        return variables

    def _write_models(self, folder: Path, model_bytes: int) -> dict[str, str]:
        """Lay models out as the platform does, and return the urls they are loaded from, by their names."""
        for name in (FIRST, SECOND):
            if model_bytes:
                write_large_model(folder / name / "model", model_bytes)
            elif self._subject.model is not None:
                shutil.copytree(self._subject.model, folder / name / "model")
        (folder / DAMAGED / "model").mkdir(parents=True)
        (folder / DAMAGED / "model/model.onnx").write_bytes(NOT_A_MODEL)
        seen_as = DEFAULT_BASE / "models" if self._subject.image else folder
        return {path.name: str(seen_as / path.name / "model") for path in folder.iterdir()}


def start(spec: ContainerSpec, log: Log) -> RunningProcess:
    """Start a container, or a process where there is no image."""
    return DockerRunner(log).start(spec) if spec.image else ProcessRunner(log).start(spec)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
