"""Containers as Docker has them, with the interface of processes: started, relayed, stopped with a grace, removed."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mooring.contract.environment import process_variables
from mooring.contract.paths import DEFAULT_BASE

from .container_spec import ContainerSpec, Mount
from .docker import DOCKER, DockerError, DockerNotFoundError, ask
from .process_runner import RunningProcess

# What the platform knocks at; see SAGEMAKER_BIND_TO_PORT for another.
PORT = 8080
PAUSE_S = 0.1
# Variables by which the docker command itself is told something; others go through its own variables, not its words.
DOCKERS_OWN = ("PATH", "HOME", "DOCKER_")


class RunningContainer(RunningProcess):
    """A started container, seen through the docker command that runs it. Leaving its `with` block removes it."""

    def __init__(self, process: "subprocess.Popen[str]", on_line: Callable[[str], None], name: str) -> None:
        super().__init__(process, on_line)
        self._name = name

    def stop(self, grace_seconds: float) -> int:
        """Have Docker send SIGTERM, wait as long as the platform would, then kill. Returns the exit code."""
        limit = time.monotonic() + grace_seconds
        while self.poll() is None:
            try:
                ask([DOCKER, "stop", "--time", f"{grace_seconds:.0f}", self._name])
                break
            except DockerError:  # it has ended by itself, or its image is still being pulled
                if time.monotonic() > limit:
                    self.kill()
                time.sleep(PAUSE_S)
        return self.wait()

    def kill(self) -> None:
        """Remove the container, whatever runs in it, and end the command that watches it."""
        with suppress(DockerError):  # it is gone already, as a rule
            ask([DOCKER, "rm", "--force", self._name])
        super().kill()


class DockerRunner:
    """Runs containers of images; `on_line` gets each line of output, from another thread."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line

    def start(self, spec: ContainerSpec) -> RunningContainer:
        """Start a container. Raises `DockerNotFoundError`; what Docker cannot start ends with 125."""
        try:
            process = subprocess.Popen(
                run_command(spec),
                env=process_variables()
                | {name: value for name, value in spec.variables.items() if not _is_dockers(name)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for whoever started it, who stops it as the platform would
            )
        except FileNotFoundError as error:
            raise DockerNotFoundError from error
        return RunningContainer(process, self._on_line, spec.name)


def run_command(spec: ContainerSpec) -> list[str]:
    """Return what Docker is asked. Values of variables are not in it: they may be secrets, and words can be listed."""
    # The platform mounts what it brings, not /opt/ml as a whole: what else the image has there stays.
    folders = (path for path in sorted(spec.base.iterdir()) if path.is_dir())
    taken = {mount.place for mount in spec.mounts}
    own = [Mount(path.name, path, is_read_only=False) for path in folders if path.name not in taken]
    command = [DOCKER, "run", "--rm", "--name", spec.name]
    for mount in (*own, *spec.mounts):
        command += ["--mount", _mount(mount)]
    for name, value in spec.variables.items():
        command += ["--env", f"{name}={value}" if _is_dockers(name) else name]
    if spec.port is not None:
        command += ["--publish", f"127.0.0.1:{spec.port}:{PORT}"]
    if spec.host is not None:
        command += ["--hostname", spec.host]
    if spec.network is not None:
        command += ["--network", spec.network, "--network-alias", spec.host or spec.name]
    for option, limit in (("--cpus", spec.cpus), ("--memory", spec.memory), ("--gpus", spec.gpus)):
        if limit is not None:
            command += [option, str(limit)]
    return [*command, *spec.options, spec.image, *spec.command]


def _is_dockers(name: str) -> bool:
    return name.startswith(DOCKERS_OWN)


def _mount(mount: Mount) -> str:
    source, target = mount.source.resolve(), Path(DEFAULT_BASE) / mount.place
    fields = ["type=bind", f"src={source}", f"dst={target}", *(["readonly"] if mount.is_read_only else [])]
    # Docker reads the fields as a line of CSV.
    return ",".join(f'"{field}"' if "," in field else field for field in fields)
