"""Containers as processes: variables, signals, exit codes, and nothing left running."""

import json
import os
from pathlib import Path

import psutil
import pytest
from servers import wait_until

from mooring.contract.environment import TrainingEnvironment
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.platform_files import write_training_inputs
from mooring.runner.process_runner import CommandNotFoundError, ProcessRunner, RunningProcess


def start(base: Path, *command: str, lines: list[str] | None = None, **variables: str) -> RunningProcess:
    seen = lines if lines is not None else []
    return ProcessRunner(on_line=seen.append).start(ContainerSpec(command, base, variables))


def test_container_sees_its_variables_and_not_this_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "somebody-elses.py")
    lines: list[str] = []
    with start(tmp_path, "env", lines=lines, MINE="1") as process:
        assert process.wait(10) == 0
    variables = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
    assert variables["MINE"] == "1"
    assert variables["SAGEMAKER_BASE_DIR"] == str(tmp_path)
    assert "SAGEMAKER_PROGRAM" not in variables


def test_both_streams_are_relayed_line_by_line(tmp_path: Path) -> None:
    lines: list[str] = []
    with start(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 7", lines=lines) as process:
        assert process.wait(10) == 7
    assert sorted(lines) == ["err\n", "out\n"]


def test_stop_is_sigterm_then_after_the_grace_a_kill(tmp_path: Path) -> None:
    lines: list[str] = []
    with start(
        tmp_path, "sh", "-c", "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done", lines=lines
    ) as it:
        while not lines:
            os.sched_yield()
        assert it.stop(grace_seconds=0.5) == -9
    assert lines == ["up\n", "asked\n"]


def test_leaving_the_block_ends_the_whole_group(tmp_path: Path) -> None:
    lines: list[str] = []
    with start(tmp_path, "sh", "-c", "sleep 1000 & echo $!; wait", lines=lines):
        while not lines:
            os.sched_yield()
    wait_until(lambda: has_ended(int(lines[0])))


def test_leaving_the_block_ends_what_outlived_the_first_process(tmp_path: Path) -> None:
    lines: list[str] = []
    with start(tmp_path, "sh", "-c", "sleep 1000 & echo $!", lines=lines) as it:
        wait_until(lambda: it.poll() == 0 and lines)
    wait_until(lambda: has_ended(int(lines[0])))


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandNotFoundError, match="no command 'no-such-thing'"):
        start(tmp_path, "no-such-thing")


def test_written_inputs_are_read_back_as_the_platforms(tmp_path: Path) -> None:
    paths = write_training_inputs(
        tmp_path,
        hyperparameters={"epochs": 3, "name": "adam", "rates": [0.1, 0.2]},
        channels={"train": "text/csv"},
        hosts=("algo-2", "algo-1"),
        current_host="algo-2",
    )
    assert set(json.loads(paths.hyperparameters_file.read_text(encoding="utf-8")).values()) == {
        "3",
        '"adam"',
        "[0.1, 0.2]",
    }
    environment = TrainingEnvironment.load({"SAGEMAKER_BASE_DIR": str(tmp_path)})
    assert environment.hyperparameters == {"epochs": 3, "name": "adam", "rates": [0.1, 0.2]}
    assert environment.channels["train"].content_type == "text/csv"
    assert (environment.cluster.hosts, environment.cluster.host_rank) == (("algo-1", "algo-2"), 1)
