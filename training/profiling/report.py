"""The report of a profile: one HTML file that needs no script, no font and no network. Standard library only."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from statistics import fmean

from mooring.artifact.publish import publish_file

from .charts import COLOURS, Line, duration, legend, line_plot, nice_top, stack_bar, stack_plot
from .steps import DATA, OTHER
from .summary import (
    RANK_FILES,
    HostSample,
    Profile,
    ProfileMissingError,
    RankProfile,
    Stretch,
    mean_phases,
    read_profile,
)
from .verdict import judge, percent

REPORT = "report.html"
# What the launcher reads in a second or two, when a job has ended and little of its grace is left.
MOST_BYTES = 64 << 20
BINS = 80
SLOWEST_SHOWN = 10
RANKS_SHOWN = 64
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
GPU_COLOURS = (5, 3, 4, 6)  # beyond which they are not told apart
FLOWS = {"disk": ("read", "written"), "network": ("in", "out")}


def write_report(folder: Path) -> Path:
    """Make the report of the profile in a folder, and put it there. Raises `ProfileMissingError`, `OSError`."""
    content = report_html(read_profile(folder))
    file = folder / REPORT
    with publish_file(file) as beside:
        beside.write_text(content, encoding="utf-8")
    return file


def finish_report(folder: Path) -> Path | None:
    """Make the report that a run did not come to make, or made before all its ranks had ended; None if all is done.

    Raises `OSError`. A profile that takes long to read is left to `mooring profile`.
    """
    files = list(folder.glob(RANK_FILES))
    report = folder / REPORT
    if not files or sum(file.stat().st_size for file in files) > MOST_BYTES:
        return None
    if report.exists() and report.stat().st_mtime_ns >= max(file.stat().st_mtime_ns for file in files):
        return None
    with suppress(ProfileMissingError):
        return write_report(folder)
    return None


def report_html(profile: Profile) -> str:
    """Return the report as a document."""
    colours = _colours(profile)
    parts = [_head(profile), _verdict(profile), _facts(profile)]
    if colours:
        parts += [_breakdown(profile, colours), _over_time(profile, colours)]
    parts += [_utilisation(profile)]
    if colours:
        parts += [_slowest(profile, colours), _ranks(profile, colours)]
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    title = escape(str(profile.ranks[0].facts.get("job", "training job")))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>Profile of {title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _colours(profile: Profile) -> dict[str, int]:
    """Return a colour for each phase: data and "other" have their own, the last one is for all that are too many."""
    names = [name for name in profile.phases() if name not in (DATA, OTHER)]
    colours = {DATA: 0} if DATA in profile.phases() else {}
    colours |= {name: min(index + 1, COLOURS - 2) for index, name in enumerate(names)}
    return colours | ({OTHER: COLOURS - 1} if OTHER in profile.phases() else {})


# --- the top ----------------------------------------------------------------------------------------------------------


def _head(profile: Profile) -> str:
    facts = profile.ranks[0].facts
    hosts = sorted({str(rank.facts.get("host")) for rank in profile.ranks})
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(profile.began))
    where = f"{began}, on {', '.join(hosts)}"
    return f'<header><h1>{escape(str(facts.get("job")))}</h1><p class="quiet">{escape(where)}</p></header>'


def _verdict(profile: Profile) -> str:
    verdict = judge(profile)
    notes = "".join(f"<li>{escape(note)}</li>" for note in verdict.notes)
    return (
        f'<section class="verdict"><p>{escape(verdict.headline)}</p>'
        + (f"<ul>{notes}</ul>" if notes else "")
        + "</section>"
    )


def _facts(profile: Profile) -> str:
    whole = sum(profile.phases().values())
    facts = {
        "steps of each rank": f"{max(rank.count for rank in profile.ranks):,}",
        "mean step": _ms(whole),
        "99 of 100 within": _ms(profile.percentile(0.99)),
        "ranks": str(len(profile.ranks)),
        "time": duration(profile.ended - profile.began),
    }
    if attempts := max(rank.attempts for rank in profile.ranks) - 1:
        facts["restarts"] = str(attempts)
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{cells}</dl>'


# --- steps ------------------------------------------------------------------------------------------------------------


def _breakdown(profile: Profile, colours: Mapping[str, int]) -> str:
    phases = profile.phases()
    whole = sum(phases.values())
    entries = [
        (name, colour, f"{percent(phases[name] / whole)}, {_ms(phases[name])}") for name, colour in colours.items()
    ]
    outside = [f"{name} {duration(seconds)}" for name, seconds in profile.outside().items()]
    between = f'<p class="quiet">Between steps: {escape(", ".join(outside))}.</p>' if outside else ""
    return (
        "<section><h2>What a step is made of</h2>"
        f'<p class="quiet">The mean of all steps and ranks; the first step, which warms up, left out.</p>'
        f"<figure>{stack_bar(phases, colours, whole)}{legend(entries)}</figure>{between}</section>"
    )


def _over_time(profile: Profile, colours: Mapping[str, int]) -> str:
    span = (profile.began, profile.ended)
    bins = list(_bins(profile, span))
    top = nice_top(max(sum(parts.values()) for _, _, parts in bins))
    plot = stack_plot(bins, colours, span, top, [_ms(top), _ms(top / 2), "0"])
    entries = [(name, colour, "") for name, colour in colours.items()]
    return (
        '<section><h2>Steps over time</h2><p class="quiet">How long a step took, by its parts; where nothing is drawn, '
        f"no step ran.</p><figure>{plot}{legend(entries)}</figure></section>"
    )


def _bins(profile: Profile, span: tuple[float, float]) -> Iterator[tuple[float, float, dict[str, float]]]:
    """Yield stretches of the run's time with the mean step in each."""
    width = (span[1] - span[0]) / BINS
    found: dict[int, list[Stretch]] = {}
    for each in profile.stretches:
        # A stretch may be longer than a bin; it then shows in each.
        ends = (each.at, each.at + each.seconds)
        first, last = (min(max(int((at - span[0]) / width), 0), BINS - 1) for at in ends)
        for index in range(first, last + 1):
            found.setdefault(index, []).append(each)
    for index, stretches in sorted(found.items()):
        begin = span[0] + index * width
        yield begin, begin + width, mean_phases(stretches)


