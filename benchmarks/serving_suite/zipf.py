"""Four times as many models as fit, some asked far more than others: our order of eviction against plain LRU."""

import mmap
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.eviction import zipf
from benchmarks.memory_limits import can_limit_memory, memory_limit
from mooring.serving.settings import RESERVE_BYTES

from .calls import BUDGET, HELD, LOADS, READY, metric
from .client import Client, RefusedError, milliseconds
from .own import Listening, memory, mooring
from .plan import Plan
from .progress import Progress
from .record import Row

POLICIES = ("reuse", "lru")
CELL = "Zipf 1"
MIB = 1 << 20
WIDTH = 512
MODELS = 400
FACTOR = 4
# What one such model holds once it has answered: its weights, packed anew by onnxruntime, and its session.
HELD_BYTES = int(2.3 * MIB)
CLIENTS = 4
REQUESTS = 3000  # a round
QUICK_REQUESTS = 400
QUERY = [[1.0] * WIDTH]
ROUND_S = 5.0
WRITE_S = 15.0


class Zipf:
    """Two servers that get the same requests under the same limit."""

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""
        return WRITE_S + (plan.rounds + 1) * len(POLICIES) * ROUND_S * (0.2 if plan.is_quick else 1)

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells: policy -> `CELL` -> facts a round. The first, in which memory fills, is left out."""
        names = [write_matrix(folder / f"m{number:03}", number) for number in range(MODELS)]
        count = QUICK_REQUESTS if plan.is_quick else REQUESTS
        asked = [names[rank] for rank in zipf(MODELS, count * (plan.rounds + 1), 1.0, random.Random(1))]
        with ExitStack() as stack:
            taking = {policy: stack.enter_context(_limited(folder, policy)) for policy in POLICIES}
            for number in range(plan.rounds + 1):
                for policy, server in taking.items():
                    facts = _asked(server, asked[number * count : (number + 1) * count])
                    if number:
                        row.add(policy, CELL, facts)
                    found = f"{policy}: {facts['hit_rate']:.1%} of requests find their model"
                    progress.say(f"round {number} of {plan.rounds}, {found}", (number + 1) / (plan.rounds + 1))


def write_matrix(folder: Path, seed: int) -> str:
    """Write a model of one matrix, a MiB large, and return its name."""
    folder.mkdir()
    values = (np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "matrix", ends[:1], ends[1:], [numpy_helper.from_array(values, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder.name


@contextmanager
def _limited(folder: Path, policy: str) -> Iterator[Listening]:
    """Run a server in which a quarter of the models fit: in a group of that size, or told so."""
    budget = HELD_BYTES * MODELS // FACTOR
    with ExitStack() as stack:
        told: tuple[str, ...] = ("--budget-bytes", str(budget))
        before: list[str] = []
        if can_limit_memory():
            # Of two sizes, since a group is named by its size.
            told, size = (), RESERVE_BYTES + budget + POLICIES.index(policy) * mmap.PAGESIZE
            before = stack.enter_context(memory_limit(size))
        yield stack.enter_context(mooring("--repository", str(folder), "--evict", policy, *told, before=before))


def _asked(server: Listening, names: Sequence[str]) -> dict[str, Any]:
    """Send requests for models in this order, by several clients; returns how it went."""
    left = iter(names)
    taken: list[float] = []
    refused: list[str] = []

    def ask_on() -> None:
        client = Client(server.port)
        while (name := next(left, None)) is not None:
            try:
                taken.append(milliseconds(lambda name=name: client.post(f"/models/{name}/invoke", QUERY)))  # type: ignore[misc]
            except RefusedError as error:
                refused.append(str(error))
        client.close()

    with server.client() as watching:
        loads = metric(watching, LOADS)
        started = time.perf_counter()
        threads = [threading.Thread(target=ask_on) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - started
        p50, p99 = np.percentile(taken, (50, 99))
        return {
            "hit_rate": 1 - (metric(watching, LOADS) - loads) / len(taken),
            "rps": len(taken) / elapsed,
            "errors": len(refused),
            "first_error": refused[0] if refused else None,
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "ready": metric(watching, READY),
            "budget_bytes": metric(watching, BUDGET),
            "held_bytes": metric(watching, HELD),
            "memory_bytes": memory(server).proportional,
        }
