"""What a profile says: the sentence that names what holds a run up, and a report that needs nothing but itself."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, sync_playwright
from profiles import BEGAN, GIB, write_rank

from mooring.training.json_lines import append_row
from mooring.training.profiling.report import finish_report, report_html, write_report
from mooring.training.profiling.steps import TimedStep, stretch
from mooring.training.profiling.summary import ProfileMissingError, read_profile
from mooring.training.profiling.verdict import judge

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WELL = {"data": 0.002, "forward": 0.02, "backward": 0.03, "optimizer": 0.004, "other": 0.001}
IDLE: dict[str, Any] = {"cpu": [0.3], "memory": [4 * GIB]}
BUSY: dict[str, Any] = {"cpu": [0.97], "memory": [4 * GIB]}


def verdict_of(folder: Path) -> tuple[str, str]:
    verdict = judge(read_profile(folder))
    return verdict.headline, " ".join(verdict.notes)


# --- the verdict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "samples", "words"),
    [
        (
            WELL | {"data": 0.09},
            IDLE,
            ["Waiting for data takes 62%", "90.0 ms of 145.0 ms", "only 30% busy", "num_"],
        ),
        (WELL | {"data": 0.09}, BUSY, ["Waiting for data takes 62%", "97% busy", "more workers would not help"]),
        (WELL | {"data": 0.09}, {}, ["Waiting for data takes 62%", "Try more workers"]),
        (WELL | {"checkpoint": 0.02}, IDLE, ["Checkpoints take 26%", "Save less often"]),
        (WELL | {"other": 0.06}, IDLE, ["52% of a step (60.0 ms of 116.0 ms) is in no phase"]),
        (WELL, IDLE | {"gpus": [[[0.2, 1, 4]]]}, ["The GPUs compute only 20% of the time"]),
        (WELL, IDLE | {"gpus": [[[0.95, 1, 4]]]}, ["Nothing stands out", "4% is waiting for data", "backward 53%"]),
        (WELL, IDLE, ["Nothing stands out. A step takes 57.0 ms"]),
    ],
)
def test_sentence_names_what_holds_the_run_up(
    tmp_path: Path, phases: Mapping[str, float], samples: dict[str, Any], words: list[str]
) -> None:
    write_rank(tmp_path, phases=phases, **samples)
    headline, _ = verdict_of(tmp_path)
    for word in words:
        assert word in headline


def test_rank_that_the_others_wait_for_is_named(tmp_path: Path) -> None:
    for rank in range(4):
        slow = rank == 2
        own = WELL | {"forward": 0.04 if slow else 0.02, "backward": 0.01 if slow else 0.03}
        write_rank(tmp_path, rank, phases=own, world_size=4)
    assert verdict_of(tmp_path)[0].startswith("Rank 2 holds up the others: what it does by itself takes 43.0 ms a step")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpu": [0.5], "memory": [15.5 * GIB]}, "Memory came within 3% of its limit of 16.0 GiB"),
        (IDLE | {"gpus": [[[0.9, 95, 100]]]}, "The memory of a GPU was 95% full"),
        ({"outside": {"validation": 6.0}}, "validation 48% went by between steps"),
        ({"has_end": False}, "Rank 0 left no end"),
        ({"world_size": 3}, "The files of 2 ranks are not in this folder"),
    ],
)
def test_what_is_worth_knowing_besides_is_noted(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    write_rank(tmp_path, phases=WELL, **given)
    assert words in verdict_of(tmp_path)[1]


def test_few_steps_say_nothing(tmp_path: Path) -> None:
    write_rank(tmp_path, phases=WELL | {"data": 9.0}, count=4)
    assert verdict_of(tmp_path)[0] == "There are 4 steps in this profile, too few to say what holds the run up."


def test_loop_without_phases_is_told_of_them(tmp_path: Path) -> None:
    write_rank(tmp_path, phases={"data": 0.001, "other": 0.05})
    headline, notes = verdict_of(tmp_path)
    assert headline.startswith("Nothing stands out")
    assert "The loop names no phases" in notes


def test_first_step_is_no_part_of_the_mean(tmp_path: Path) -> None:
    file = tmp_path / "rank-00000.jsonl"
    append_row(file, {"kind": "start", "at": BEGAN, "rank": 0})
    append_row(file, stretch([TimedStep(1, BEGAN, {"data": 30.0})]) | {"is_first": True})
    append_row(file, stretch([TimedStep(number, BEGAN + 30, {"data": 0.1}) for number in range(2, 12)]))
    profile = read_profile(tmp_path)
    assert profile.phases() == pytest.approx({"data": 0.1})
    assert profile.slowest(1)[0][1].seconds == 30.0


# --- reading ----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentile_is_within_a_class_of_the_right_one(seconds: list[float], share: float) -> None:
    from mooring.training.profiling.summary import Profile, RankProfile, _stretch

    row = stretch([TimedStep(number, 0.0, {"data": each}) for number, each in enumerate(seconds)])
    rank = RankProfile({"rank": 0, "at": 0.0})
    rank.stretches.append(_stretch(row))
    ordered = sorted(seconds)
    right = ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
    assert Profile([rank]).percentile(share) == pytest.approx(right, rel=0.011)


@settings(suppress_health_check=list(HealthCheck), max_examples=25, deadline=None)
@given(st.data())
def test_damaged_file_still_makes_a_report(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    write_rank(folder, phases=WELL, count=20, **IDLE)
    file = folder / "rank-00000.jsonl"
    content = bytearray(file.read_bytes())
    start = content.index(b"\n") + 1  # its beginning is whole: without one there is no rank
    for _ in range(data.draw(st.integers(1, 10))):
        content[data.draw(st.integers(start, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(start, len(content)))])
    assert "<main>" in report_html(read_profile(folder))


@pytest.mark.parametrize("content", [None, "", "{}", '{"kind": "end", "at": 1}\n', "\0\0"])
def test_folder_without_a_profile_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "rank-00000.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ProfileMissingError):
        read_profile(tmp_path)
    assert finish_report(tmp_path) is None
    done = subprocess.run(
        [str(Path(sys.executable).parent / "mooring"), "profile", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "holds no profile" in done.stderr


def test_report_is_finished_once(tmp_path: Path) -> None:
    write_rank(tmp_path, phases=WELL)
    assert finish_report(tmp_path) == tmp_path / "report.html"
    assert finish_report(tmp_path) is None


def test_launcher_makes_reports_with_the_standard_library_only() -> None:
    code = "import sys, mooring.training.launcher; print(sorted({'torch', 'numpy', 'psutil'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the report -------------------------------------------------------------------------------------------------------


MACHINE = IDLE | {
    "disk": [[1 << 20, 5 << 20], [0, 9 << 20]],
    "network": [[30 << 20, 1 << 20], [3 << 20, 1 << 20]],
    "gpus": [[[0.6, 10, 80], [0.5, 20, 80]], [[0.8, 12, 80], [0.7, 22, 80]]],
}


def whole_profile(folder: Path) -> Path:
    """Two hosts of two ranks, two GPUs each, with pauses, slow steps and a killed rank."""
    for rank in range(4):
        write_rank(
            folder,
            rank,
            phases=WELL | {"data": 0.03 + 0.01 * rank, "checkpoint": 0.001},
            world_size=4,
            slow={50: 6.0, 120: 3.0},
            host=f"algo-{rank // 2 + 1}",
            has_end=rank != 3,
            outside={"validation": 2.0},
            **(MACHINE if rank % 2 == 0 else {}),  # the first rank of each host
        )
    return write_report(folder)


def test_report_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = whole_profile(tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"<script|https?://|@import|url\(|<img|<link rel=.stylesheet", text)
    assert "digits &lt;2026&gt;" in text
    assert "digits <2026>" not in text
    for words in ("algo-1, algo-2", "GPU 1 memory", "Slowest steps", "Ranks", "checkpoint", "Rank 3 left no end"):
        assert words in text


def test_many_gpus_are_told_as_a_few_lines(tmp_path: Path) -> None:
    gpus = [[0.1 * index, index, 80] for index in range(8)]
    write_rank(tmp_path, phases=WELL, **IDLE, gpus=[gpus])
    text = report_html(read_profile(tmp_path))
    assert "GPU 7" not in text
    for words in ("GPUs, mean <b>35% mean", "least busy GPU <b>0% mean", "fullest GPU memory <b>9% mean"):
        assert words in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_browser_shows_it_without_a_word_and_without_asking_for_anything(
    tmp_path: Path, browser: Browser, width: int, scheme: Any
) -> None:
    file = whole_profile(tmp_path)
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert page.get_by_role("heading", name="What a step is made of").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out of a phone
    drawn = page.locator("svg path, svg rect").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().width)"
    )
    assert len(drawn) > 50
    assert max(drawn) > width / 3
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    page.close()