def _slowest(profile: Profile, colours: Mapping[str, int]) -> str:
    found = profile.slowest(SLOWEST_SHOWN)
    whole = max(step.seconds for _, step in found)
    rows = "".join(
        f'<tr><td class="number">{step.number:,}</td><td class="number">{rank}</td>'
        f'<td class="number">{duration(max(0.0, step.at - profile.began))}</td>'
        f'<td class="number">{_ms(step.seconds)}</td>'
        f'<td class="wide">{stack_bar(step.phases, colours, whole, "slim")}</td></tr>'
        for rank, step in found
    )
    return (
        '<section><h2>Slowest steps</h2><table><tr><th class="number">step</th><th class="number">rank</th>'
        f'<th class="number">after</th><th class="number">took</th><th>of which</th></tr>{rows}</table></section>'
    )


def _ranks(profile: Profile, colours: Mapping[str, int]) -> str:
    if len(profile.ranks) < 2:
        return ""
    whole = max(sum(rank.mean_phases().values()) for rank in profile.ranks) or 1.0
    rows = "".join(_rank_row(rank, colours, whole) for rank in profile.ranks[:RANKS_SHOWN])
    more = len(profile.ranks) - RANKS_SHOWN
    return (
        '<section><h2>Ranks</h2><p class="quiet">The mean step of each. They wait for each other in the backward pass, '
        "so the one in which that is shortest may be the one they wait for.</p>"
        '<table><tr><th class="number">rank</th><th class="number">steps</th><th class="number">step</th>'
        f'<th class="number">memory</th><th>of which</th></tr>{rows}</table>'
        + (f'<p class="quiet">and {more} more</p>' if more > 0 else "")
        + "</section>"
    )


def _rank_row(rank: RankProfile, colours: Mapping[str, int], whole: float) -> str:
    phases = rank.mean_phases()
    return (
        f'<tr><td class="number">{rank.rank}</td><td class="number">{rank.count:,}</td>'
        f'<td class="number">{_ms(sum(phases.values()))}</td><td class="number">{_bytes(rank.peak_memory)}</td>'
        f'<td class="wide">{stack_bar(phases, colours, whole, "slim")}</td></tr>'
    )


