"""The command `mooring metrics`: try metric definitions on a log, or look at what a job has reported."""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mooring.contract.environment import process_variables
from mooring.contract.errors import ConfigurationFileError
from mooring.contract.paths import ContainerPaths

if TYPE_CHECKING:
    from mooring.training.definitions import Definition, Trial

DESCRIPTION = """\
Try metric definitions on the log of a job, as the platform would: which lines match, with which values, and what is
wrong with them. Without a definition: what a job's metrics.jsonl holds.
"""
EPILOG = """\
examples: mooring metrics --test ' loss=([0-9.eE+-]+);' train.log
          train 2>&1 | mooring metrics --test 'Validation-accuracy=([0-9\\.]+)'
          mooring metrics --definitions definitions.json train.log
          mooring metrics /opt/ml/output/data/metrics.jsonl

definitions.json is the estimator's list: [{"Name": "validation:loss", "Regex": " val_loss=([0-9.eE+-]+);"}]

exit codes: 0 if every definition matches and nothing is wrong with it, or if metrics were shown; 1 if a definition
matches nothing or something is wrong, if there are no metrics, or if a file cannot be read; 2 for wrong usage
"""
MATCHES_SHOWN = 20
MISSES_SHOWN = 5
LINE_SHOWN = 160
Table = list[tuple[str, ...]]


def main() -> None:
    """Run the command with the process's arguments."""
    arguments = parser().parse_args()
    try:
        if arguments.test is not None or arguments.definitions is not None:
            sys.exit(0 if try_definitions(arguments) else 1)
        sys.exit(0 if show_metrics(arguments.file) else 1)
    except (OSError, ConfigurationFileError) as error:
        sys.stderr.write(f"mooring metrics: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring metrics",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", nargs="?", metavar="LOG|JSONL", help="a log, - for standard input; or a metrics.jsonl")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--test", metavar="REGEX", help="try this regular expression")
    which.add_argument("--definitions", type=Path, metavar="FILE.json", help="try the definitions of an estimator")
    made.add_argument("--name", default="metric", help="the name of the metric that --test defines")
    made.add_argument("--all", action="store_true", help=f"print every match, not the first {MATCHES_SHOWN}")
    return made


# --- definitions ------------------------------------------------------------------------------------------------------


def try_definitions(arguments: argparse.Namespace) -> bool:
    """Print what each definition finds in a log; returns whether all is well."""
    from mooring.training.definitions import Definition, read_definitions, try_all

    if arguments.definitions is not None:
        definitions, problems = read_definitions(arguments.definitions)
    else:
        definitions, problems = [Definition(arguments.name, arguments.test)], []
    if arguments.file in (None, "-"):
        # A log may hold anything; what is no text is shown as such.
        trials = try_all(definitions, io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace"))
    else:
        with Path(arguments.file).open(encoding="utf-8", errors="replace") as log:
            trials = try_all(definitions, log)
    for problem in problems:
        sys.stdout.write(f"problem: {problem}\n")
    for trial in trials:
        _show_trial(trial, sys.stdout, limit=None if arguments.all else MATCHES_SHOWN)
    return not problems and all(trial.is_well for trial in trials)


def _show_trial(trial: "Trial", out: TextIO, limit: int | None) -> None:
    out.write(f"{trial.definition.name}: {_quoted(trial.definition)}\n")
    out.writelines(f"  problem: {problem}\n" for problem in trial.problems)
    out.writelines(
        f"  line {match.line_number:>6}  {match.value:<14}  {_clipped(match.line)}\n" for match in trial.matches[:limit]
    )
    if limit is not None and len(trial.matches) > limit:
        out.write(f"  … and {len(trial.matches) - limit} more; --all prints them\n")
    out.writelines(
        f"  nearly      line {number:>6}  {_clipped(line)}\n" for number, line in trial.near_misses[:MISSES_SHOWN]
    )
    out.write(f"  {len(trial.matches)} matches in {trial.lines_read} lines{trial.summary}\n")


def _quoted(definition: "Definition") -> str:
    return json.dumps(definition.regex)


def _clipped(line: str) -> str:
    return line if len(line) <= LINE_SHOWN else line[: LINE_SHOWN - 1] + "…"


# --- what was reported ------------------------------------------------------------------------------------------------


def show_metrics(given: str | None) -> bool:
    """Print last, least, greatest and count of every metric that a job reported; returns whether there are any."""
    from mooring.training.metric_rows import metrics_file
    from mooring.training.metric_summary import summarise

    file = Path(given) if given else metrics_file(ContainerPaths.from_variables(process_variables()))
    summaries = summarise(file)
    if not summaries:
        sys.stderr.write(f"mooring metrics: {file} holds no metrics.\n")
        return False
    table: Table = [("metric", "count", "last", "least", "greatest", "at")]
    table += [summary.cells() for summary in summaries]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        sys.stdout.write("  ".join([row[0].ljust(widths[0]), *cells]).rstrip() + "\n")
    return True
