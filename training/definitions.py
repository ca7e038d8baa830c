"""Metric definitions, tried on a log as the platform tries them: each match of an expression is one value."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mooring.contract.errors import ConfigurationFileError

from .metric_lines import MAX_NAME, definition_regex, reported_name

# The platform's limits.
MAX_REGEX = 500
MAX_DEFINITIONS = 40
# The text before an expression's group, from which a line that nearly matches is told.
LITERAL = re.compile(r"[A-Za-z][A-Za-z0-9_:\-]*")


@dataclass(frozen=True)
class Definition:
    """A metric's name, and the expression that finds its values."""

    name: str
    regex: str


@dataclass(frozen=True)
class Match:
    """One value that was found."""

    line_number: int
    value: str
    line: str


@dataclass
class Trial:
    """What a definition found in a log, and what is wrong with it."""

    definition: Definition
    problems: list[str] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    near_misses: list[tuple[int, str]] = field(default_factory=list)
    lines_read: int = 0
    metrics: set[str] = field(default_factory=set)  # whose lines matched, where a line says whose it is

    @property
    def is_well(self) -> bool:
        """Whether it found something, and nothing is wrong."""
        return bool(self.matches) and not self.problems

    @property
    def summary(self) -> str:
        """The values in few words, to go after their count."""
        numbers = [float(match.value) for match in self.matches if _is_number(match.value)]
        if not numbers:
            return ""
        return f": last {numbers[-1]:g}, least {min(numbers):g}, greatest {max(numbers):g}"


def read_definitions(file: Path) -> tuple[list[Definition], list[str]]:
    """Return the definitions in a file, and what is wrong with the list. Raises `ConfigurationFileError`, `OSError`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationFileError(file, None, f"is not JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("MetricDefinitions", content)
    fields = ("Name", "Regex")
    if not isinstance(content, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in fields) for entry in content
    ):
        raise ConfigurationFileError(file, None, 'expected a list of {"Name": "…", "Regex": "…"}')
    definitions = [Definition(entry["Name"], entry["Regex"]) for entry in content]
    problems = []
    if len(definitions) > MAX_DEFINITIONS:
        problems.append(f"{len(definitions)} definitions; the platform takes {MAX_DEFINITIONS}.")
    names = [definition.name for definition in definitions]
    problems += [f"'{name}' is defined more than once." for name in sorted({n for n in names if names.count(n) > 1})]
    return definitions, problems


def try_all(definitions: Iterable[Definition], log: Iterable[str]) -> list[Trial]:
    """Return what each definition finds in the lines of a log."""
    trials = [Trial(definition, _faults(definition)) for definition in definitions]
    compiled = [(trial, _compiled(trial.definition), _literals(trial.definition)) for trial in trials]
    for number, text in enumerate(log, start=1):
        line = text.rstrip("\r\n")
        for trial, pattern, literals in compiled:
            trial.lines_read = number
            if pattern is not None:
                _try_line(trial, pattern, literals, number, line)
    for trial in trials:
        _judge(trial)
    return trials


def _faults(definition: Definition) -> list[str]:
    """Return what is wrong with a definition, whatever the log."""
    faults = []
    if not 1 <= len(definition.name) <= MAX_NAME:
        faults.append(f"the name has {len(definition.name)} characters; the platform takes 1 to {MAX_NAME}.")
    if not 1 <= len(definition.regex) <= MAX_REGEX:
        faults.append(f"the expression has {len(definition.regex)} characters; the platform takes 1 to {MAX_REGEX}.")
    try:
        groups = re.compile(definition.regex).groups
    except re.error as error:
        return [*faults, f"it is no regular expression: {error}."]
    if groups != 1:
        what = "no group" if groups == 0 else f"{groups} groups; the first counts here, (?:…) makes none"
        faults.append(f"it has {what}. Put the number, and only it, in one pair of parentheses: ([0-9.eE+-]+)")
    return faults


def _compiled(definition: Definition) -> re.Pattern[str] | None:
    try:
        return re.compile(definition.regex)
    except re.error:
        return None


def _literals(definition: Definition) -> list[str]:
    """Return the words that stand before the expression's group, in lower case."""
    return [word.lower() for word in LITERAL.findall(definition.regex.partition("(")[0]) if len(word) > 1]


def _try_line(trial: Trial, pattern: re.Pattern[str], literals: list[str], number: int, line: str) -> None:
    found = list(pattern.finditer(line))
    for match in found:
        value = (match[1] if pattern.groups else match[0]) or ""
        trial.matches.append(Match(number, value, line))
    if found and (name := reported_name(line)):
        trial.metrics.add(name)
    if not found and literals and all(word in line.lower() for word in literals):
        trial.near_misses.append((number, line))


def _judge(trial: Trial) -> None:
    """Add what the matches show to be wrong."""
    wrong = [match for match in trial.matches if not _is_number(match.value)]
    if wrong:
        first = wrong[0]
        what = f"{len(wrong)} of {len(trial.matches)} values are no numbers, first in line {first.line_number}"
        trial.problems.append(f'{what}: "{first.value}".')
    if len(trial.metrics) > 1:
        names = ", ".join(f"'{name}'" for name in sorted(trial.metrics))
        shortest = min(trial.metrics, key=len)
        trial.problems.append(
            f"it matches the lines of {len(trial.metrics)} metrics: {names}. "
            f"For '{shortest}' alone: {json.dumps(definition_regex(shortest))}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
