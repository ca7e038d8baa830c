"""The profiler beside a loop: what it counts, what it survives, and that it asks nothing of the run."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from disks import can_mount, small_disk
from jobs import write_config
from training_jobs import TIMEOUT_S, Job

from mooring.contract.debugger_config import ProfilerConfig, read_profiler_config
from mooring.contract.errors import ConfigurationFileError, SettingError
from mooring.contract.paths import ContainerPaths
from mooring.training import Profiler
from mooring.training.json_lines import read_rows
from mooring.training.profiling import recorder
from mooring.training.profiling.gpus import GpuUsage
from mooring.training.profiling.recorder import Recorder, RunTime, rank_file
from mooring.training.profiling.steps import MarkedStep
from mooring.training.profiling.summary import read_profile

FACTS = {"rank": 0, "local_rank": 0, "world_size": 1, "host": "algo-1", "job": "job"}
LOOP = """
import os, sys, signal, time
from mooring.training import Profiler, process_group
with process_group() as group, Profiler() as profiler:
    for number in profiler.steps(range(40)):
        with profiler.phase("forward"):
            time.sleep(0.002)
        if {condition}:
            os.kill(os.getpid(), signal.SIGKILL)
print("WELL")
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def folder(base: Path) -> Path:
    return base / "output/data/profile"


def wait_until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    file = rank_file(folder, 0)
    return [row for row in read_rows(file) if row["kind"] == kind] if file.exists() else []


# --- what is counted --------------------------------------------------------------------------------------------------


def test_step_is_the_wait_for_a_batch_and_what_is_done_with_it(folder: Path) -> None:
    with Profiler() as profiler:
        for _ in range(2):
            for _ in profiler.steps([1, 2, 3]):
                with profiler.phase("forward"), profiler.phase("loss"):
                    pass
                with profiler.phase("backward"):
                    pass
            with profiler.phase("validation"):
                pass
    profile = read_profile(folder)
    assert profile.ranks[0].count == 6
    assert profile.ranks[0].has_ended
    assert set(profile.phases()) == {"data", "forward", "loss", "backward", "other"}
    assert set(profile.outside()) == {"validation"}
    assert [step.number for _, step in sorted(profile.slowest(9), key=lambda each: each[1].number)][:1] == [1]
    assert (folder / "report.html").exists()


def test_time_of_a_phase_within_a_phase_is_the_inner_ones(folder: Path) -> None:
    with Profiler() as profiler:
        for _ in profiler.steps([1]):
            with profiler.phase("outer"), profiler.phase("inner"):
                time.sleep(0.05)
    phases = read_profile(folder).phases()
    assert phases["inner"] >= 0.05 > phases["outer"]


def test_step_that_a_loop_is_left_in_counts_and_numbers_go_on(folder: Path) -> None:
    with Profiler() as profiler:
        for number in profiler.steps(range(10), after=99):
            if number == 3:
                break
        for _ in profiler.steps(range(2)):
            pass
    profile = read_profile(folder)
    assert profile.ranks[0].count == 6
    assert {step.number for _, step in profile.slowest(99)} <= set(range(100, 106))


def test_loop_that_fails_keeps_its_error_and_its_profile(folder: Path) -> None:
    def loop() -> None:
        with Profiler() as profiler:
            for number in profiler.steps(range(3)):
                with profiler.phase("forward"):
                    1 / (2 - number)

    with pytest.raises(ZeroDivisionError):
        loop()
    assert rows(folder, "end")[0]["is_well"] is False
    assert (folder / "report.html").exists()


def test_samples_are_taken_while_a_step_is_long(folder: Path) -> None:
    with Profiler() as profiler:
        for _ in profiler.steps([1]):
            wait_until(lambda: len(rows(folder, "sample")) >= 2)
    first = rows(folder, "sample")[0]
    assert 0 <= first["cpu"] <= 1
    assert first["memory"] > 0
    assert first["rank_memory"] > 0
    assert {"disk", "network", "disk_free", "rank_cores"} <= first.keys()


class LateClock:
    """A clock as a GPU's: what is marked is passed when the test says so."""

    def __init__(self) -> None:
        self.passed = 0
        self._marks = 0

    def mark(self) -> int:
        self._marks += 1
        return self._marks

    def is_passed(self, mark: int) -> bool:
        return mark <= self.passed

    def seconds(self, earlier: int, later: int) -> float:
        assert later <= self.passed, "read before the device had come so far"
        return float(later - earlier)

    def wait(self, mark: int) -> None:
        self.passed = mark


