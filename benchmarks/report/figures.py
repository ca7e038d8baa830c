"""Results as they are quoted: medians over the rounds, ratios of medians."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = "Mooring"


@dataclass(frozen=True)
class Row:
    """One row of results."""

    kept: Mapping[str, Any]

    @property
    def machine(self) -> Mapping[str, Any]:
        """What it was measured on."""
        found: Mapping[str, Any] = self.kept["machine"]
        return found

    @property
    def settings(self) -> Mapping[str, Any]:
        """How many rounds, of what length."""
        found: Mapping[str, Any] = self.kept["settings"]
        return found

    @property
    def names(self) -> list[str]:
        """Who has results."""
        return list(self.kept["cells"])

    @property
    def notes(self) -> Mapping[str, Mapping[str, Any]]:
        """What was noted, by who."""
        found: Mapping[str, Mapping[str, Any]] = self.kept["notes"]
        return found

    def rounds(self, who: str, what: object) -> list[Any]:
        """Return a cell's rounds; none if it was not measured."""
        found: list[Any] = self.kept["cells"].get(who, {}).get(str(what), [])
        return found

    def median(self, who: str, what: object, *keys: str) -> float | None:
        """Return the median over the rounds of a cell, or of a figure in it; None if there is none."""
        found = self.rounds(who, what)
        for key in keys:
            found = [one[key] for one in found]
        return statistics.median(found) if found else None

    def tail(self, who: str, what: object) -> float | None:
        """Return the 99th percentile of a cell of single numbers; None if there is none."""
        found = sorted(self.rounds(who, what))
        return found[int(len(found) * 0.99)] if found else None


def ratio(one: float | None, other: float | None) -> float | None:
    """Return how many times the other one is; None if either is missing."""
    return None if one is None or not other else one / other


def rows_of(results: Mapping[str, Any]) -> dict[str, Row]:
    """Return the rows of a file of results."""
    return {name: Row(kept) for name, kept in results["rows"].items()}
