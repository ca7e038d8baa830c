"""The command `mooring run`: a training job or a server, as the platform would run it."""

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError, PlatformError
from mooring.contract.secrets_mask import mask_secrets
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.docker import DOCKER, ask
from mooring.runner.docker_runner import DockerRunner, run_command
from mooring.runner.process_runner import ProcessRunner, RunningProcess, process_only_variables

from .run_options import hyperparameters, parser, variables

if TYPE_CHECKING:
    from mooring.workbench.attend import StopSignals
    from mooring.workbench.endpoint import Endpoint
    from mooring.workbench.job import TrainingJob


class ResultsKeptError(PlatformError):
    """What a job left cannot be put where it was to go."""

    def __init__(self, output: Path, folder: Path, problem: Exception) -> None:
        super().__init__(f"The results cannot be put into {output}: {problem}. They are left in {folder}.")


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    for option in ("memory", "gpus"):
        if getattr(arguments, option) and not arguments.image:
            parser().error(f"--{option} is for containers; processes have no such limit. Name an image with --image")
    try:
        given = variables(arguments.env, process_variables())
        sys.exit(_train(arguments, given) if arguments.what == "train" else _serve(arguments, given))
    except ValueError as error:
        parser().error(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring run: interrupted before anything was started, or after all had ended.\n")
        sys.exit(130)
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring run: {error}\n")
        sys.exit(1)


# --- train ------------------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace, variables: dict[str, str]) -> int:
    from mooring.workbench.attend import attend, stop_signals
    from mooring.workbench.job import collect, failures

    job = _job(arguments, variables)
    with _folder() as folder:
        if job.checkpoints is not None and not arguments.dry_run:
            job.checkpoints.mkdir(parents=True, exist_ok=True)
        specs = job.prepare(folder)
        if arguments.dry_run:
            _print_plan(specs)
            return 0
        with stop_signals() as signals, _network(job.network), ExitStack() as stack:
            containers = [stack.enter_context(_start(spec, is_one=len(specs) == 1)) for spec in specs]
            code = attend(containers, signals, arguments.grace, sys.stderr.write)
        for host, reason in failures(specs).items():
            sys.stderr.write(f"\n{host} failed, and wrote:\n{reason.rstrip()}\n")
        try:
            left = collect(specs, arguments.output)
        except (MooringError, OSError) as error:
            raise ResultsKeptError(arguments.output, folder, error) from error
    sys.stdout.writelines(f"{file}\n" for file in left)
    return code


def _job(arguments: argparse.Namespace, variables: dict[str, str]) -> "TrainingJob":
    from mooring.workbench.job import Limits, TrainingJob

    if arguments.instances > 1 and not arguments.image:
        raise ValueError(
            "--instances: processes share one network, so hosts need containers; name an image with --image"
        )
    return TrainingJob(
        dict(arguments.channel),
        hyperparameters(arguments.hyperparameters),
        arguments.code,
        arguments.program,
        arguments.image,
        arguments.instances,
        variables,
        arguments.checkpoints,
        Limits(arguments.cpus, arguments.memory, arguments.gpus),
    )


@contextmanager
def _network(name: str | None) -> Iterator[None]:
    if name is None:
        yield
        return
    ask([DOCKER, "network", "create", name])
    try:
        yield
    finally:
        ask([DOCKER, "network", "rm", name])


# --- serve ------------------------------------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace, variables: dict[str, str]) -> int:
    from mooring.workbench.attend import attend, stop_signals
    from mooring.workbench.endpoint import Endpoint
    from mooring.workbench.job import Limits

    limits = Limits(arguments.cpus, arguments.memory, arguments.gpus)
    endpoint = Endpoint(arguments.model, arguments.port, arguments.image, variables, limits)
    with _folder() as folder:
        spec = endpoint.prepare(folder / "ml", unpack=not arguments.dry_run)
        if arguments.dry_run:
            _print_plan([spec])
            return 0
        with stop_signals() as signals, _start(spec, is_one=True) as container:
            is_late = not _becomes_healthy(endpoint, container, signals, arguments.startup)
            if is_late:
                sys.stderr.write(
                    f"mooring run: /ping was not healthy within {arguments.startup:g} s, so it is stopped.\n"
                )
                container.stop(arguments.grace)
            code = attend([container], signals, arguments.grace, sys.stderr.write)
        return 1 if is_late else code


def _becomes_healthy(
    endpoint: "Endpoint", container: RunningProcess, signals: "StopSignals", startup_seconds: float
) -> bool:
    """Wait for /ping; False where the time is up. One that ends, or is to end, is for others to deal with."""
    limit = time.monotonic() + startup_seconds
    while container.poll() is None and not signals.count:
        if endpoint.is_healthy():
            sys.stdout.write(f"{endpoint.url}\n")
            sys.stdout.flush()
            return True
        if time.monotonic() > limit:
            return False
        signals.pause()
    return True


# --- both -------------------------------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder that is removed, unless results are left in it that nobody has elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-run-"))
    try:
        yield folder
    except ResultsKeptError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # written by a container as root
        sys.stderr.write(f"mooring run: {folder} holds files of somebody else; remove it when you like.\n")


def _start(spec: ContainerSpec, *, is_one: bool) -> RunningProcess:
    def relay(line: str) -> None:
        sys.stderr.write(line if is_one else f"{spec.host} | {line}")
        sys.stderr.flush()

    return DockerRunner(relay).start(spec) if spec.image else ProcessRunner(relay).start(spec)


def _print_plan(specs: list[ContainerSpec]) -> None:
    for spec in specs:
        variables = spec.variables if spec.image else process_only_variables(spec) | dict(spec.variables)
        command = run_command(spec) if spec.image else list(spec.command)
        sys.stdout.write(f"{shlex.join(command)}\n")
        sys.stdout.writelines(f"  {name}={value}\n" for name, value in mask_secrets(variables).items())
        if not spec.image:
            sys.stdout.writelines(f"  /opt/ml/{mount.place} -> {mount.source}\n" for mount in spec.mounts)
        for file in sorted((spec.base / "input/config").glob("*.json")):
            content = json.loads(file.read_text(encoding="utf-8"))
            shown = mask_secrets(content) if isinstance(content, dict) else content
            sys.stdout.write(f"  /opt/ml/input/config/{file.name}: {json.dumps(shown)}\n")
