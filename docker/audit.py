"""Known vulnerabilities in the packages that docker/requirements names; `make audit` runs it, by pip-audit.

A service is believed only after it has named what is wrong with a release that is known to be vulnerable: a mirror that
knows no vulnerabilities, or answers every question with "not found", is no clean bill of health.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parent / "requirements"
ACCEPTED = Path(__file__).parent / "accepted_vulnerabilities.txt"
SERVICES = ("pypi", "osv")
# A release with a vulnerability that every service knows: CVE-2019-11324.
VULNERABLE = ("urllib3", "1.24.1")

# What follows the version (an index's own mark such as +cpu, a marker, hashes) is of no interest to a service.
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\+]+)(?:\+\S+)?")
ACCEPTANCE = re.compile(r"(\S+)\s+(\S+)\s+(\d{4}-\d{2}-\d{2})\s+(\S.*)")

DESCRIPTION = "Look up known vulnerabilities of the packages in docker/requirements, where a service answers."
EPILOG = f"""\
What is accepted is listed in docker/{ACCEPTED.name}, with a reason and a last day. Services are asked in the
order PyPI, OSV; PIP_AUDIT_OSV_URL names a mirror of OSV's.

exit codes: 0 if nothing is known that is not accepted, or no service answers; 1 if something is, or a file cannot be
read, or a service broke off; 2 for wrong usage
"""


class AuditError(Exception):
    """The audit cannot be made, or not to its end."""


@dataclass(frozen=True)
class Finding:
    """A vulnerability of a pinned release."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed_in: tuple[str, ...]
    description: str

    def __str__(self) -> str:
        name, *others = self.names
        also = f" ({', '.join(others)})" if others else ""
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no release fixes it"
        return f"{self.package} {self.version}: {name}{also}, {fixed}: {self.description}"


@dataclass(frozen=True)
class Acceptance:
    """A vulnerability that is known and lived with until a day, because of a reason."""

    vulnerability: str
    package: str
    until: date
    reason: str

    def covers(self, finding: Finding, today: date) -> bool:
        """Tell whether it speaks of a finding, and still holds."""
        return today <= self.until and finding.package == self.package and self.vulnerability in finding.names


@dataclass
class Audit:
    """What a service said."""

    findings: list[Finding] = field(default_factory=list)
    not_known: list[str] = field(default_factory=list)  # packages that it does not know, or not in this version
    count: int = 0


def main() -> None:
    """Run the audit with the process's arguments."""
    made = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--requirements", type=Path, default=REQUIREMENTS, metavar="DIR", help="what is looked up")
    made.add_argument("--accepted", type=Path, default=ACCEPTED, metavar="FILE", help="what is lived with")
    made.add_argument("--service", choices=SERVICES, action="append", help="may be repeated (default: all, in turn)")
    arguments = made.parse_args()
    try:
        accepted = acceptances(arguments.accepted)
        sys.exit(run(pins(arguments.requirements), arguments.service or SERVICES, accepted, datetime.now(UTC).date()))
    except AuditError as error:
        sys.exit(f"audit: {error}")


def run(
    places: dict[tuple[str, str], list[str]], services: Sequence[str], accepted: Sequence[Acceptance], today: date
) -> int:
    """Look up pinned releases, say what is known of them, and return the exit code. Raises `AuditError`."""
    service = next(filter(answers, services), None)
    if service is None:
        print(f"audit: no service of known vulnerabilities answers ({', '.join(services)}): nothing was looked up.")
        return 0
    audit = look_up(service, list(places))
    if audit is None:
        raise AuditError(f"{service} answered, and then did not for the {len(places)} packages. Try again.")
    return report(audit, service, places, accepted, today)


