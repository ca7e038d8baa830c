"""The command `mooring sbom`: what an image holds, as a bill of materials or a list of licences."""

import argparse
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mooring.artifact.publish import publish_file
from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError, PlatformError, SettingError

from .progress import Progress

if TYPE_CHECKING:
    from mooring.workbench.sbom.packages import Inventory

DESCRIPTION = """\
Say what an image holds: the packages of every Python in it, Pythons themselves, and the packages of Debian, each with
version, licence and place. As a bill of materials (CycloneDX 1.6, JSON) for those who keep an inventory or look for
known vulnerabilities, or as a list of licences for people. Nothing of the image is run: its files are read.
"""
EPILOG = """\
Licences are what packages declare, as SPDX expressions where that can be told. SOURCE_DATE_EPOCH sets the time that
the bill bears, so that two bills of one image are the same.

example: mooring sbom mooring:cpu --output mooring-cpu.cdx.json
         mooring sbom mooring:cpu --format licences
         mooring sbom flowers --only python --deny 'AGPL-*' --deny unknown --output flowers.cdx.json
         mooring sbom --environment --format licences

exit codes: 0 if it was written, 1 if it could not be or a package has a licence that --deny names (what was found is
written all the same), 2 for wrong usage, 130 if it was interrupted
"""
FORMATS = ("cyclonedx", "licences")
KINDS = ("python", "debian")


class SbomLibraryMissingError(PlatformError):
    """What writes bills of materials is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"The package {name} is not installed, which knows CycloneDX and SPDX. Install mooring[sbom].")


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    if (arguments.image is None) != arguments.environment:
        parser().error("name an image, or give --environment")
    try:
        found = run(arguments, process_variables())
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring sbom: interrupted; nothing was written.\n")
        sys.exit(130)
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring sbom: {error}\n")
        sys.exit(1)
    sys.exit(1 if found else 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring sbom",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("image", nargs="?", metavar="IMAGE", help="an image of this machine's Docker, anybody's")
    made.add_argument("--environment", action="store_true", help="look into the Python that runs this; needs no Docker")
    made.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="a bill (default), or a list for people")
    made.add_argument("--only", choices=KINDS, help="packages of one kind; Pythons themselves are of kind python")
    made.add_argument("--output", type=Path, metavar="FILE", help="where it is written (default: standard output)")
    made.add_argument(
        "--deny",
        action="append",
        default=[],
        metavar="LICENCE",
        help="fail if a package has it; an SPDX identifier, a pattern such as AGPL-*, or unknown; may be repeated",
    )
    return made


def run(arguments: argparse.Namespace, variables: Mapping[str, str]) -> bool:
    """Write what is asked for, and return whether a package has a denied licence. Raises `MooringError`, `OSError`."""
    now = _now(variables)
    try:
        from mooring.workbench.sbom.bill import bill_of_materials
        from mooring.workbench.sbom.licences import denied
        from mooring.workbench.sbom.table import licence_list
    except ImportError as error:
        raise SbomLibraryMissingError((error.name or "").partition(".")[0]) from error

    inventory = _chosen(_inventory(arguments.image), arguments.only)
    is_bill = arguments.format == FORMATS[0]
    _write(bill_of_materials(inventory, now) if is_bill else licence_list(inventory), arguments.output)
    found = denied(inventory.packages, arguments.deny)
    for package, licence in found:
        place = ", ".join(package.locations)
        sys.stderr.write(f"mooring sbom: denied: {package.name} {package.version} has {licence} ({place})\n")
    return bool(found)


def _inventory(image: str | None) -> "Inventory":
    from mooring.runner.image import inspect_image
    from mooring.workbench.sbom.survey import survey_environment, survey_image

    if image is None:
        return survey_environment(sys.path)
    facts = inspect_image(image)
    progress = Progress(sys.stderr, "read", facts.size_bytes)
    inventory = survey_image(facts, progress)
    progress.finish()
    return inventory


def _chosen(inventory: "Inventory", only: str | None) -> "Inventory":
    from mooring.workbench.sbom.packages import Kind

    chosen = {"python": {Kind.PYTHON, Kind.INTERPRETER}, "debian": {Kind.DEBIAN}, None: set(Kind)}[only]
    inventory = inventory.only(frozenset(chosen))
    count = {kind: sum(package.kind is kind for package in inventory.packages) for kind in Kind}
    counted = ", ".join(f"{number} {kind}" for kind, number in count.items() if number)
    untold = sum(not package.licences for package in inventory.packages)
    sys.stderr.write(f"{inventory.subject}: {counted or 'no packages'}; {untold} name no licence\n")
    return inventory


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    with publish_file(output) as beside:
        beside.write_text(text, encoding="utf-8")


def _now(variables: Mapping[str, str]) -> datetime:
    epoch = variables.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(UTC)
    if not epoch.isdecimal():
        raise SettingError("SOURCE_DATE_EPOCH", epoch, "a whole number of seconds since 1970")
    return datetime.fromtimestamp(int(epoch), UTC)