# --- the machine ------------------------------------------------------------------------------------------------------


def _utilisation(profile: Profile) -> str:
    plots = [_host_plots(profile, host) for host in sorted({str(rank.facts.get("host")) for rank in profile.ranks})]
    return "".join(plots)


def _host_plots(profile: Profile, host: str) -> str:
    """Return the plots of one host, by what its first rank sampled."""
    leaders = [rank for rank in profile.ranks if str(rank.facts.get("host")) == host and rank.samples]
    samples = sorted((sample for rank in leaders for sample in rank.samples), key=lambda sample: sample.at)
    if not samples:
        return ""
    span = (profile.began, profile.ended)
    facts = leaders[0].facts
    shares = _share_lines(samples, float(facts["memory_bytes"] or 1))
    entries = [(line.name, line.colour, f"{fmean(v for _, v in line.points):.0%} mean") for line in shares]
    limits = f"{facts['cores']} cores, {_bytes(float(facts['memory_bytes']))} of memory"
    plot = line_plot(shares, span, 1.0, ["100 %", "50 %", "0 %"])
    flows = "".join(_flow_plot(samples, name, ways, span) for name, ways in FLOWS.items())
    return (
        f"<section><h2>The machine: {escape(host)}</h2>"
        f'<p class="quiet">What this container used of {limits}.</p>'
        f'<figure>{plot}{legend(entries)}</figure><div class="pair">{flows}</div></section>'
    )


def _share_lines(samples: list[HostSample], memory_bytes: float) -> list[Line]:
    lines = [
        Line("cores", 1, [(sample.at, sample.cpu) for sample in samples]),
        Line("memory", 2, [(sample.at, sample.memory / memory_bytes) for sample in samples]),
    ]
    return lines + _gpu_lines([sample for sample in samples if sample.gpus])


def _gpu_lines(samples: list[HostSample]) -> list[Line]:
    """Return a line for each of a few GPUs, memory dashed; of many, the mean and the extremes."""
    count = min((len(sample.gpus) for sample in samples), default=0)

    def line(name: str, colour: int, value: Callable[[HostSample], float], *, is_dashed: bool = False) -> Line:
        return Line(name, colour, [(sample.at, value(sample)) for sample in samples], is_dashed)

    def memory(gpu: tuple[float, float, float]) -> float:
        return gpu[1] / gpu[2] if gpu[2] else 0.0

    if count > len(GPU_COLOURS):
        return [
            line("GPUs, mean", 5, lambda sample: fmean(gpu[0] for gpu in sample.gpus)),
            line("least busy GPU", 3, lambda sample: min(gpu[0] for gpu in sample.gpus)),
            line("fullest GPU memory", 5, lambda sample: max(map(memory, sample.gpus)), is_dashed=True),
        ]
    lines = []
    for index, colour in enumerate(GPU_COLOURS[:count]):
        gpus = [(sample.at, sample.gpus[index]) for sample in samples]
        lines.append(Line(f"GPU {index}", colour, [(at, gpu[0]) for at, gpu in gpus]))
        lines.append(Line(f"GPU {index} memory", colour, [(at, memory(gpu)) for at, gpu in gpus], is_dashed=True))
    return lines


def _flow_plot(samples: list[HostSample], name: str, names: tuple[str, str], span: tuple[float, float]) -> str:
    """Return bytes a second, both ways."""
    lines = [
        Line(f"{name} {way}", 1 + 3 * index, [(sample.at, getattr(sample, name)[index]) for sample in samples])
        for index, way in enumerate(names)
    ]
    most = max(value for line in lines for _, value in line.points)
    unit = next((size for size, _ in UNITS if most >= size), 1)
    top = nice_top(most / unit) * unit
    entries = [(line.name, line.colour, f"{_bytes(fmean(v for _, v in line.points))}/s mean") for line in lines]
    return f"<figure>{line_plot(lines, span, top, [f'{_bytes(top)}/s', '', '0'], 'low')}{legend(entries)}</figure>"


def _bytes(count: float) -> str:
    """Say an amount of bytes.

    >>> _bytes(0), _bytes(1536), _bytes(3 << 30)
    ('0 B', '1.5 KiB', '3 GiB')
    """
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _ms(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1000:.3g} ms"