def pins(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Return each pinned release and the files that name it. Raises `AuditError`, naming every line that is no pin."""
    found: dict[tuple[str, str], list[str]] = {}
    problems = []
    for file in sorted(folder.glob("*.txt")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line[0] in " \t#-":  # blank, hashes, remarks, options
                continue
            if match := PIN.match(line):
                files = found.setdefault((canonical(match[1]), match[2]), [])
                files += [file.stem] if file.stem not in files else []
            else:
                problems.append(f'{file}, line {number}: "{line}" does not name one version')
    if problems or not found:
        raise AuditError("\n".join(problems) or f"there is no pinned package in {folder}")
    return found


def acceptances(file: Path) -> list[Acceptance]:
    """Return what is accepted. Raises `AuditError`, naming every line that cannot be read."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            match = ACCEPTANCE.fullmatch(line.strip())
            if match is None:
                raise ValueError("expected: VULNERABILITY PACKAGE YEAR-MONTH-DAY REASON")
            found.append(Acceptance(match[1], canonical(match[2]), date.fromisoformat(match[3]), match[4]))
        except ValueError as error:
            problems.append(f'{file}, line {number}: "{line}": {error}')
    if problems:
        raise AuditError("\n".join(problems))
    return found


def answers(service: str) -> bool:
    """Tell whether a service knows what every service of its kind knows."""
    audit = look_up(service, [VULNERABLE])
    return audit is not None and bool(audit.findings)


def look_up(service: str, releases: Sequence[tuple[str, str]]) -> Audit | None:
    """Return what a service knows of releases; None where it does not answer, or not to the end."""
    with tempfile.TemporaryDirectory(prefix="mooring-audit-") as folder:
        said = Path(folder) / "audit.json"
        audit = Audit()
        for number, round_ in enumerate(_rounds(releases)):
            wanted = Path(folder) / f"{number}.txt"
            wanted.write_text("".join(f"{name}=={version}\n" for name, version in round_), encoding="utf-8")
            said.unlink(missing_ok=True)
            command = [sys.executable, "-P", "-m", "pip_audit", "--vulnerability-service", service]
            command += ["--disable-pip", "--no-deps", "--requirement", str(wanted)]
            command += ["--format", "json", "--output", str(said), "--progress-spinner", "off"]
            # It exits with 1 both where it found something and where it broke; only the file tells.
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if "No module named pip_audit" in done.stderr:
                raise AuditError("pip-audit is not installed. `make audit` does that, and this.")
            if not said.exists():
                return None
            _add(audit, json.loads(said.read_text(encoding="utf-8"))["dependencies"])
    return audit


def _rounds(releases: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Yield them so that no package is twice in a round, which pip-audit refuses."""
    left = list(releases)
    while left:
        first = {name: (name, version) for name, version in reversed(left)}
        yield list(first.values())
        left = [release for release in left if release not in first.values()]


def _add(audit: Audit, dependencies: list[dict[str, Any]]) -> None:
    for each in dependencies:
        if "skip_reason" in each:
            audit.not_known.append(each["name"])
            continue
        audit.count += 1
        for known in each["vulns"]:
            names = tuple(dict.fromkeys((known["id"], *known.get("aliases", []))))
            words = " ".join(known.get("description", "").split())
            audit.findings.append(
                Finding(canonical(each["name"]), each["version"], names, tuple(known["fix_versions"]), words[:200])
            )


def report(
    audit: Audit,
    service: str,
    places: dict[tuple[str, str], list[str]],
    accepted: Sequence[Acceptance],
    today: date,
) -> int:
    """Print what was found, and return the exit code."""
    covered = {finding: [each for each in accepted if each.covers(finding, today)] for finding in audit.findings}
    applying = [finding for finding, covering in covered.items() if not covering]
    for finding, covering in covered.items():
        files = ", ".join(
            sorted({file for (name, _), files in places.items() if name == finding.package for file in files})
        )
        state = f"accepted until {covering[0].until}, {covering[0].reason}" if covering else f"in {files}"
        print(f"audit: {finding} [{state}]")
    used = [acceptance for covering in covered.values() for acceptance in covering]
    for acceptance in accepted:
        if acceptance not in used:
            age = "is over" if acceptance.until < today else "covers nothing that was found"
            print(f"audit: {acceptance.vulnerability} of {acceptance.package} {age}; remove the line.")
    if audit.not_known:
        print(f"audit: {service} does not know {', '.join(sorted(audit.not_known))}.")
    print(
        f"audit: {audit.count} packages looked up with {service}; known vulnerabilities: {len(applying)}, "
        f"accepted: {len(audit.findings) - len(applying)}."
    )
    return 1 if applying else 0


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
