"""`python -m benchmarks.report`: writes docs/benchmarks.md and its pictures from docs/benchmarks/serving.json.

The prose is in page.md beside this module, where `{{targets}}` and the like stand for tables and pictures.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from . import plots
from .figures import Row, rows_of
from .tables import TABLES, of_machines, of_targets

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).with_name("page.md")
DOCS = ROOT / "docs"
PLACE = re.compile(r"\{\{(?P<kind>\w+)(?: (?P<name>\w+))?\}\}")
NOT_MEASURED = "Not measured yet.\n"


def main() -> int:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=DOCS / "benchmarks/serving.json", help="the file of a run")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write benchmarks.md to")
    given = parser.parse_args()
    if not given.results.exists():
        parser.error(f"There are no results in {given.results}. `make bench-serving` writes them.")
    rows = rows_of(json.loads(given.results.read_text(encoding="utf-8")))
    pictures = plots.write(rows, given.docs / "benchmarks")
    page = given.docs / "benchmarks.md"
    page.write_text(filled(PAGE.read_text(encoding="utf-8"), rows, pictures), encoding="utf-8")
    print(f"{page} is written, with {len(pictures)} pictures.")
    return 0


def filled(page: str, rows: Mapping[str, Row], pictures: list[str]) -> str:
    """Return the page with its tables and pictures in their places."""

    def place(found: re.Match[str]) -> str:
        kind, name = found["kind"], found["name"]
        if kind == "targets":
            return of_targets(rows)
        if kind == "machines":
            return of_machines(rows)
        if kind == "picture":
            return f"![](benchmarks/{name}.svg)\n" if name in pictures else ""
        return TABLES[name](rows[name]) if name in rows else NOT_MEASURED

    return PLACE.sub(place, page)


if __name__ == "__main__":
    sys.exit(main())
