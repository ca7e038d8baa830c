import json
from pathlib import Path

from benchmarks.report.__main__ import DOCS, PAGE, filled
from benchmarks.report.figures import rows_of
from benchmarks.report.targets import NOT_MEASURED, verdicts

ROUNDS = {"rounds": 3, "seconds": 1, "clients": [16, 64]}


def cell(*rates: float) -> list[dict[str, float]]:
    return [{"rps": rate, "p50_ms": 1.0, "p99_ms": 1000 / rate, "errors": 0} for rate in rates]


def test_the_page_is_made_of_the_results_beside_it() -> None:
    rows = rows_of(json.loads((DOCS / "benchmarks/serving.json").read_text()))
    pictures = [file.stem for file in (DOCS / "benchmarks").glob("*.svg")]
    page: Path = DOCS / "benchmarks.md"
    assert filled(PAGE.read_text(), rows, pictures) == page.read_text(), "run python -m benchmarks.report"


def test_a_target_is_judged_by_the_ratio_of_medians() -> None:
    cells = {"Mooring": {"64": cell(10, 400, 360)}, "raw loop": {"64": cell(100, 90, 5000)}}
    rows = rows_of({"rows": {"tiny": {"settings": ROUNDS, "notes": {}, "cells": cells}}})
    found = {one.what: one for one in verdicts(rows)}
    against_raw = found["requests/s, tiny model, 64 clients, against raw loop"]
    assert (against_raw.measured, against_raw.is_met) == ("3.6 x", True)
    unmeasured = found["requests/s, tiny model, 64 clients, against MLServer"]
    assert (unmeasured.measured, unmeasured.is_met) == (NOT_MEASURED, None)


def test_fronts_are_judged_by_what_two_cores_do_where_there_are_eight() -> None:
    def judged(cores: int, cells: dict[str, dict[str, list[dict[str, float]]]]) -> tuple[str, bool | None]:
        kept = {"settings": ROUNDS, "machine": {"cores": cores}, "notes": {}, "cells": cells}
        (verdict,) = verdicts(rows_of({"rows": {"fronts": kept}}))
        return verdict.measured, verdict.is_met

    cells = {"no fronts": {"64": cell(60)}, "2 fronts": {"64": cell(170)}}
    assert judged(2, cells) == ("needs 8 cores", None)
    assert judged(8, {**cells, "on 2 of the cores": {"64": cell(60)}}) == ("0.71 x", True)
    assert judged(16, {**cells, "on 2 of the cores": {"64": cell(60)}}) == ("0.35 x", False)


def test_what_is_just_missed_is_not_met() -> None:
    cells = {"Mooring": {"16": cell(94)}, "bare loop": {"16": cell(100)}}
    rows = rows_of({"rows": {"minilm": {"settings": {**ROUNDS, "clients": [16]}, "notes": {}, "cells": cells}}})
    (verdict,) = verdicts(rows)
    assert (verdict.measured, verdict.is_met) == ("94 %", False)
