"""What looking inside costs a loop: steps with profiler or watches around, and without, in turns."""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mooring.training import Profiler, Watches

STEPS, TURN = 400, 2
EMPTY_STEPS, IDLE_S, STEP_S = 20_000, 10.0, 0.025
# About 25 ms a step on one core; with more threads than cores to spare, they would wait for each other.
BATCH, WIDTH, LAYERS = 128, 512, 5

Steps = Generator[None, None, None]


class Trained(NamedTuple):
    """A model and its optimizer."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


def main() -> None:
    """Compare step times, in interleaved turns of equal models in one process."""
    logging.getLogger("mooring").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(
        f"\nlooking inside, {STEPS} steps each in turns of {TURN}; more time than the bare loop, medians of the turns"
    )
    with tempfile.TemporaryDirectory() as folder:
        alone(Path(folder))
        compare("bare, against itself", bare(trained()))
        compare("Profiler, all phases, samples every 500 ms", profiled(Path(folder), trained()))
        compare("Watches, all, a look every 50 steps", watched(trained()))


def alone(folder: Path) -> None:
    """Print the CPU time that the profiler takes by itself: for steps in which nothing is done, and while none is."""
    with Profiler(folder / "empty") as profiler:
        began = time.process_time()
        for _ in profiler.steps(range(EMPTY_STEPS)):
            for name in ("forward", "backward", "optimizer"):
                with profiler.phase(name):
                    pass
    step_s = (time.process_time() - began) / EMPTY_STEPS  # writing them down included
    with Profiler(folder / "idle"):
        began = time.process_time()
        time.sleep(IDLE_S)
        sampling = (time.process_time() - began) / IDLE_S
    share = step_s / STEP_S + sampling
    print(
        f"  Profiler by itself: {step_s * 1e6:.0f} µs CPU a step, {sampling * 1000:.1f} ms a second of sampling: "
        f"{share:.2%} of a step of {STEP_S * 1000:.0f} ms",
        flush=True,
    )


def trained() -> Trained:
    """Return a model with ReLUs."""
    model = nn.Sequential(*(layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))
    return Trained(model, torch.optim.SGD(model.parameters(), 0.001))


def compare(name: str, ours: Steps) -> None:
    """Print what a step of ours costs over a bare one, by wall time and by the CPU time of all threads."""
    plain = bare(trained())
    for steps in (ours, plain):
        take(steps, TURN)
    pairs = []
    for number in range(STEPS // TURN):
        # Who comes first takes turns, too: what else runs here comes and goes.
        first, second = (ours, plain) if number % 2 else (plain, ours)
        times = {id(first): take(first, TURN), id(second): take(second, TURN)}
        pairs.append((times[id(ours)], times[id(plain)]))
    ours.close()
    wall, process = (statistics.median(mine[index] / theirs[index] - 1 for mine, theirs in pairs) for index in (0, 1))
    step = statistics.median(theirs[0] for _, theirs in pairs) / TURN
    print(f"  {name:<46} step {step * 1000:5.1f} ms   wall {wall:+7.2%}   process CPU {process:+7.2%}", flush=True)


def take(steps: Steps, count: int) -> tuple[float, float]:
    """Do steps, and return their wall time and the CPU time of all this process's threads."""
    wall, process = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(steps)
    return time.perf_counter() - wall, time.process_time() - process


def batches() -> Iterator[torch.Tensor]:
    """Yield batches without end, with hardly a wait."""
    batch = torch.randn(BATCH, WIDTH)
    while True:
        yield batch


def bare(ours: Trained) -> Steps:
    """Train, a step at each `next`."""
    return loop(ours, batches(), lambda _: nullcontext(), lambda _: None)


def profiled(folder: Path, ours: Trained) -> Steps:
    """Train with the profiler around."""
    with Profiler(folder) as profiler:
        yield from loop(ours, profiler.steps(batches()), profiler.phase, lambda _: None)


def watched(ours: Trained) -> Steps:
    """Train with the watches around."""
    with Watches(ours.model) as watches:
        yield from loop(ours, batches(), lambda _: nullcontext(), watches.look)


def loop(
    ours: Trained,
    source: Iterator[torch.Tensor],
    phase: Callable[[str], Any],
    look: Callable[[torch.Tensor], object],
) -> Steps:
    """Train as a script would."""
    for batch in source:
        with phase("forward"):
            loss = ours.model(batch).square().mean()
        with phase("backward"):
            ours.optimizer.zero_grad()
            torch.autograd.backward(loss)
        look(loss)
        with phase("optimizer"):
            ours.optimizer.step()
        yield


if __name__ == "__main__":
    main()
