"""`make upgrade`: raise requirements/constraints.txt to the newest versions that can be installed together.

Looked at is what make installs: extras of pyproject.toml and its group `dev`, within their ranges, and packages that
are installed beside them without what they ask for. No version falls. A line that ends in a comment is held:

  cloudevents==1.13.0  # kserve 0.21 asks for less than 2

Nothing is written unless all of it can be had for linux on amd64 and on arm64. uv resolves; after it come `make lock`
and the tests.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lock import CONSTRAINTS, CUDA, ROOT, UV, Entries, compiled, is_for_linux
from packaging.utils import canonicalize_name

COMMAND = "make upgrade"
PROJECT = ROOT / "pyproject.toml"
GROUP = "dev"
# The C library of the base image, which is Debian 12.
ARM64 = "aarch64-manylinux_2_36"
# Otherwise a package gets a version for each Python, and constraints hold for all of them.
FEWEST = "--fork-strategy=fewest"
LINE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;#]+)\s*(?:#\s*(?P<reason>.*))?")


class UpgradeError(Exception):
    """No set of versions was found, and nothing was written."""


@dataclass(frozen=True)
class Pin:
    """A line of the constraints. With a reason its version is held."""

    name: str
    version: str
    reason: str | None = None

    @property
    def constraint(self) -> str:
        """What a newer version has to meet."""
        return f"{self.name}{'>=' if self.reason is None else '=='}{self.version}"


Pins = dict[str, Pin]  # by canonical name
Versions = dict[str, str]


def main() -> None:
    """Raise the versions, or only say which would be."""
    given = _arguments()
    text = CONSTRAINTS.read_text(encoding="utf-8")
    pins = read_pins(text)
    try:
        found = newest(pins, given.extras, given.beside)
    except UpgradeError as error:
        sys.exit(f"{COMMAND}: {error} Nothing was changed.")
    if not given.dry_run:
        CONSTRAINTS.write_text(with_versions(text, found), encoding="utf-8")
    print("\n".join([*report(pins, found), summary(pins, found, is_dry=given.dry_run)]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what would be raised, and write nothing")
    parser.add_argument("--extras", required=True, type=lambda given: given.split(","), help="those that are installed")
    parser.add_argument("--beside", nargs="+", default=[], metavar="NAME", help="installed without what they ask for")
    return parser.parse_args()


def read_pins(text: str) -> Pins:
    """Return the pins among the lines of the constraints."""
    matches = (LINE.fullmatch(line) for line in text.splitlines())
    pins = (Pin(match["name"], match["version"], match["reason"]) for match in matches if match)
    return {canonicalize_name(pin.name): pin for pin in pins}


# --- resolving --------------------------------------------------------------------------------------------------------


def newest(pins: Mapping[str, Pin], extras: Sequence[str], beside: Sequence[str]) -> Versions:
    """Return the newest version of each package that make installs. Raises `UpgradeError`.

    There is one of each, which is the newest that still runs on the oldest Python that the project takes.
    """
    wanted = [str(PROJECT), *(f"--extra={extra}" for extra in extras), f"--group={PROJECT}:{GROUP}"]
    bounds = [pin.constraint for pin in pins.values()]
    with tempfile.TemporaryDirectory() as folder:
        constraints, names = Path(folder, "constraints.txt"), Path(folder, "beside.in")
        try:
            _write(constraints, bounds)
            found = versions(compiled([*wanted, FEWEST], constraints=constraints))
            _write(constraints, bounds + _equal(found))
            if beside:
                _write(names, beside)
                found |= versions(compiled([str(names), "--no-deps", FEWEST], constraints=constraints))
            _write(constraints, _equal(found))
            _try_on_arm64(wanted, constraints)
        except subprocess.CalledProcessError as error:
            raise UpgradeError("uv, whose words stand above, found no versions that go together.") from error
    return {name: version for name, version in found.items() if not CUDA.match(name)}


def _try_on_arm64(wanted: Sequence[str], constraints: Path) -> None:
    command = [*UV, f"--python-platform={ARM64}", *wanted, f"--constraint={constraints}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def versions(found: Entries) -> Versions:
    """Return the version of each package. Raises `UpgradeError` for one that would have several."""
    chosen: Versions = {}
    for name, lines in found.items():
        ours = [line for line in lines.splitlines() if line.startswith(f"{name}==") and is_for_linux(line)]
        several = sorted({line.split("==")[1].split()[0] for line in ours})
        if len(several) > 1:
            raise UpgradeError(
                f"{name} would be {' and '.join(several)}, each for some machines or Pythons. Hold one of them, with a "
                "comment at the end of its line."
            )
        chosen[name] = several[0]
    return chosen


def _equal(found: Versions) -> list[str]:
    return [f"{name}=={version}" for name, version in found.items()]


def _write(file: Path, lines: Iterable[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# --- writing and telling ----------------------------------------------------------------------------------------------


def with_versions(text: str, found: Versions) -> str:
    """Return the constraints with these versions. Comments, spellings and the order of the lines stay."""
    lines = text.splitlines()
    pins = read_pins(text)
    for index, line in enumerate(lines):
        if match := LINE.fullmatch(line):
            version = found.get(canonicalize_name(match["name"]), match["version"])
            lines[index] = line[: match.start("version")] + version + line[match.end("version") :]
    for name in sorted(found.keys() - pins.keys()):
        new = f"{name}=={found[name]}"
        pinned = [at for at, line in enumerate(lines) if LINE.match(line)]
        # Behind the one it follows, since a comment may stand above the one it precedes.
        lines.insert(max((at + 1 for at in pinned if lines[at].lower() < new), default=pinned[0]), new)
    return "".join(f"{line}\n" for line in lines)


def report(pins: Pins, found: Versions) -> list[str]:
    """Return a line for each package of which there is something to say."""
    lines = []
    for key in sorted(pins.keys() | found.keys()):
        pin, version = pins.get(key), found.get(key)
        if pin is None:
            lines.append(f"  {key} {version} is new: something that is installed asks for it")
        elif version is None:
            lines.append(f"  {pin.name} {pin.version} is asked for by nothing any more: its line can go")
        elif pin.reason is not None:
            lines.append(f"  {pin.name} {pin.version} is held: {pin.reason}")
        elif pin.version != version:
            lines.append(f"  {pin.name} {pin.version} -> {version}")
    return lines


def summary(pins: Pins, found: Versions, *, is_dry: bool) -> str:
    """Return how much changes, and what to do next."""
    changed = sum(key not in pins or pins[key].version != version for key, version in found.items())
    if not changed:
        return f"Nothing of {len(pins)} packages is newer."
    words = "would change" if is_dry else "changed"
    return f"{changed} of {len(found)} versions {words}." + ("" if is_dry else " Next: make lock, make test.")


if __name__ == "__main__":
    main()
