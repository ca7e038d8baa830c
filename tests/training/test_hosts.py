"""Two hosts with addresses of their own: they meet, fail together, start again together, or are named if missing."""

import random
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import networks
import pytest
import torch
from jobs import HOMOGENEOUS, write_config
from torch import nn
from training_jobs import TIMEOUT_S, Job, Run

from mooring.runner.container_spec import ContainerSpec
from mooring.training import Checkpointer, TrainingState, process_group

Hosts = Mapping[str, tuple[str, ...]]
TRAIN = str(Path(sys.executable).parent / "train")

MEET = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
ones = torch.ones(1)
dist.all_reduce(ones)
print(f"rank {dist.get_rank()} on {os.environ['SM_CURRENT_HOST']} sees {int(ones)}", flush=True)
dist.destroy_process_group()
"""

# Runs once on each host and meets by itself, as scripts for the earlier PyTorch image do.
MEET_BY_THEMSELVES = """
import json, os, torch, torch.distributed as dist
hosts, host = json.loads(os.environ["SM_HOSTS"]), os.environ["SM_CURRENT_HOST"]
dist.init_process_group("gloo", init_method="env://", rank=hosts.index(host), world_size=len(hosts))
ones = torch.ones(1)
dist.all_reduce(ones)
print(f"rank {dist.get_rank()} on {host} sees {int(ones)}", flush=True)
dist.destroy_process_group()
"""

# Fails once, on the second host, as long as there is no file that says that it has.
FAILS_ONCE = """
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
print("attempt", os.environ["TORCHELASTIC_RESTART_COUNT"], "rank", dist.get_rank(), flush=True)
marker = os.environ["MARKER"]
if dist.get_rank() == 3 and not os.path.exists(marker):
    open(marker, "w")
    sys.exit(5)
dist.barrier()
dist.destroy_process_group()
"""

PATIENT = """
import signal, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[Hosts]:
    if not networks.can_make():
        pytest.skip("this machine lets us make no network namespaces")
    with networks.two_hosts("algo-1", "algo-2") as prefixes:
        yield prefixes


def start(
    prefixes: Hosts, base: Path, script: str, host: str, *, ranks: int | None = 2, **variables: str
) -> tuple[Job, Run]:
    job = Job.write(base / host, script, ranks=ranks)
    write_config(base / host, "resourceconfig.json", HOMOGENEOUS | {"current_host": host})
    return job, Run.start(ContainerSpec((*prefixes[host], TRAIN), job.base, job.variables | variables))


def run_both(
    prefixes: Hosts, base: Path, script: str, *, ranks: int | None = 2, **variables: str
) -> dict[str, tuple[int, str, Job]]:
    """Run a job on both hosts; returns exit code, output and job by host."""
    with ExitStack() as stack:
        started = {host: start(prefixes, base, script, host, ranks=ranks, **variables) for host in prefixes}
        for _, run in started.values():
            stack.enter_context(run.process)
        return {host: (run.process.wait(TIMEOUT_S), run.output, job) for host, (job, run) in started.items()}


@pytest.mark.slow
def test_ranks_of_both_hosts_meet(two_hosts: Hosts, tmp_path: Path) -> None:
    ended = run_both(two_hosts, tmp_path, MEET)
    assert [code for code, _, _ in ended.values()] == [0, 0], ended
    seen = sorted(re.findall(r"rank \d on algo-\d sees \d", "".join(output for _, output, _ in ended.values())))
    assert seen == [f"rank {rank} on algo-{1 + rank // 2} sees 4" for rank in range(4)]


@pytest.mark.slow
def test_scripts_that_run_once_on_each_host_meet_by_themselves(two_hosts: Hosts, tmp_path: Path) -> None:
    ended = run_both(two_hosts, tmp_path, MEET_BY_THEMSELVES, ranks=None)
    assert [code for code, _, _ in ended.values()] == [0, 0], ended
    assert "rank 0 on algo-1 sees 2" in ended["algo-1"][1]
    assert "rank 1 on algo-2 sees 2" in ended["algo-2"][1]


