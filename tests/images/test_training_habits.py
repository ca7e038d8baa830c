"""What the platform does to a container that trains, and what scripts rely on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
# Works together all the time, as training does.
BUSY = """
import os, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
print(f"rank {dist.get_rank()} waits on {os.environ['SM_CURRENT_HOST']}", flush=True)
while True:
    dist.all_reduce(torch.ones(1))
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


@contextmanager
def two_hosts(images: Images, tmp_path: Path, script: str) -> Iterator[list[Container]]:
    """Run two containers that train together on a network of their own."""
    with network("--internal") as name, ExitStack() as stack:
        containers = []
        for host in HOSTS:
            base = write_job(tmp_path / host, script, hosts=HOSTS, current=host)
            more = options("--network", name, "--network-alias", host, "--hostname", host, ranks=2)
            containers.append(stack.enter_context(training(images.cpu, base, options=more)))
        for container in containers:
            container.wait_for_line("waits on", 2)
        yield containers


def test_two_containers_train_together_and_stop_together(images: Images, tmp_path: Path) -> None:
    with two_hosts(images, tmp_path, PATIENT) as containers:
        lines = sorted(line for container in containers for line in container.logs.splitlines() if "waits on" in line)
        for rank, line in enumerate(lines):
            assert f"rank {rank} waits on {HOSTS[rank // 2]}" in line
        assert len(lines) == 4
        # The platform tells all hosts at once.
        with ThreadPoolExecutor() as pool:
            assert list(pool.map(lambda container: container.stop(120), containers)) == [0, 0]


def test_container_whose_fellow_is_killed_ends_and_says_so(images: Images, tmp_path: Path) -> None:
    with two_hosts(images, tmp_path, BUSY) as (first, second):
        docker("kill", second.name)
        assert second.wait(60) == 137
        assert first.wait(100) != 0, first.logs
        failure = ContainerPaths(tmp_path / HOSTS[0]).failure.read_text()
        assert "on algo-1, exit code 1" in failure
        assert "all_reduce" in failure  # where the connection broke off
