"""Looks into an image, or the environment that runs this, and says what is installed there."""

import platform
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mooring.runner.image import ImageFacts, exported

from .debian_packages import debian_packages, os_release
from .files import KeptFiles, keep_from_archive, keep_from_folders
from .packages import Inventory, Kind, Package
from .python_packages import interpreters, python_packages


def survey_image(facts: ImageFacts, on_bytes: Callable[[int], object]) -> Inventory:
    """Return what an image holds. Raises `DockerError`."""
    with exported(facts.name) as archive:
        files = keep_from_archive(archive, on_bytes)
    return survey_files(facts.name, facts, files)


def survey_files(subject: str, facts: ImageFacts | None, files: KeptFiles) -> Inventory:
    """Return what the files of an image say is installed."""
    packages = (*python_packages(files), *interpreters(files), *debian_packages(files))
    return Inventory(subject, facts, os_release(files), _each_once(packages))


def survey_environment(folders: Sequence[str]) -> Inventory:
    """Return what this interpreter would find in the folders that it imports from, and itself."""
    licence_file = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    interpreter = Package(
        Kind.INTERPRETER,
        "python",
        platform.python_version(),
        licence_file=str(licence_file) if licence_file.is_file() else None,
        locations=(sys.base_prefix,),
        homepage="https://www.python.org/",
        supplier="Python Software Foundation",
    )
    packages = (*python_packages(keep_from_folders(folders)), interpreter)
    return Inventory(sys.prefix, None, {}, _each_once(packages))


def _each_once(packages: Iterable[Package]) -> tuple[Package, ...]:
    """Return packages in order, what lies in several places once, with all of them."""
    found: dict[tuple[str, ...], Package] = {}
    for package in packages:
        before = found.setdefault(package.key, package)
        if before is not package:
            places = before.locations + package.locations
            text = before.licence_file or package.licence_file
            found[package.key] = replace(before, locations=places, licence_file=text)
    return tuple(sorted(found.values(), key=lambda package: package.key))
