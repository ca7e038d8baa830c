"""Killed at any moment, a run goes on from its last checkpoint with the same losses, bit for bit."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import pytest
from training_jobs import Job, Run

KILLS_PER_TEST = 8
STEPS = 80

# Several gradient buckets, dropout, batch norm; writes each step's loss and, at the end, a digest of the weights.
SCRIPT = """
import hashlib, os, sys, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from mooring.training import (
    Checkpointer, DataPosition, GlobalBatchSampler, StopRequest, TrainingState, data_loader, prepare, process_group,
    whole_weights,
)

STEPS = 80
# What differs between ranks (what they drop, what they normalise by) makes another number of ranks another run.
is_plain = "PLAIN" in os.environ
with process_group() as group:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(480, 32), torch.randint(0, 5, (480,)))
    model = nn.Sequential(
        nn.Linear(32, 700), nn.Identity() if is_plain else nn.BatchNorm1d(700), nn.ReLU(),
        nn.Dropout(0 if is_plain else 0.2),
        nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 5),
    )
    torch.manual_seed(group.rank)
    model = prepare(model, group, torch.zeros(2, 32), shard=[model[4]] if "SHARD" in os.environ else None)
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
                time.sleep(0.01)
                state.step += 1
                state.position.consumed += 48
                if is_plain:
                    loss = loss.detach() / group.world_size
                    dist.all_reduce(loss)
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
    weights = whole_weights(model)
    if group.rank == 0 and not is_stopping:
        digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in weights.values()))
        print("weights", digest.hexdigest(), flush=True)
    print("stopped after" if is_stopping else "finished after", state.step, flush=True)