@pytest.mark.slow
def test_failure_on_one_host_ends_both_and_names_the_rank(two_hosts: Hosts, tmp_path: Path) -> None:
    ended = run_both(two_hosts, tmp_path, FAILS_ONCE, MARKER=str(tmp_path / "marker"))
    assert ended["algo-2"][0] == 5
    assert ended["algo-1"][0] != 0
    assert "exit code 5 (rank 3 of 4 on algo-2)" in ended["algo-2"][2].failure


@pytest.mark.slow
def test_both_hosts_start_again_together(two_hosts: Hosts, tmp_path: Path) -> None:
    ended = run_both(two_hosts, tmp_path, FAILS_ONCE, MARKER=str(tmp_path / "marker"), MOORING_MAX_RESTARTS="2")
    assert [code for code, _, _ in ended.values()] == [0, 0], ended
    attempts = sorted(re.findall(r"attempt (\d) rank (\d)", "".join(output for _, output, _ in ended.values())))
    assert attempts == [(str(attempt), str(rank)) for attempt in range(2) for rank in range(4)]


@pytest.mark.slow
def test_killed_rank_hangs_nobody(two_hosts: Hosts, tmp_path: Path) -> None:
    """The others wait for nothing that a broken connection would tell them of."""
    with ExitStack() as stack:
        started = {host: start(two_hosts, tmp_path, PATIENT, host) for host in two_hosts}
        for _, run in started.values():
            stack.enter_context(run.process)
        for _, run in started.values():
            run.wait_for_line("waiting", 2)
        started["algo-2"][1].ranks()[0].send_signal(signal.SIGKILL)
        assert started["algo-2"][1].wait() == 137
        started["algo-1"][1].wait()
    assert "Rank 2 on algo-2 failed" in started["algo-1"][1].output


# Trains until it is stopped, and says after which step.
STOPS = """
import time, torch
from torch import nn
from mooring.training import StopRequest, prepare, process_group
with process_group() as group, StopRequest() as stop:
    model = prepare(nn.Linear(8, 8), group, torch.zeros(2, 8))
    step = 0
    while not stop.agreed():
        model(torch.ones(2, 8)).sum().backward()
        step += 1
        if step == 5:
            print("training", flush=True)
        time.sleep(0.02)
    print("stopped after", step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("told", [("algo-2",), ("algo-1", "algo-2")])
def test_stop_of_one_host_stops_both_after_the_same_step(
    two_hosts: Hosts, tmp_path: Path, told: tuple[str, ...]
) -> None:
    """Or of both, seconds apart: the second finds ranks that are about to end, or have."""
    with ExitStack() as stack:
        started = {host: start(two_hosts, tmp_path, STOPS, host)[1] for host in two_hosts}
        for run in started.values():
            stack.enter_context(run.process)
        for run in started.values():
            run.wait_for_line("training", 2)
        started[told[0]].signal()
        started[told[0]].wait_for_line("stopped after", 2)
        for host in told[1:]:
            if started[host].process.poll() is None:
                started[host].signal()
        assert [run.wait() for run in started.values()] == [0, 0]
    stopped = [line for run in started.values() for line in run.lines if line.startswith("stopped after")]
    assert len(stopped) == 4
    assert len(set(stopped)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("present", "sentence"),
    [
        ("algo-1", "Of 2 hosts these did not come within 3 s: algo-2"),
        ("algo-2", "Host algo-1 could not be reached at port 7777 within 3 s"),
    ],
)
def test_host_that_never_comes_is_named(two_hosts: Hosts, tmp_path: Path, present: str, sentence: str) -> None:
    job, run = start(two_hosts, tmp_path, MEET, present, MOORING_JOIN_SECONDS="3")
    with run.process:
        assert run.wait() == 1
    assert sentence in job.failure


# Saves at every second step into the folder that this host alone sees.
SAVES = """
import torch
from torch import nn
from mooring.training import Checkpointer, Retention, TrainingState, prepare, process_group
with process_group() as group:
    torch.manual_seed(0)
    model = prepare(nn.Linear(300, 300), group, torch.zeros(2, 300))
    state = TrainingState(model, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9))
    with Checkpointer(state, keep=Retention(last=9)) as checkpoints:
        print("resumed at", checkpoints.resume(), flush=True)
        for _ in range(6):
            state.optimizer.zero_grad()
            model(torch.ones(2, 300) * group.rank).sum().backward()
            state.optimizer.step()
            state.step += 1
            if state.step % 2 == 0:
                checkpoints.save()
