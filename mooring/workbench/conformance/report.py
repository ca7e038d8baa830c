"""A report as text for people, as JSON, and as JUnit's XML for whatever shows test results."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .finding import Outcome
from .row import Result, Row

# What XML cannot hold, not even escaped.
UNFIT_FOR_XML = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF), "�")


@dataclass(frozen=True)
class Report:
    """What came of an image's rows."""

    image: str  # nothing for the installed package
    results: Sequence[Result]

    @property
    def has_failed(self) -> bool:
        """Whether a row has failed."""
        return any(result.finding.outcome is Outcome.FAILED for result in self.results)

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many rows there are of each outcome."""
        found = Counter(result.finding.outcome for result in self.results)
        return {outcome: found[outcome] for outcome in Outcome}

    @property
    def summary(self) -> str:
        """The counts, as words."""
        return ", ".join(f"{count} {outcome.value}" for outcome, count in self.counts.items())

    @property
    def subject(self) -> str:
        """What was tried, as words."""
        return self.image or "the installed package"


def as_text(report: Report) -> str:
    """Return two lines for each row: what is asked, and what was seen; and the contract's line where it failed.

    A part all of whose rows have one reason has it once.
    """
    lines = [f"Conformance of {report.subject}"]
    for part, results in _parts(report):
        lines += ["", f"{part}"]
        if len(results) > 1 and len({each.finding for each in results}) == 1:  # a part that is not there, as a rule
            finding = results[0].finding
            lines += [f"  {_mark(finding.outcome)}  all {len(results)} rows", f"        {finding.reason}"]
            continue
        for result in results:
            lines += _row_lines(result)
    return "\n".join([*lines, "", f"{report.summary}."]) + "\n"


def _row_lines(result: Result) -> list[str]:
    row, finding = result.row, result.finding
    lines = [
        f"  {_mark(finding.outcome)}  {row.name}: {row.title} [{row.section.number}]",
        f"        {finding.reason}",
    ]
    if finding.outcome is Outcome.FAILED:
        lines.append(f"        Contract {row.section.number}, {row.section.title}: {row.line}")
        lines.append(f"        {row.section.url}")
    return lines


def as_json(report: Report) -> str:
    """Return the report as one object."""
    rows = [
        {
            "id": result.row.id,
            "part": result.row.part.value,
            "title": result.row.title,
            "outcome": result.finding.outcome.value,
            "reason": result.finding.reason,
            "seconds": round(result.seconds, 3),
            "contract": _contract(result.row),
        }
        for result in report.results
    ]
    counts = {outcome.value: count for outcome, count in report.counts.items()}
    return json.dumps({"image": report.image, "counts": counts, "rows": rows}, indent=2, ensure_ascii=False) + "\n"


def as_junit(report: Report) -> str:
    """Return the report as test suites, one for each part; what is not applicable is skipped."""
    root = ET.Element("testsuites", {"name": _fit(f"mooring check {report.subject}")} | _totals(report.results))
    for part, results in _parts(report):
        suite = ET.SubElement(root, "testsuite", {"name": part} | _totals(results))
        for result in results:
            _add_case(suite, result)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {"text": as_text, "json": as_json, "junit": as_junit}


def listed(rows: Iterable[Row]) -> str:
    """Return the rows that there are, each with the line of the contract it comes from."""
    lines: list[str] = []
    for part, members in groupby(rows, key=lambda row: row.part):
        lines += [part.value]
        for row in members:
            lines += [f"  {row.name}: {row.title}", f"        {row.section.number} {row.section.title}: {row.line}"]
    return "\n".join(lines) + "\n"


def told(result: Result) -> str:
    """Return a row's outcome as one line."""
    return f"{_mark(result.finding.outcome)}  {result.row.id}  {result.finding.reason}"


def _mark(outcome: Outcome) -> str:
    return {Outcome.PASSED: "pass", Outcome.FAILED: "FAIL", Outcome.NOT_APPLICABLE: "n/a "}[outcome]


def _parts(report: Report) -> list[tuple[str, list[Result]]]:
    return [(part.value, list(members)) for part, members in groupby(report.results, key=lambda each: each.row.part)]


def _contract(row: Row) -> dict[str, str]:
    section = row.section
    return {"section": section.number, "title": section.title, "line": row.line, "url": section.url}


def _totals(results: Sequence[Result]) -> dict[str, str]:
    found = Counter(result.finding.outcome for result in results)
    return {
        "tests": str(len(results)),
        "failures": str(found[Outcome.FAILED]),
        "errors": "0",
        "skipped": str(found[Outcome.NOT_APPLICABLE]),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }


def _add_case(suite: ET.Element, result: Result) -> None:
    row, finding = result.row, result.finding
    case = ET.SubElement(
        suite, "testcase", classname=f"mooring.{row.part.value}", name=row.name, time=f"{result.seconds:.3f}"
    )
    reason = _fit(finding.reason)
    contract = f"Contract {row.section.number}, {row.section.title}: {row.line} {row.section.url}"
    if finding.outcome is Outcome.FAILED:
        failure = ET.SubElement(case, "failure", message=reason, type="contract")
        failure.text = f"{row.title}\n{reason}\n{contract}"
        return
    if finding.outcome is Outcome.NOT_APPLICABLE:
        ET.SubElement(case, "skipped", message=reason)
    ET.SubElement(case, "system-out").text = f"{reason}\n{contract}"


def _fit(text: str) -> str:
    return text.translate(UNFIT_FOR_XML)