"""


def losses(job: Job, rank: int = 0) -> list[tuple[int, str]]:
    """Every loss a rank has logged, in all its runs; a line that a kill tore is left out."""
    file = job.paths.output_data / f"losses-{rank}"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines if line.endswith("\n")]


def wait_for_losses(run: Run, job: Job, count: int) -> None:
    run.wait_for(lambda: len(losses(job)) >= count)


def weights(output: str) -> str:
    return next(line.split()[1] for line in output.splitlines() if line.startswith("weights"))


@dataclass(frozen=True)
class Way:
    """One way to run the script."""

    ranks: int
    workers: int = 0
    is_sharded: bool = False

    def __str__(self) -> str:
        return f"{self.ranks}-ranks-{self.workers}-workers" + ("-sharded" if self.is_sharded else "")

    @property
    def variables(self) -> dict[str, str]:
        """What the script reads. One thread each, since the number of threads decides how sums are split."""
        sharded = {"SHARD": "1"} if self.is_sharded else {}
        return {"OMP_NUM_THREADS": "1", "WORKERS": str(self.workers)} | sharded


WAYS = [Way(1), Way(2, workers=2), Way(4), Way(2, is_sharded=True)]


@dataclass(frozen=True)
class Ended:
    """What a run that nobody disturbed leaves: losses by rank, and the final weights."""

    losses: list[dict[int, str]]
    weights: str


Uninterrupted = Callable[[int, bool], Ended]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    @cache
    def run(ranks: int, is_sharded: bool) -> Ended:
        job = Job.write(tmp_path_factory.mktemp(f"whole-{ranks}"), SCRIPT, ranks=ranks)
        code, output = job.run(**Way(ranks, is_sharded=is_sharded).variables)
        assert code == 0, output
        return Ended([dict(losses(job, rank)) for rank in range(ranks)], weights(output))

    return run


# --- kills ------------------------------------------------------------------------------------------------------------


def newest_whole(job: Job) -> int | None:
    """The newest step whose manifest has been written."""
    folders = [file.parent.name for file in job.paths.checkpoints.glob("step-*/manifest.json")]
    return max((int(name.removeprefix("step-")) for name in folders), default=None)


def while_starting(run: Run, job: Job, dice: random.Random) -> None:
    limit, goal = time.monotonic() + dice.uniform(0, 4), len(losses(job)) + 5
    run.wait_for(lambda: time.monotonic() > limit or len(losses(job)) >= goal)


def while_training(run: Run, job: Job, dice: random.Random) -> None:
    wait_for_losses(run, job, len(losses(job)) + dice.randint(1, 9))


def inside_a_save(run: Run, job: Job, dice: random.Random) -> None:
    def is_saving() -> bool:
        return any(not (folder / "manifest.json").exists() for folder in job.paths.checkpoints.glob("step-*"))

    wait_for_losses(run, job, len(losses(job)) + 1)
    run.wait_for(lambda: not is_saving())  # what an earlier kill has left is not this run's
    run.wait_for(is_saving)
    time.sleep(dice.uniform(0, 0.05))


def kill_a_rank(run: Run, dice: random.Random) -> str:
    """Kill a rank; the agent starts all of them again. Returns what was killed."""
    before = run.ranks()
    restarts = sum("starting the ranks again" in line for line in run.lines)
    dice.choice(before).kill()
    run.wait_for_line("starting the ranks again", restarts + 1)
    run.wait_for(lambda: len(run.ranks()) == len(before) and not set(run.ranks()) & set(before))
    return "a rank"


def kill_the_run(run: Run, dice: random.Random) -> str:
    """Kill the agent, the launcher or everything at once; nothing is left. Returns which it was."""
    family = run.family()
    # A launcher that has no agent yet is everything.
    what, victims = dice.choice([("the agent", family[1:2]), ("the launcher", family[:1]), ("everything", family)])
    for process in victims or family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert run.wait() != 0, run.output
    assert not psutil.wait_procs(family, timeout=10)[1]
    return what


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many tests as make up the kills asked for with --kills."""
    if "way" in metafunc.fixturenames:
        count = -(-metafunc.config.getoption("kills") // KILLS_PER_TEST)
        cases = [(WAYS[number % len(WAYS)], number) for number in range(count)]
        metafunc.parametrize(("way", "seed"), cases, ids=[f"{way}-{seed}" for way, seed in cases])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_killed_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: Uninterrupted, way: Way, seed: int
) -> None:
    expected = uninterrupted(way.ranks, way.is_sharded)
    dice = random.Random(seed)
    job = Job.write(tmp_path, SCRIPT, ranks=way.ranks)
    kills = 0
    while kills < KILLS_PER_TEST:
        whole = newest_whole(job)
        run = job.start(MOORING_MAX_RESTARTS="100", **way.variables)
        with run.process:
            for ends_the_run in (*[False] * dice.randint(1, 3), True):
                moment = dice.choice([while_starting, while_training, inside_a_save])
                moment(run, job, dice)
                what = kill_the_run(run, dice) if ends_the_run or not run.ranks() else kill_a_rank(run, dice)
                print(f"killed {what} {moment.__name__}, after step {max(losses(job), default=(0, ''))[0]}")
                kills += 1
                if run.process.poll() is not None:
                    break
        resumed = next((line for line in run.lines if line.startswith("resumed at")), None)
        assert resumed in (None, f"resumed at {whole}\n")
    whole = newest_whole(job)
    code, output = job.run(**way.variables)
    assert code == 0, output
    assert output.count(f"resumed at {whole}\n") == way.ranks
    assert weights(output) == expected.weights
    for rank in range(way.ranks):
        logged = losses(job, rank)
        assert all(loss == expected.losses[rank][step] for step, loss in logged)
        assert {step for step, _ in logged} == set(expected.losses[rank])


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stopped_ranks_agree_on_the_step_and_resume_with_the_same_bits(
    tmp_path: Path, uninterrupted: Uninterrupted
) -> None:
    """The signal reaches one rank only; all stop after the same step, within moments."""
    expected = uninterrupted(4, False)
    job = Job.write(tmp_path, SCRIPT, ranks=4)
    run = job.start(OMP_NUM_THREADS="1")
    with run.process:
        wait_for_losses(run, job, 11)
        run.ranks()[2].send_signal(signal.SIGTERM)
        assert run.wait() == 0
    stopped = {line for line in run.output.splitlines() if line.startswith("stopped after")}
    assert len(stopped) == 1
    assert run.output.count("stopped after") == 4
    step = int(stopped.pop().split()[-1])
    code, output = job.run(OMP_NUM_THREADS="1")
    assert code == 0
    assert output.count(f"resumed at {step}") == 4
    assert weights(output) == expected.weights
    assert dict(losses(job)) == expected.losses[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_number_of_ranks_goes_on_where_the_run_stopped(tmp_path: Path) -> None:
    """From 2 ranks to 4 to 3: each step once, and its loss that of a run of one rank, but for rounding."""
    variables = {"PLAIN": "1", "OMP_NUM_THREADS": "1"}
    alone = Job.write(tmp_path / "alone", SCRIPT)
    assert alone.run(**variables)[0] == 0
    job = Job.write(tmp_path / "changing", SCRIPT)
    at = None
    for ranks, steps in ((2, 20), (4, 20), (3, None)):
        run = job.start(**variables, MOORING_PROCESSES_PER_HOST=str(ranks))
        with run.process:
            if steps is not None:
                wait_for_losses(run, job, len(losses(job)) + steps)
                run.signal()
            assert run.wait() == 0, run.output
        assert run.output.count(f"resumed at {at}\n") == ranks
        at = losses(job)[-1][0]
    seen = losses(job)
    assert [step for step, _ in seen] == list(range(1, STEPS + 1))
    expected = dict(losses(alone))
    for step, loss in seen:
        assert float.fromhex(loss) == pytest.approx(float.fromhex(expected[step]), rel=1e-3), step
