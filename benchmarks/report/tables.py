"""The page's tables, as Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.serving_suite import cold_load, density, fronts, start_up, zipf
from benchmarks.serving_suite.peer import Way

from .figures import OURS, Row, ratio
from .targets import verdicts

MET = {True: "met", False: "**not met**", None: "not measured"}
KIB, GIB = 1 << 10, 1 << 30


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers to the right."""
    rows = [[str(cell) for cell in line] for line in lines]
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)) + "\n"


def number(value: float | None, form: str = "{:,.0f}") -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else form.format(value)


def of_targets(rows: Mapping[str, Row]) -> str:
    """Return all targets and how they stand."""
    lines = [(found.what, found.target, found.measured, MET[found.is_met]) for found in verdicts(rows)]
    return table(("what", "target", "measured", ""), lines)


def of_throughput(row: Row) -> str:
    """Return requests/s and latencies of all, by clients, and how many times theirs ours are."""
    clients = row.settings["clients"]
    blocks = []
    for count in clients:
        lines = []
        ours = row.median(OURS, count, "rps")
        for who in row.names:
            rate = row.median(who, count, "rps")
            times = "" if who == OURS else number(ratio(ours, rate), "{:.2f} x")
            p50, p99 = (number(row.median(who, count, key), "{:,.2f}") for key in ("p50_ms", "p99_ms"))
            errors = number(sum(one["errors"] for one in row.rounds(who, count)))
            lines.append((who, number(rate, "{:,.1f}" if rate and rate < 100 else "{:,.0f}"), times, p50, p99, errors))
        head = (f"{count} client{'s' * (count > 1)}", "requests/s", "ours to it", "p50 ms", "p99 ms", "errors")
        blocks.append(table(head, lines))
    return "\n".join([*blocks, of_ways(row)])


def of_ways(row: Row) -> str:
    """Return how each was run, what was tried for that, on what, and who failed."""
    lines = []
    for who, notes in row.notes.items():
        tried = ", ".join(f"{_way(one)}: {one['rps']:,.0f}" for one in notes.get("tried", []))
        versions = ", ".join(f"{name} {version}" for name, version in notes.get("versions", {}).items())
        failed = f"failed: `{notes['failed']}`" if "failed" in notes else ""
        if tried or versions or failed:
            best = Way(**notes["best"]) if "best" in notes else "-"
            lines.append((who, best, tried or "-", versions or "-", failed))
    return table(("", "run with", "requests/s when tried", "versions", ""), lines)


def _way(tried: Mapping[str, int]) -> Way:
    return Way(tried["workers"], tried["batch"])


def of_load(row: Row) -> str:
    """Return first and second loads."""
    lines = []
    for who in row.names:
        cuts = [
            number(found, "{:,.1f}")
            for what in (cold_load.FIRST, cold_load.SECOND)
            for found in (row.median(who, what), row.tail(who, what))
        ]
        lines.append((who, number(len(row.rounds(who, cold_load.FIRST))), *cuts))
    return table(("", "models", "first load p50 ms", "p99 ms", "second load p50 ms", "p99 ms"), lines)


def of_density(row: Row) -> str:
    """Return what models cost in memory and time."""
    lines = []
    for who, label in ((density.OURS, density.MODELS), (density.OURS, density.LIMITED), (density.PEER, density.FEW)):
        count = row.median(who, label, "count")
        private, front = (row.median(who, label, "bytes_per_model", key) for key in ("private", "private_of_first"))
        total = row.median(who, label, "memory_bytes", "proportional")
        lines.append(
            (
                f"{who}, {number(count)} models",
                number(None if private is None else private / 1e6, "{:.3f}"),
                number(None if front is None or who != density.OURS else front / KIB, "{:.1f}"),
                number(None if total is None else total / GIB, "{:.2f}"),
                number(row.median(who, label, "all_s"), "{:.1f}"),
                number(row.median(who, label, "first_answer_ms", "p50"), "{:,.1f}"),
                number(row.median(who, label, "first_answer_ms", "p99"), "{:,.1f}"),
            )
        )
    head = ("", "MB private per model", "KiB of it in the front", "GiB in all", "s to load all")
    return table((*head, "load to answer p50 ms", "p99 ms"), lines)


def of_start(row: Row) -> str:
    """Return how long starts take."""
    lines = [
        (who, *(number(row.median(who, what), "{:.2f}") for what in (start_up.PING, start_up.ANSWER)))
        for who in row.names
    ]
    return table(("", start_up.PING, start_up.ANSWER), lines)


def of_fronts(row: Row) -> str:
    """Return requests/s with more and more fronts, and what a request costs each kind of process."""
    lines = []
    for who in row.names:
        keys = ("rps", "p50_ms", "p99_ms", *(f"{role} us" for role in fronts.ROLES))
        rate, p50, p99, *costs = (row.median(who, fronts.CLIENTS, key) for key in keys)
        times = [number(found, "{:.2f}") for found in (p50, p99)]
        lines.append((who, number(rate), *times, *(number(cost or None, "{:.1f}") for cost in costs)))
    return table(("", "requests/s", "p50 ms", "p99 ms", *(f"µs of {role}" for role in fronts.ROLES)), lines)


def of_zipf(row: Row) -> str:
    """Return how the two orders of eviction do."""
    lines = []
    for who in row.names:
        figures = {
            key: row.median(who, zipf.CELL, key)
            for key in ("hit_rate", "rps", "p50_ms", "p99_ms", "ready", "memory_bytes")
        }
        share = number(None if figures["hit_rate"] is None else figures["hit_rate"] * 100, "{:.1f} %")
        memory = number(None if figures["memory_bytes"] is None else figures["memory_bytes"] / 1e6)
        times = (number(figures[key], "{:,.2f}") for key in ("p50_ms", "p99_ms"))
        errors = sum(one["errors"] for one in row.rounds(who, zipf.CELL))
        lines.append(
            (f"`--evict {who}`", share, number(figures["rps"]), *times, number(figures["ready"]), memory, errors)
        )
    head = ("", "find their model", "requests/s", "p50 ms", "p99 ms", "models held", "MB in all", "errors")
    return table(head, lines)


def of_machines(rows: Mapping[str, Row]) -> str:
    """Return what rows were measured on, and how."""
    lines = []
    for name, row in rows.items():
        on, how = row.machine, row.settings
        seconds = f"{how['rounds']} x {how['seconds']:g} s" if how["seconds"] else f"{how['rounds']}"
        memory, python = f"{on['memory_gib']} GiB", f"Python {on['python']}, Linux {on['kernel']}"
        lines.append((name, on["date"], on["processor"], on["cores"], memory, python, seconds))
    return table(("row", "date", "processor", "cores", "memory", "", "rounds"), lines)


TABLES: dict[str, Callable[[Row], str]] = {
    "tiny": of_throughput,
    "minilm": of_throughput,
    "resnet": of_throughput,
    "start": of_start,
    "load": of_load,
    "density": of_density,
    "fronts": of_fronts,
    "zipf": of_zipf,
}
