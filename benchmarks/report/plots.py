"""The page's pictures, as SVG on white."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.serving_suite import cold_load, density

from .figures import OURS, Row

OURS_COLOR, OTHERS_COLOR, TEXT_COLOR = "#0b6e99", "#b8c4cc", "#333333"
NO_DATE = {"Date": None}


def write(rows: Mapping[str, Row], folder: Path) -> list[str]:
    """Write the pictures that there are results for; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    if "tiny" in rows:
        made["tiny"] = throughput(rows["tiny"], "Requests a second, tiny model", "requests/s")
        made["tails"] = tails(rows["tiny"])
    if "minilm" in rows:
        made["minilm"] = throughput(rows["minilm"], "Requests a second, MiniLM", "requests/s")
    if "load" in rows and "density" in rows:
        made["models"] = models(rows["load"], rows["density"])
    for name, figure in made.items():
        figure.savefig(folder / f"{name}.svg", metadata=NO_DATE, facecolor="white", bbox_inches="tight")
    return list(made)


def throughput(row: Row, title: str, unit: str) -> Figure:
    """Return bars of requests/s, a panel for each number of clients."""
    return _panels(row, title, unit, "rps", is_log=False)


def tails(row: Row) -> Figure:
    """Return bars of the 99th percentile: shorter is better."""
    return _panels(row, "99th percentile, tiny model (shorter is better)", "ms", "p99_ms", is_log=True)


def _panels(row: Row, title: str, unit: str, key: str, *, is_log: bool) -> Figure:
    clients = row.settings["clients"]
    figure = Figure(figsize=(10, 0.32 * len(row.names) + 1.2), layout="constrained")
    figure.suptitle(title, color=TEXT_COLOR)
    axes = figure.subplots(1, len(clients), sharey=True, squeeze=False)[0]
    names = list(reversed(row.names))
    for axis, count in zip(axes, clients, strict=True):
        values = [row.median(name, count, key) or 0.0 for name in names]
        colors = [OURS_COLOR if name == OURS else OTHERS_COLOR for name in names]
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, [_label(value) for value in values], fontsize=8)
        axis.set_title(f"{count} client{'s' * (count > 1)}", fontsize=9)
        if is_log:
            axis.set_xscale("log")
        _finish(axis, unit)
    return figure


def models(load: Row, dense: Row) -> Figure:
    """Return what a model costs: milliseconds to its first answer, and memory. Both scales are logarithmic."""
    figure = Figure(figsize=(10, 2.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    times = {name: load.median(name, cold_load.FIRST) for name in reversed(load.names)}
    memory = {
        f"{who}, {label}": dense.median(who, label, "bytes_per_model", "private")
        for who, label in ((density.PEER, density.FEW), (density.OURS, density.LIMITED), (density.OURS, density.MODELS))
    }
    _log_bars(left, {name: value for name, value in times.items() if value}, "load to first answer, ms")
    _log_bars(right, {name: value / 1e6 for name, value in memory.items() if value}, "private memory per model, MB")
    return figure


def _log_bars(axis: Axes, values: Mapping[str, float], label: str) -> None:
    colors = [OURS_COLOR if name.startswith(OURS) else OTHERS_COLOR for name in values]
    bars = axis.barh(list(values), list(values.values()), color=colors)
    axis.bar_label(bars, [_label(value) for value in values.values()], fontsize=8)
    axis.set_xscale("log")
    _finish(axis, label)


def _finish(axis: Axes, label: str) -> None:
    axis.margins(x=0.25)
    axis.set_xlabel(label, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _label(value: float) -> str:
    """Return a value with three digits, or all before the point if there are more."""
    return f" {value:,.0f}" if value >= 100 else f" {value:.3g}"