def test_steps_of_a_device_are_timed_once_it_has_done_them(tmp_path: Path) -> None:
    beside = Recorder(ContainerPaths(tmp_path), ProfilerConfig(tmp_path / "p", interval_ms=100), FACTS)
    clock = beside.clock = LateClock()
    for number in (1, 2, 3):
        begin, end = clock.mark(), clock.mark()
        beside.done.append(MarkedStep(number, 0.0, (("data", begin),), end))
    clock.passed = 4
    beside.start()
    wait_until(lambda: len(rows(tmp_path / "p", "steps")) == 2)
    assert [row["count"] for row in rows(tmp_path / "p", "steps")] == [1, 1]
    beside.stop(is_well=True)  # which waits for the device
    assert [row["count"] for row in rows(tmp_path / "p", "steps")] == [1, 1, 1]


@pytest.mark.gpu
def test_gpus_own_clock_times_what_it_does(folder: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    matrix = torch.randn(2048, 2048, device="cuda")
    with Profiler() as profiler:
        for _ in profiler.steps(range(20)):
            with profiler.phase("forward"):
                matrix = matrix @ matrix / 2048
    assert read_profile(folder).phases()["forward"] > 0


def test_gpus_are_sampled_by_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nwhile :; do echo '0, 87, 1024, 2048'; echo '1, [N/A], 1, 2'; sleep 0.05; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    usage = GpuUsage(100)
    try:
        wait_until(lambda: usage.sample())
        assert usage.sample() == {"gpus": [[0.87, float(1 << 30), float(2 << 30)]]}
    finally:
        usage.close()


def test_tool_that_is_missing_or_fails_samples_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GpuUsage(100).sample() == {}
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    usage = GpuUsage(100)
    assert usage.sample() == {}
    usage.close()


# --- configuration ----------------------------------------------------------------------------------------------------


def test_without_a_file_a_profile_goes_where_it_is_uploaded(tmp_path: Path) -> None:
    config = read_profiler_config(ContainerPaths(tmp_path), {})
    assert config == ProfilerConfig(tmp_path / "output/data/profile", is_enabled=True, interval_ms=500)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, (True, 500)),
        ({"ProfilingIntervalInMilliseconds": 1000}, (True, 1000)),
        ({"ProfilingIntervalInMilliseconds": "200", "DisableProfiler": False}, (True, 200)),
        ({"DisableProfiler": True}, (False, 500)),
        ({"DisableProfiler": "true"}, (False, 500)),
        ({"ProfilingParameters": {"ProfilerEnabled": "False"}}, (False, 500)),
    ],
)
def test_platforms_file_is_read(tmp_path: Path, content: dict[str, Any], expected: tuple[bool, int]) -> None:
    write_config(tmp_path, "profilerconfig.json", content)
    config = read_profiler_config(ContainerPaths(tmp_path), {})
    assert (config.is_enabled, config.interval_ms) == expected
    assert config.directory == tmp_path / "output/profiler"


@pytest.mark.parametrize(
    ("content", "asked", "by_default", "is_enabled"),
    [
        (None, "", False, False),
        (None, "true", False, True),
        (None, "0", True, False),
        ({}, "", False, True),
        ({"DisableProfiler": True}, "on", False, True),
        ({}, "off", True, False),
    ],
)
def test_variable_comes_before_the_file_and_the_file_before_the_default(
    tmp_path: Path, content: dict[str, Any] | None, asked: str, by_default: bool, is_enabled: bool
) -> None:
    if content is not None:
        write_config(tmp_path, "profilerconfig.json", content)
    config = read_profiler_config(ContainerPaths(tmp_path), {"MOORING_PROFILE": asked}, by_default=by_default)
    assert config.is_enabled is is_enabled


def test_variable_that_says_neither_yes_nor_no_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='MOORING_PROFILE is "perhaps"; expected true or false'):
        read_profiler_config(ContainerPaths(tmp_path), {"MOORING_PROFILE": "perhaps"})


def test_folder_may_stand_among_the_parameters(tmp_path: Path) -> None:
    write_config(tmp_path, "profilerconfig.json", {"ProfilingParameters": {"LocalPath": "/opt/ml/output/profiler"}})
    assert read_profiler_config(ContainerPaths(tmp_path), {}).directory == Path("/opt/ml/output/profiler")


