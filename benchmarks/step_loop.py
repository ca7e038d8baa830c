"""The script that both launchers run: N steps of a small model, with or without our library around the loop.

`python step_loop.py --steps 300 --library 1` prints when the first step began, and the median step.
"""

import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH, WIDTH = 32, 256


def loop(model: nn.Module, steps: int, after_step: object = None) -> list[float]:
    """Return how long each step took."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    inputs = torch.randn(BATCH, WIDTH)
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        loss = model(inputs).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if callable(after_step):
            after_step()
        taken.append(time.perf_counter() - started)
    return taken


def network() -> nn.Module:
    """Return what is trained: about a millisecond a step."""
    return nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))


def main() -> None:
    """Run the loop as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--library", type=int, default=0)
    parser.add_argument("--begun", type=float, default=0.0, help="when the launcher was started, by time.time()")
    arguments = parser.parse_args()
    if arguments.library:
        from mooring.training import StopRequest, prepare, process_group

        with process_group() as group, StopRequest() as stop:
            taken = loop(prepare(network(), group, torch.randn(BATCH, WIDTH)), arguments.steps, stop.agreed)
            tell(arguments.begun, taken)
        return
    dist.init_process_group("gloo")
    taken = loop(DistributedDataParallel(network()), arguments.steps)
    tell(arguments.begun, taken)
    dist.destroy_process_group()


def tell(start: float, taken: list[float]) -> None:
    """Print the figures of the first rank."""
    if os.environ.get("RANK", "0") == "0":
        first = time.time() - sum(taken) - start
        print(f"RESULT {first:.3f} {statistics.median(taken[10:]) * 1000:.4f}", flush=True)


if __name__ == "__main__":
    main()
