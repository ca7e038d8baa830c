"""The targets that concern serving, each with what was measured and whether it is met."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.serving_suite import cold_load, density, fronts, start_up

from .figures import OURS, Row, ratio

RAW, BATCHING = "raw loop", "batching loop"
MANY, SOME, ONE = 64, 16, 1
# How many times as many requests/s as each.
TIMES_AT_MANY = {
    RAW: 3.5,
    BATCHING: 2.5,
    "multi-model-server": 12,
    "FastAPI": 10,
    "LitServe": 25,
    "BentoML": 25,
    "TorchServe": 25,
    "MLServer": 50,
}
MODEL_NAMES = {"minilm": "MiniLM", "resnet": "ResNet-18"}
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """A target, and how it stands. `is_met` is None where nothing was measured."""

    what: str
    target: str
    measured: str
    is_met: bool | None


def verdicts(rows: Mapping[str, Row]) -> Iterator[Verdict]:
    """Yield all targets in the order of the design."""
    for name, judge in JUDGES.items():
        if name in rows:
            yield from judge(rows[name])


def _at_least(what: str, target: float, measured: float | None, shown: str) -> Verdict:
    if measured is None:
        return Verdict(what, f"≥ {shown.format(target)}", NOT_MEASURED, None)
    return Verdict(what, f"≥ {shown.format(target)}", shown.format(measured), measured >= target)


def _at_most(what: str, target: float, measured: float | None, shown: str) -> Verdict:
    if measured is None:
        return Verdict(what, f"≤ {shown.format(target)}", NOT_MEASURED, None)
    return Verdict(what, f"≤ {shown.format(target)}", shown.format(measured), measured <= target)


def _tiny(row: Row) -> Iterator[Verdict]:
    def times(other: str, clients: int) -> float | None:
        return ratio(row.median(OURS, clients, "rps"), row.median(other, clients, "rps"))

    for other, target in TIMES_AT_MANY.items():
        what = f"requests/s, tiny model, {MANY} clients, against {other}"
        yield _at_least(what, target, times(other, MANY), "{:.1f} x")
    yield _at_least(f"the same, {SOME} clients, against {RAW}", 2.2, times(RAW, SOME), "{:.1f} x")
    for clients, key in ((SOME, "p99_ms"), (ONE, "p50_ms")):
        ours, others = row.median(OURS, clients, key), row.median(RAW, clients, key)
        what = f"{key[:3]}, {clients} client{'s' * (clients > 1)}"
        if ours is None or others is None:
            yield Verdict(what, f"no higher than the {RAW}'s", NOT_MEASURED, None)
        else:
            yield Verdict(what, f"≤ {others:.2f} ms, the {RAW}'s", f"{ours:.2f} ms", ours <= others)


def _hard(name: str) -> Callable[[Row], Iterator[Verdict]]:
    def judge(row: Row) -> Iterator[Verdict]:
        for clients in row.settings["clients"]:
            share = ratio(row.median(OURS, clients, "rps"), row.median("bare loop", clients, "rps"))
            percent = None if share is None else share * 100
            what = f"{MODEL_NAMES[name]}, {clients} client{'s' * (clients > 1)}, of a bare onnxruntime loop"
            yield _at_least(what, 95, percent, "{:.0f} %")

    return judge


def _load(row: Row) -> Iterator[Verdict]:
    peer = row.median(cold_load.PEER, cold_load.FIRST)
    for who in (cold_load.LOADED, cold_load.ON_REQUEST):
        ours = row.median(who, cold_load.FIRST)
        what = f"load to first answer, {who.partition(', ')[2]}, p50"
        yield _at_most(what, 5, ours, "{:.1f} ms")
        yield _at_least("the same, multi-model-server's to it", 40, ratio(peer, ours), "{:.0f} x")


def _density(row: Row) -> Iterator[Verdict]:
    count = f"{_count(row, density.MODELS) or 1000:,.0f}"
    ours = row.median(density.OURS, density.MODELS, "bytes_per_model", "private")
    peer = row.median(density.PEER, density.FEW, "bytes_per_model", "private")
    megabytes = None if ours is None else ours / 1e6
    yield _at_most(f"private memory per small model at {count} models", 0.4, megabytes, "{:.2f} MB")
    yield _at_least("the same, multi-model-server's to it", 80, ratio(peer, ours), "{:.0f} x")
    yield _fits(row)
    after = row.median(density.OURS, density.MODELS, "after_rounds")
    percent = None if after is None else (after - 1) * 100
    yield _at_most(f"memory after {density.ROUNDS} load/unload rounds, more than before", 3, percent, "{:.1f} %")


def _count(row: Row, label: str) -> float | None:
    return row.median(density.OURS, label, "count")


def _fits(row: Row) -> Verdict:
    what, target = "10,000 models in one server", "≤ 6 GiB"
    rounds = row.rounds(density.OURS, density.LIMITED)
    if not rounds:
        return Verdict(what, target, NOT_MEASURED, None)
    (found,) = rounds
    used = found["peak_bytes"] or found["memory_bytes"]["proportional"]
    shown = f"{found['ready']:,.0f} of {found['count']:,} in {used / (1 << 30):.2f} GiB"
    is_met = found["count"] >= density.COUNTS[density.LIMITED] and found["ready"] == found["count"]
    return Verdict(what, target, shown, is_met and used <= density.LIMIT_BYTES)


def _fronts(row: Row) -> Iterator[Verdict]:
    cores = row.machine["cores"]
    what = f"requests/s with `--fronts` on {max(cores, fronts.LEAST_CORES)} cores, of linear from {fronts.FEW_CORES}"
    few = row.median(fronts.ON_FEW, fronts.CLIENTS, "rps")
    best = max(row.median(who, fronts.CLIENTS, "rps") or 0.0 for who in row.names if who != fronts.ON_FEW)
    linear = None if few is None else few * cores / fronts.FEW_CORES
    if linear is None:
        yield Verdict(what, "≥ 0.7 x", f"needs {fronts.LEAST_CORES} cores", None)
    else:
        yield _at_least(what, 0.7, ratio(best, linear), "{:.2f} x")


def _start(row: Row) -> Iterator[Verdict]:
    ours = row.median(OURS, start_up.PING)
    yield _at_most("start to first healthy `/ping`, without torch", 1.5, ours, "{:.2f} s")


JUDGES: dict[str, Callable[[Row], Iterator[Verdict]]] = {
    "tiny": _tiny,
    "minilm": _hard("minilm"),
    "resnet": _hard("resnet"),
    "load": _load,
    "density": _density,
    "start": _start,
    "fronts": _fronts,
}
