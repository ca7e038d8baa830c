"""Plots as SVG, drawn here so that a report needs nothing else: lines over time, and stacks of parts.

A drawing is stretched to the width there is, so its letters stand beside it, as HTML.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from mooring.training.data.progress import time_text

WIDTH, HEIGHT = 1000, 100
# A line is broken where nothing was sampled for so many times the usual distance.
GAP = 5.0
COLOURS = 8


@dataclass(frozen=True)
class Line:
    """A curve: its name, the number of its colour, and its points by time."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]
    is_dashed: bool = False


def line_plot(
    lines: Sequence[Line], span: tuple[float, float], top: float, labels: Sequence[str], kind: str = ""
) -> str:
    """Return curves between 0 and `top`; `labels` stand at its left, from top to bottom."""
    paths = "".join(_drawn(line, span, top) for line in lines if line.points)
    return _plot(_grid(len(labels)) + paths, span, labels, kind, ", ".join(line.name for line in lines))


def _drawn(line: Line, span: tuple[float, float], top: float) -> str:
    kind = "dashed" if line.is_dashed else "solid"
    return f'<path class="{kind}" style="--tone:var(--c{line.colour})" d="{_path(line.points, span, top)}"/>'


def _path(points: Sequence[tuple[float, float]], span: tuple[float, float], top: float) -> str:
    points = thinned(points)
    distances = sorted(later[0] - earlier[0] for earlier, later in pairwise(points))
    usual = distances[len(distances) // 2] if distances else 0.0
    parts = []
    before: float | None = None
    for at, value in points:
        is_new = before is None or at - before > GAP * usual
        parts.append(f"{'M' if is_new else 'L'}{_x(at, span):.1f} {_y(value, top):.2f}")
        before = at
    if len(points) == 1:
        parts.append("h4")
    return "".join(parts)


def thinned(points: Sequence[tuple[float, float]], most: int = WIDTH // 2) -> list[tuple[float, float]]:
    """Return at most so many points: of each few, the one in the middle of time with their highest value."""
    size = -(-len(points) // most)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(group[len(group) // 2][0], max(value for _, value in group)) for group in groups]


def stack_plot(
    bins: Iterable[tuple[float, float, Mapping[str, float]]],
    colours: Mapping[str, int],
    span: tuple[float, float],
    top: float,
    labels: Sequence[str],
) -> str:
    """Return columns of stacked parts, each from one time to another."""
    columns = []
    for begin, end, parts in bins:
        base = 0.0
        x, width = _x(begin, span), max(_x(end, span) - _x(begin, span), 0.5)
        for name in (name for name in colours if parts.get(name)):
            height = min(parts[name], max(0.0, top - base)) / top * HEIGHT
            y = HEIGHT - base / top * HEIGHT - height
            tone = f"--tone:var(--c{colours[name]})"
            columns.append(f'<rect style="{tone}" x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{height:.2f}"/>')
            base += parts[name]
    return _plot(_grid(len(labels)) + "".join(columns), span, labels, "", ", ".join(colours))


def _plot(content: str, span: tuple[float, float], labels: Sequence[str], kind: str, title: str) -> str:
    beside = "".join(f"<span>{escape(label)}</span>" for label in labels)
    length = span[1] - span[0]
    below = "".join(f"<span>{duration(length * share)}</span>" for share in (0, 0.5, 1))
    return (
        f'<div class="plot"><div class="axis">{beside}</div>'
        f'<svg class="{kind}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{content}</svg><div class="times">{below}</div></div>'
    )


def _grid(count: int) -> str:
    heights = [HEIGHT * index / (count - 1) for index in range(1, count - 1)]
    return "".join(f'<line x1="0" x2="{WIDTH}" y1="{y:g}" y2="{y:g}"/>' for y in heights)


def _x(at: float, span: tuple[float, float]) -> float:
    return (at - span[0]) / (span[1] - span[0]) * WIDTH


def _y(value: float, top: float) -> float:
    return HEIGHT - min(max(value, 0.0), top) / top * HEIGHT


def stack_bar(parts: Mapping[str, float], colours: Mapping[str, int], whole: float, kind: str = "") -> str:
    """Return parts side by side, as shares of `whole`."""
    cells = "".join(
        f'<i style="--tone:var(--c{colours[name]});width:{100 * parts[name] / whole:.2f}%"></i>'
        for name in colours
        if parts.get(name) and whole
    )
    return f'<div class="bar {kind}">{cells}</div>'


def legend(entries: Iterable[tuple[str, int, str]]) -> str:
    """Return what the colours mean: names, colours, and what is to be said of each."""
    items = "".join(
        f'<li><span class="swatch" style="--tone:var(--c{colour})"></span>{escape(name)} <b>{escape(text)}</b></li>'
        for name, colour, text in entries
    )
    return f'<ul class="legend">{items}</ul>'


def duration(seconds: float) -> str:
    """Say a stretch of time.

    >>> duration(0), duration(42.4), duration(75), duration(3 * 3600 + 60)
    ('0 s', '42.4 s', '1 min 15 s', '3 h 1 min')
    """
    return f"{seconds:.3g} s" if seconds < 60 else time_text(seconds)


def nice_top(value: float) -> float:
    """Return a round number that is no less.

    >>> nice_top(0.043), nice_top(7.2), nice_top(0)
    (0.05, 10.0, 1.0)
    """
    if value <= 0:
        return 1.0
    power = 1e-12
    while True:
        for step in (1, 2, 5):
            if step * power >= value * 0.9999:
                return round(step * power, 12)
        power *= 10
