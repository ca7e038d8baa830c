"""What the platform does to a container that trains, and what scripts rely on."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from containers import Container, docker, network, training
from images import Images

from mooring.contract.paths import ContainerPaths
from mooring.runner.platform_files import write_training_inputs

HOSTS = ("algo-1", "algo-2")
# Says when each rank is there, and when each has heard of the stop; a rank's exit is the script's.
PATIENT = """
import os, signal, sys, time, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
rank = dist.get_rank()
def stop(*_):
    print(f"rank {rank} hears of it", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print(f"rank {rank} waits on {os.environ['SM_CURRENT_HOST']}", flush=True)
while True:
    time.sleep(0.05)
"""
COUNT = """
import os, pathlib, torch
print("threads", os.environ["OMP_NUM_THREADS"], torch.get_num_threads(), "uid", os.getuid(), flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "left.txt").write_text("by the script")
"""
FAILS = "raise SystemExit('the third shelf is empty')"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "job"


def write_job(base: Path, script: str, *, hosts: tuple[str, ...] = HOSTS[:1], current: str = HOSTS[0]) -> Path:
    paths = write_training_inputs(
        base, hyperparameters={}, channels={}, hosts=hosts, current_host=current, seen_as=Path("/opt/ml")
    )
    (paths.code / "train.py").write_text(script, encoding="utf-8")
    for folder in (base, *(path for path in base.rglob("*") if path.is_dir())):
        folder.chmod(0o777)  # whoever the container runs as writes here
    return base


def options(*more: str, ranks: int = 1) -> list[str]:
    return ["--env", "SAGEMAKER_PROGRAM=train.py", "--env", f"MOORING_PROCESSES_PER_HOST={ranks}", *more]


def test_stop_reaches_every_rank_and_their_end_is_the_containers(images: Images, job: Path) -> None:
    with training(images.cpu, write_job(job, PATIENT), options=options(ranks=2)) as container:
        container.wait_for_line("waits on", 2)
        assert container.stop(120) == 0, container.logs
        assert all(f"rank {rank} hears of it" in container.logs for rank in (0, 1))


def test_no_network_no_root_and_no_file_to_write_to_are_enough(images: Images, job: Path) -> None:
    write_job(job, COUNT)
    locked = ["--read-only", "--tmpfs", "/tmp", "--network", "none", "--user", "12345", "--cap-drop", "ALL"]
    with training(images.cpu, job, options=options(*locked, "--cpus", "1")) as container:
        assert container.wait() == 0, container.logs
        assert "threads 1 1 uid 12345" in container.logs
    assert (ContainerPaths(job).model / "left.txt").read_text() == "by the script"


def test_failure_of_the_script_is_told_and_is_the_containers(images: Images, job: Path) -> None:
    with training(images.cpu, write_job(job, FAILS), options=options()) as container:
        assert container.wait() == 1
    assert "the third shelf is empty" in ContainerPaths(job).failure.read_text()


@pytest.fixture
def two_hosts(images: Images, tmp_path: Path) -> Iterator[list[Container]]:
    """Two containers that train together on a network of their own."""
    with network("--internal") as name, ExitStack() as stack:
        containers = []
        for host in HOSTS:
            base = write_job(tmp_path / host, PATIENT, hosts=HOSTS, current=host)
            more = options("--network", name, "--network-alias", host, "--hostname", host, ranks=2)
            containers.append(stack.enter_context(training(images.cpu, base, options=more)))
        for container in containers:
            container.wait_for_line("waits on", 2)
        yield containers


def test_two_containers_train_together_and_stop_together(two_hosts: list[Container]) -> None:
    ranks = sorted(line for container in two_hosts for line in container.logs.splitlines() if "waits on" in line)
    assert [(f"rank {rank} " in line, HOSTS[rank // 2] in line) for rank, line in enumerate(ranks)] == [
        (True, True)
    ] * 4
    first, second = two_hosts
    assert first.stop(120) == 0, first.logs
    assert second.stop(120) == 0, second.logs


def test_container_whose_fellow_is_killed_ends_and_says_so(two_hosts: list[Container], tmp_path: Path) -> None:
    first, second = two_hosts
    docker("kill", second.name)
    assert second.wait(60) == 137
    assert first.wait(240) != 0, first.logs
    assert "algo-2" in ContainerPaths(tmp_path / HOSTS[0]).failure.read_text()
