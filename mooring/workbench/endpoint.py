"""A server on this machine, as an endpoint runs it: the model mounted, one port, healthy or given up."""

import http
import http.client
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mooring.artifact.archive import extract
from mooring.runner.container_spec import ContainerSpec, Mount

from .job import Limits

GRACE_SECONDS = 30
# The platform's own, for each attempt and for all of them.
PING_SECONDS = 2
STARTUP_SECONDS = 240


@dataclass(frozen=True)
class Endpoint:
    """What is served: a model's folder (mounted, read-only), an archive (unpacked), or what the image brings."""

    model: Path | None
    port: int
    image: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    name: str = field(default_factory=lambda: f"mooring-{uuid.uuid4().hex[:8]}")

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self, base: Path, *, unpack: bool = True) -> ContainerSpec:
        """Write what the platform would mount, and return the container to start.

        Raises `UnsafeArchiveError`, `DamagedArchiveError`.
        """
        base.mkdir(parents=True, exist_ok=True)
        mounts: tuple[Mount, ...] = ()
        if self.model is not None and self.model.is_dir():
            (base / "model").mkdir()
            mounts = (Mount("model", self.model),)
        elif self.model is not None and unpack:
            extract(self.model, base / "model")
        return ContainerSpec(
            ("serve",),
            base,
            dict(self.variables),
            mounts,
            port=self.port,
            cpus=self.limits.cpus,
            memory=self.limits.memory,
            gpus=self.limits.gpus,
            image=self.image,
            name=self.name,
        )

    def is_healthy(self) -> bool:
        """Whether /ping answers 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PING_SECONDS)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