"""


@pytest.fixture(scope="module")
def saved(two_hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both hosts hold after a run, each in a folder of its own."""
    base = tmp_path_factory.mktemp("saved")
    first = run_both(two_hosts, base, SAVES)
    assert [code for code, _, _ in first.values()] == [0, 0], first
    return base


def deliver(base: Path, lost: str) -> None:
    """What the platform does between two runs: both hosts' files go to one prefix, and all of it to both hosts.

    Files whose path matches `lost` were on their way when the hosts went.
    """
    prefix: dict[str, bytes] = {}
    for host in ("algo-1", "algo-2"):
        folder = base / host / "checkpoints"
        for file in folder.rglob("*"):
            name = str(file.relative_to(folder))
            if file.is_file() and not re.search(lost, f"{host}/{name}"):
                prefix[name] = file.read_bytes()
    for host in ("algo-1", "algo-2"):
        folder = base / host / "checkpoints"
        shutil.rmtree(folder)
        for name, content in prefix.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "step"),
    [
        ("nothing at all", 6),
        ("algo-2/step-00000006/__", 4),  # the second host's share of the newest did not get through
        ("step-00000006/manifest", 4),
        ("algo-2/step-0000000[46]/host", 2),
    ],
)
def test_hosts_resume_from_what_the_sync_delivered_whole(
    two_hosts: Hosts, saved: Path, tmp_path: Path, lost: str, step: int
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    deliver(tmp_path, lost)
    again = run_both(two_hosts, tmp_path, SAVES)
    assert [code for code, _, _ in again.values()] == [0, 0], again
    assert sum(output.count(f"resumed at {step}") for _, output, _ in again.values()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_only_what_was_delivered_whole_counts_in_whatever_order_it_comes(
    saved: Path, tmp_path: Path, seed: int
) -> None:
    """A sync that reorders and delays, seen after every file: the newest step that is believed has all its files."""
    files = [
        (file, file.relative_to(saved / host / "checkpoints"))
        for host in ("algo-1", "algo-2")
        for file in sorted((saved / host / "checkpoints").rglob("*"))
        if file.is_file()
    ]
    random.Random(seed).shuffle(files)
    wanted: dict[str, set[Path]] = {}
    for _, name in files:
        wanted.setdefault(name.parts[0], set()).add(name)
    delivered: set[Path] = set()
    with process_group():
        checkpoints = Checkpointer(TrainingState(nn.Linear(1, 1), torch.optim.SGD([torch.ones(1)])), tmp_path)
        for file, name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / name)
            delivered.add(name)
            whole = [int(step.removeprefix("step-")) for step, names in wanted.items() if names <= delivered]
            assert checkpoints.newest_valid() == max(whole, default=None)
        checkpoints.close()


@pytest.mark.slow
def test_hosts_whose_folders_differ_agree_on_the_newest_that_both_have(
    two_hosts: Hosts, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    deliver(tmp_path, "nothing at all")
    shutil.rmtree(tmp_path / "algo-2/checkpoints/step-00000006")
    (tmp_path / "algo-1/checkpoints/step-00000004/manifest.json").unlink()
    again = run_both(two_hosts, tmp_path, SAVES)
    assert sum(output.count("resumed at 2") for _, output, _ in again.values()) == 4, again