@pytest.mark.parametrize(
    "content",
    [
        {"ProfilingIntervalInMilliseconds": 0},
        {"ProfilingIntervalInMilliseconds": True},
        {"ProfilingIntervalInMilliseconds": "often"},
        {"DisableProfiler": "perhaps"},
        {"LocalPath": 3},
        {"ProfilingParameters": []},
        [],
    ],
)
def test_garbage_is_named_and_the_run_is_profiled_without_it(
    base: Path, folder: Path, content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_config(base, "profilerconfig.json", content)
    with pytest.raises(ConfigurationFileError):
        read_profiler_config(ContainerPaths(base), {})
    with Profiler() as profiler:
        assert list(profiler.steps([1, 2])) == [1, 2]
    assert "profilerconfig.json" in caplog.text
    assert read_profile(folder).ranks[0].count == 2


def test_disabled_profiler_leaves_nothing(base: Path) -> None:
    write_config(base, "profilerconfig.json", {"DisableProfiler": True})
    before = threading.active_count()
    with Profiler() as profiler:
        for _ in profiler.steps([1, 2]):
            with profiler.phase("forward"):
                pass
    assert not (base / "output").exists()
    assert threading.active_count() == before


def test_configuration_that_changes_while_the_job_runs_is_heeded(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    out = base / "output/profiler"
    write_config(base, "profilerconfig.json", {"ProfilingIntervalInMilliseconds": 100})
    with Profiler() as profiler:
        for number in profiler.steps(range(3)):
            if number == 0:
                wait_until(lambda: rows(out, "sample"))
                write_config(base, "profilerconfig.json", {"DisableProfiler": True, "LocalPath": str(base / "else")})
                wait_until(lambda: "profiling is now off" in caplog.text)
            elif number == 1:
                write_config(base, "profilerconfig.json", "garbage")
                wait_until(lambda: "Profiling goes on as before" in caplog.text)
                write_config(base, "profilerconfig.json", {"ProfilingIntervalInMilliseconds": 100})
                wait_until(lambda: "profiling is now on" in caplog.text)
    profile = read_profile(out)
    assert {step.number for _, step in profile.slowest(9)} == {2, 3}  # which ended while it was on
    assert not (base / "else").exists()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_folder_that_cannot_be_written_costs_the_profile_only(
    base: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    with Profiler() as profiler:
        assert list(profiler.steps([1, 2])) == [1, 2]
    assert "The profile of this run has gaps" in caplog.text
    assert "report could not be made" in caplog.text


def fill(folder: Path) -> None:
    """Leave no byte of a disk."""
    with suppress(OSError), (folder / "more").open("ab", buffering=0) as more:
        while True:
            more.write(b"x" * 512)


@pytest.mark.skipif(not can_mount(Path("/tmp/mooring-can-mount")), reason="this process may mount no disk")
def test_full_disk_costs_the_profile_only_and_what_is_there_is_whole(
    base: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(folder, 64 << 10):
        (folder / "ballast").write_bytes(b"x" * (56 << 10))
        write_config(base, "profilerconfig.json", {"ProfilingIntervalInMilliseconds": 100, "LocalPath": str(folder)})
        with Profiler() as profiler:
            for _ in profiler.steps(range(3)):
                fill(folder)
            wait_until(lambda: "No space left" in caplog.text)
        for line in rank_file(folder, 0).read_text(encoding="utf-8").splitlines():
            json.loads(line)


def test_jump_of_the_clock_is_none_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunTime()
    began = run.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= run.now() - began < 60


def test_long_run_writes_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "THIN_AFTER_BYTES", 400)
    beside = Recorder(ContainerPaths(tmp_path), ProfilerConfig(tmp_path / "p", interval_ms=1), FACTS)
    beside.start()
    wait_until(lambda: len(rows(tmp_path / "p", "sample")) >= 20)
    assert beside.stride >= 8
    beside.stop(is_well=True)


def test_rank_that_is_killed_leaves_a_report_all_the_same(tmp_path: Path) -> None:
    job = Job.write(tmp_path, LOOP.format(condition="group.rank == 1 and number == 30"), ranks=2)
    write_config(
        tmp_path, "profilerconfig.json", {"ProfilingIntervalInMilliseconds": 100, "LocalPath": str(tmp_path / "p")}
    )
    code, output = job.run()
    assert code == 137, output
    assert "the profile of this run is in" in output
    assert "left no end" in (tmp_path / "p/report.html").read_text(encoding="utf-8")


def test_both_ranks_are_in_the_report_of_a_run_that_ends_well(tmp_path: Path) -> None:
    job = Job.write(tmp_path, LOOP.format(condition="False"), ranks=2)
    code, output = job.run()
    assert code == 0, output
    profile = read_profile(job.paths.output_data / "profile")
    assert [(rank.rank, rank.count, rank.has_ended) for rank in profile.ranks] == [(0, 40, True), (1, 40, True)]


def test_library_works_without_its_launcher(base: Path, folder: Path) -> None:
    script = base / "loop.py"
    script.write_text(LOOP.format(condition="number == 35"), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == -9
    assert not (folder / "report.html").exists()
    made = subprocess.run(
        [str(Path(sys.executable).parent / "mooring"), "profile", str(folder)], capture_output=True, text=True
    )
    if rank_file(folder, 0).exists():
        assert made.returncode == 0, made.stderr
        assert "left no end" in made.stdout
