from pathlib import Path

from benchmarks.serving_suite.record import Results

SETTINGS = {"rounds": 2, "seconds": 1.0}


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    Results(tmp_path / "results.json").row("tiny", SETTINGS, is_resumed=False).add("raw loop", "16", {"rps": 1.0})
    row = Results(tmp_path / "results.json").row("tiny", SETTINGS, is_resumed=True)
    assert row.cell("raw loop", "16") == [{"rps": 1.0}]
    assert row.cell("raw loop", "64") == []
    assert not row.is_complete


def test_a_new_run_replaces_its_rows_and_keeps_the_others(tmp_path: Path) -> None:
    for name in ("tiny", "load"):
        Results(tmp_path / "results.json").row(name, SETTINGS, is_resumed=False).add("Mooring", "1", 2.0)
    Results(tmp_path / "results.json").row("tiny", SETTINGS, is_resumed=False).note("Mooring", best="one worker")
    results = Results(tmp_path / "results.json")
    assert results.rows["tiny"]["cells"] == {}
    assert results.row("load", SETTINGS, is_resumed=True).cell("Mooring", "1") == [2.0]


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    Results(tmp_path / "results.json").row("tiny", SETTINGS, is_resumed=False).add("Mooring", "1", 2.0)
    row = Results(tmp_path / "results.json").row("tiny", {**SETTINGS, "seconds": 3.0}, is_resumed=True)
    assert row.cell("Mooring", "1") == []
