"""One row's raw results, written after each cell, so that a run that is stopped goes on where it was."""

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mooring.artifact.publish import publish_file
from mooring.contract.resources import memory_limit_bytes

CPUINFO = Path("/proc/cpuinfo")


class Results:
    """A file of rows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Any] = json.loads(file.read_text())["rows"] if file.exists() else {}

    def row(self, name: str, settings: Mapping[str, Any], *, is_resumed: bool) -> "Row":
        """Return a row to measure: as it was left if it is resumed with the same settings, else empty."""
        kept = self.rows.get(name)
        if not (is_resumed and kept is not None and kept["settings"] == settings):
            self.rows[name] = {
                "settings": settings,
                "machine": machine(),
                "is_complete": False,
                "notes": {},
                "cells": {},
            }
        return Row(self, self.rows[name])

    def save(self) -> None:
        """Write all rows."""
        with publish_file(self.file) as beside:
            beside.write_text(json.dumps({"rows": self.rows}, indent=1) + "\n")


class Row:
    """What is known of one row: cells by who and what, each a list with an entry a round; and notes by who."""

    def __init__(self, results: Results, kept: dict[str, Any]) -> None:
        self._results = results
        self._kept = kept

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to measure."""
        return bool(self._kept["is_complete"])

    def cell(self, who: str, what: str) -> list[Any]:
        """Return a cell's rounds so far."""
        cells: list[Any] = self._kept["cells"].get(who, {}).get(what, [])
        return cells

    def add(self, who: str, what: str, value: Any) -> None:
        """Add a round to a cell."""
        self._kept["cells"].setdefault(who, {}).setdefault(what, []).append(value)
        self._results.save()

    def note(self, who: str, **facts: Any) -> None:
        """Note facts about somebody: versions, the way that was best, why it failed."""
        self._kept["notes"].setdefault(who, {}).update(facts)
        self._results.save()

    def forget(self, who: str, fact: str) -> None:
        """Drop a note of an earlier run."""
        self._kept["notes"].get(who, {}).pop(fact, None)

    def noted(self, who: str) -> dict[str, Any]:
        """Return what was noted."""
        facts: dict[str, Any] = self._kept["notes"].get(who, {})
        return facts

    def complete(self) -> None:
        """Say that nothing is left to measure."""
        self._kept["is_complete"] = True
        self._results.save()


def machine() -> dict[str, Any]:
    """Return what the figures are measured on."""
    cpu = [line.partition(":")[2].strip() for line in CPUINFO.read_text().splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": cpu[0] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_limit_bytes() / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mooring": metadata.version("mooring"),
    }
