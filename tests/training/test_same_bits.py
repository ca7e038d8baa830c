"""Killed at any moment, a run goes on from its last checkpoint with the same losses, bit for bit."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from training_jobs import Job, Run

# Several gradient buckets, dropout, batch norm; writes each step's loss and, at the end, a digest of the weights.
SCRIPT = """
import hashlib, os, sys, time
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from mooring.training import (
    Checkpointer, DataPosition, GlobalBatchSampler, StopRequest, TrainingState, data_loader, prepare, process_group,
)

STEPS = 60
with process_group() as group:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(480, 32), torch.randint(0, 5, (480,)))
    model = nn.Sequential(
        nn.Linear(32, 700), nn.BatchNorm1d(700), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 5),
    )
    torch.manual_seed(group.rank)
    model = prepare(model, group, torch.zeros(2, 32))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    state = TrainingState(model, optimizer, position=DataPosition())
    sampler = GlobalBatchSampler(
        len(data), 48, state.position, seed=1, rank=group.rank, world_size=group.world_size
    )
    loader = data_loader(data, sampler, num_workers=int(os.environ.get("WORKERS", "0")))
    log = open(os.environ["SM_OUTPUT_DATA_DIR"] + f"/losses-{group.rank}", "a")
    with StopRequest() as stop, Checkpointer(state) as checkpoints:
        print("resumed at", checkpoints.resume(), flush=True)
        is_stopping = False
        while state.step < STEPS and not is_stopping:
            for x, y in loader:
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                state.step += 1
                state.position.consumed += 48
                log.write(f"{state.step} {loss.item().hex()}\\n")
                log.flush()
                if state.step % 4 == 0:
                    checkpoints.save()
                is_stopping = stop.agreed()
                if is_stopping or state.step == STEPS:
                    break
            if sampler.is_exhausted:
                state.position.epoch += 1
                state.position.consumed = 0
        checkpoints.save()
    if group.rank == 0 and not is_stopping:
        digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values()))
        print("weights", digest.hexdigest(), flush=True)
    print("stopped after" if is_stopping else "finished after", state.step, flush=True)
"""


def losses(job: Job, rank: int = 0) -> list[tuple[int, str]]:
    """Every loss a rank has logged, in all its runs; a line that a kill tore is left out."""
    file = job.paths.output_data / f"losses-{rank}"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines if line.endswith("\n")]


def weights(output: str) -> str:
    return next(line.split()[1] for line in output.splitlines() if line.startswith("weights"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[list[dict[int, str]], str]]:
    """Losses by rank, and final weights, of runs that nobody disturbed."""
    found = {}
    for ranks in (1, 2, 4):
        job = Job.write(tmp_path_factory.mktemp(f"whole-{ranks}"), SCRIPT, ranks=ranks)
        code, output = job.run(OMP_NUM_THREADS="1")
        assert code == 0, output
        found[ranks] = ([dict(losses(job, rank)) for rank in range(ranks)], weights(output))
    return found


def kill_a_rank(run: Run) -> None:
    random.choice(run.ranks()).kill()


def kill_the_agent(run: Run) -> None:
    run.agent().kill()


def kill_everything(run: Run) -> None:
    family = run.family()
    run.signal(signal.SIGKILL)
    psutil.wait_procs(family[1:], timeout=10)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("ranks", "kill", "at", "workers"),
    [(1, kill_everything, 9, 0), (2, kill_a_rank, 17, 2), (4, kill_the_agent, 25, 0), (4, kill_a_rank, 33, 0)],
)
def test_killed_run_resumes_with_the_same_bits(
    tmp_path: Path,
    uninterrupted: dict[int, tuple[list[dict[int, str]], str]],
    ranks: int,
    kill: Callable[[Run], None],
    at: int,
    workers: int,
) -> None:
    expected, final = uninterrupted[ranks]
    job = Job.write(tmp_path, SCRIPT, ranks=ranks)
    variables = {"OMP_NUM_THREADS": "1", "WORKERS": str(workers)}
    run = job.start(**variables)
    with run.process:
        run.wait_for(lambda: len(losses(job)) >= at)
        kill(run)
        assert run.wait() != 0
    code, output = job.run(**variables)
    assert code == 0, output
    assert "resumed at None" not in output
    assert weights(output) == final
    for rank in range(ranks):
        logged = losses(job, rank)
        assert all(loss == expected[rank][step] for step, loss in logged)
        assert {step for step, _ in logged} == set(expected[rank])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stopped_ranks_agree_on_the_step_and_resume_with_the_same_bits(
    tmp_path: Path, uninterrupted: dict[int, tuple[list[dict[int, str]], str]]
) -> None:
    """The signal reaches one rank only; all stop after the same step, within moments."""
    expected, final = uninterrupted[4]
    job = Job.write(tmp_path, SCRIPT, ranks=4)
    run = job.start(OMP_NUM_THREADS="1")
    with run.process:
        run.wait_for(lambda: len(losses(job)) >= 11)
        run.ranks()[2].send_signal(signal.SIGTERM)
        assert run.wait() == 0
    stopped = {line for line in run.output.splitlines() if line.startswith("stopped after")}
    assert len(stopped) == 1
    assert run.output.count("stopped after") == 4
    step = int(stopped.pop().split()[-1])
    code, output = job.run(OMP_NUM_THREADS="1")
    assert code == 0
    assert output.count(f"resumed at {step}") == 4
    assert weights(output) == final
    assert dict(losses(job)) == expected[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_number_of_ranks_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    job = Job.write(tmp_path, SCRIPT, ranks=2)
    run = job.start()
    with run.process:
        run.wait_for(lambda: len(losses(job)) >= 11)
        run.signal()
        assert run.wait() == 0
    first = losses(job)
    run = job.start(MOORING_PROCESSES_PER_HOST="4")
    with run.process:
        run.wait_for(lambda: len(losses(job)) >= len(first) + 9)
        run.signal()
        assert run.wait() == 0
    second = losses(job)
    assert run.output.count(f"resumed at {first[-1][0]}") == 4
    code, output = job.run(MOORING_PROCESSES_PER_HOST="3")
    assert code == 0, output
    assert output.count(f"resumed at {second[-1][0]}") == 3
    assert [step for step, _ in losses(job)] == list(range(1, 61))
