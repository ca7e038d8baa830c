"""A row of the report as a value: what is asked, the line of the contract it comes from, and how to find out."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .finding import Finding
from .sections import SECTIONS, Section

if TYPE_CHECKING:
    from .bench import Bench


class Part(Enum):
    """The parts of the contract."""

    IMAGE = "image"
    TRAINING = "training"
    SERVING = "serving"
    MULTI_MODEL = "multi-model"


@dataclass(frozen=True)
class Row:
    """One thing that is asked of an image."""

    part: Part
    name: str
    title: str
    section: Section
    line: str  # what the contract says, in our words
    check: "Callable[[Bench], Finding]"

    @property
    def id(self) -> str:
        """What reports call it."""
        return f"{self.part.value}.{self.name}"


@dataclass(frozen=True)
class Result:
    """What came of a row, and how long it took."""

    row: Row
    finding: Finding
    seconds: float


def row(part: Part, section: str, title: str, line: str) -> "Callable[[Callable[[Bench], Finding]], Row]":
    """Make a row of the function that finds out; its name is the row's."""

    def made(check: "Callable[[Bench], Finding]") -> Row:
        return Row(part, check.__name__.replace("_", "-"), title, SECTIONS[section], line, check)

    return made
