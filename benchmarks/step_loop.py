"""The script that all launchers run: steps of a small model, bare or in turns with our library around them.

`python step_loop.py --steps 400 --library 1` prints when the first step began, the median step, and the ratio of steps
with our library to steps without, taken in turns in the same processes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH, WIDTH = 32, 256
TURN = 20


class Loop:
    """One model and its optimizer."""

    def __init__(self, model: nn.Module, after_step: Callable[[], object]) -> None:
        self._model = model
        self._after_step = after_step
        self._optimizer = torch.optim.SGD(model.parameters(), 0.01)
        self._inputs = torch.randn(BATCH, WIDTH)

    def run(self, steps: int) -> list[float]:
        """Return how long each step took, in seconds."""
        taken = []
        for _ in range(steps):
            started = time.perf_counter()
            loss = self._model(self._inputs).square().mean()
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            self._after_step()
            taken.append(time.perf_counter() - started)
        return taken


def network() -> nn.Module:
    """Return what is trained: a few milliseconds a step."""
    return nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))


def main() -> None:
    """Run the loop as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--library", type=int, default=0)
    parser.add_argument("--begun", type=float, default=0.0, help="when the launcher was started, by time.time()")
    arguments = parser.parse_args()
    if arguments.library:
        with_library(arguments.steps, arguments.begun)
        return
    dist.init_process_group("gloo")
    bare = Loop(DistributedDataParallel(network()), lambda: None)
    first = time.time() - arguments.begun
    tell(first, bare.run(arguments.steps), 1.0)
    dist.destroy_process_group()


def with_library(steps: int, begun: float) -> None:
    """Take turns of steps with our library and without."""
    from mooring.training import StopRequest, prepare, process_group

    with process_group() as group, StopRequest() as stop:
        ours = Loop(prepare(network(), group, torch.randn(BATCH, WIDTH)), stop.agreed)
        first = time.time() - begun
        ours.run(TURN)
        bare = Loop(DistributedDataParallel(network()), lambda: None)
        bare.run(TURN)
        turns = [(ours.run(TURN), bare.run(TURN)) for _ in range(steps // TURN)]
        ratio = statistics.median(sum(with_it) / sum(without) for with_it, without in turns)
        tell(first, [step for turn, _ in turns for step in turn], ratio)


def tell(first: float, taken: list[float], ratio: float) -> None:
    """Print the figures of the first rank."""
    if os.environ.get("RANK", "0") == "0":
        print(f"RESULT {first:.3f} {statistics.median(taken[10:]) * 1000:.4f} {ratio:.4f}", flush=True)


if __name__ == "__main__":
    main()
