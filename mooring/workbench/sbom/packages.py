"""What was found: packages as values, whoever installed them, and what they were found in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mooring.runner.image import ImageFacts


class Kind(StrEnum):
    """By what a package was installed. An interpreter is a Python that no package manager knows of."""

    PYTHON = "python"
    DEBIAN = "debian"
    INTERPRETER = "interpreter"


@dataclass(frozen=True)
class Package:
    """An installed package.

    `licences` all apply; each is an SPDX expression where that could be told, else the words of the package. Where
    there are none, `licence_file` may still say where the text is.
    """

    kind: Kind
    name: str
    version: str
    licences: tuple[str, ...] = ()
    licence_file: str | None = None
    locations: tuple[str, ...] = ()
    homepage: str | None = None
    supplier: str | None = None
    architecture: str | None = None
    source: tuple[str, str] | None = None  # name and version of what Debian built it from

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is the same of one package in two places; of a name, what is left when indexes compare it (PEP 503)."""
        return self.kind, re.sub(r"[-_.]+", "-", self.name).lower(), self.version, self.architecture or ""


@dataclass(frozen=True)
class Inventory:
    """All that was found. `image` is None where this environment was looked into; `system` is its os-release."""

    subject: str
    image: ImageFacts | None
    system: Mapping[str, str]
    packages: tuple[Package, ...]

    def only(self, kinds: frozenset[Kind]) -> "Inventory":
        """Return what is of some kinds."""
        packages = tuple(package for package in self.packages if package.kind in kinds)
        return Inventory(self.subject, self.image, self.system, packages)
