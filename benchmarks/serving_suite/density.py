"""Many small models in one server: time, memory of each, and memory after loading and unloading."""

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.memory_limits import VERSION_1, VERSION_2, can_limit_memory, memory_limit
from examples.serving.many_models.fleet import write_fleet

from .calls import READY, invoke, metric, register, unload
from .client import Client, milliseconds
from .own import Listening, Memory, memory, mooring, multi_model_server
from .plan import Plan
from .progress import Progress
from .record import Row
from .throughput import noting_failures

OURS, PEER = "Mooring", "multi-model-server"
MODELS, LIMITED, FEW = "1,000 models", "10,000 models", "20 models"
COUNTS = {MODELS: 1000, LIMITED: 10_000, FEW: 20}
QUICK_COUNTS = {MODELS: 200, LIMITED: 1000, FEW: 3}
LIMIT_BYTES = 6 << 30
ROUNDS = 50
MODEL_S = 0.006
PEERS_MODEL_S = 1.2


class Density:
    """Models of 2 KB, each with weights of its own, loaded by their first requests."""

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""
        counts = _counts(plan)
        ours = counts[MODELS] * plan.rounds + counts[LIMITED] * 2
        return ours * MODEL_S + counts[FEW] * PEERS_MODEL_S + 10

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells: who -> how many -> facts a round."""
        counts = _counts(plan)
        fleets = {label: folder / str(count) for label, count in counts.items()}
        names = {label: write_fleet(fleets[label], count) for label, count in counts.items()}
        for number in range(len(row.cell(OURS, MODELS)), plan.rounds):
            row.add(OURS, MODELS, _ours(fleets[MODELS], names[MODELS], 0))
            progress.say(
                f"{counts[MODELS]:,} models, round {number + 1} of {plan.rounds}", (number + 1) / plan.rounds / 2
            )
        if not row.cell(OURS, LIMITED):
            row.add(OURS, LIMITED, _ours(fleets[LIMITED], names[LIMITED], LIMIT_BYTES))
            progress.say(f"{counts[LIMITED]:,} models", 0.8)
        if plan.takes(PEER) and not row.cell(PEER, FEW):
            with noting_failures(PEER, row, progress):
                row.add(PEER, FEW, _peers({name: fleets[FEW] / name / "model.onnx" for name in names[FEW]}))


def _counts(plan: Plan) -> dict[str, int]:
    return QUICK_COUNTS if plan.is_quick else COUNTS


def _ours(folder: Path, names: Sequence[str], limit_bytes: int) -> dict[str, Any]:
    """Return the facts of a server that has answered for every model, under a limit if there is to be one."""
    with ExitStack() as stack:
        is_limited = bool(limit_bytes) and can_limit_memory()
        before = stack.enter_context(memory_limit(limit_bytes)) if is_limited else ()
        budget = ("--budget-bytes", str(limit_bytes)) if limit_bytes and not is_limited else ()
        server = stack.enter_context(mooring("--repository", str(folder), *budget, before=before))
        client = stack.enter_context(server.client())
        invoke(client, names[0])  # the host's own start is not a model's
        empty = memory(server)
        started = time.perf_counter()
        firsts = [milliseconds(lambda name=name: invoke(client, name)) for name in names[1:]]  # type: ignore[misc]
        elapsed = time.perf_counter() - started
        full = memory(server)
        seconds = [milliseconds(lambda name=name: invoke(client, name)) for name in names]  # type: ignore[misc]
        facts = {
            "count": len(names),
            "ready": metric(client, READY),
            "all_s": elapsed,
            "first_answer_ms": _cuts(firsts),
            "second_answer_ms": _cuts(seconds),
            "limit_bytes": limit_bytes,
            "is_limited_by_kernel": is_limited,
            "peak_bytes": _peak_bytes(server) if is_limited else None,
        }
        return facts | _growth(empty, full, len(names) - 1) | {"after_rounds": _after_rounds(client, server, names[0])}


def _peers(files: dict[str, Path]) -> dict[str, Any]:
    """Return the facts of multi-model-server with models of one worker each."""
    with multi_model_server(files) as server, server.client() as client:
        first, *others = files
        register(client, first)
        empty = memory(server)
        firsts = [milliseconds(lambda name=name: register(client, name)) for name in others]  # type: ignore[misc]
        full = memory(server)
        facts = {"count": len(files), "first_answer_ms": _cuts(firsts), "all_s": sum(firsts) / 1e3}
        return facts | _growth(empty, full, len(others))


def _growth(empty: Memory, full: Memory, count: int) -> dict[str, Any]:
    """Return what each model added."""
    added = {name: (value - getattr(empty, name)) / count for name, value in asdict(full).items()}
    return {"memory_bytes": asdict(full), "bytes_per_model": added}


def _cuts(values: Sequence[float]) -> dict[str, float]:
    return {"p50": statistics.median(values), "p99": sorted(values)[int(len(values) * 0.99)]}


def _after_rounds(client: Client, server: Listening, name: str) -> float:
    """Return memory after many rounds of unloading and loading one model, as a multiple of memory before."""
    before = memory(server)
    for _ in range(ROUNDS):
        unload(client, name)
        invoke(client, name)
    return memory(server).proportional / before.proportional


def _peak_bytes(server: Listening) -> int | None:
    """Return the most that the kernel ever charged to the server's group, files it has read included."""
    for line in Path(f"/proc/{server.group.process.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        roots = {"memory": VERSION_1 / path[1:] / "memory.max_usage_in_bytes", "": VERSION_2 / path[1:] / "memory.peak"}
        with suppress(KeyError, FileNotFoundError, NotADirectoryError):
            return int(roots[controllers].read_text())
    return None
