"""`train` run for real: processes, signals, pipes, exit codes and what is left behind."""

import signal
import time
from pathlib import Path

import psutil
import pytest
from training_jobs import Job

# Waits for ever, and says which signals reached it.
PATIENT = """
import os, signal, sys, time
def stop(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""


def script(base: Path, text: str, **given: object) -> Job:
    return Job.write(base, text, **given)  # type: ignore[arg-type]


def shell(base: Path, text: str) -> Job:
    """A job that needs no Python, and so starts at once."""
    return Job.write(base, f"#!/bin/bash\n{text}\n", name="train.sh")


# --- what a script finds ----------------------------------------------------------------------------------------------


def test_arguments_are_never_seen_by_a_shell(tmp_path: Path) -> None:
    job = Job.write(
        tmp_path,
        '#!/bin/bash\nprintf "<%s>" "$@"\n',
        name="train.sh",
        hyperparameters={"a": "$(touch /tmp/x); `id` * 'q' \"d\"", "b": "x y"},
    )
    code, output = job.run()
    assert code == 0
    assert "<-a><$(touch /tmp/x); `id` * 'q' \"d\"><-b><x y>" in output


def test_python_script_runs_as_main_with_its_folder_importable(tmp_path: Path) -> None:
    job = script(
        tmp_path,
        "import neighbour, os, sys\n"
        "print(__name__, sys.argv[1:], neighbour.VALUE, os.environ['SM_HP_EPOCHS'], os.environ.get('RANK'))\n",
        hyperparameters={"epochs": 3},
    )
    (job.paths.code / "neighbour.py").write_text("VALUE = 41 + 1", encoding="utf-8")
    code, output = job.run()
    assert code == 0
    assert "__main__ ['--epochs', '3'] 42 3 None" in output
    assert job.paths.success.exists()
    assert not job.paths.failure.exists()


def test_script_that_does_without_torch_runs_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that only serves, or one that trains with something else."""
    (tmp_path / "no-torch").mkdir()
    hides = "import sys\nsys.modules['torch'] = None\n"
    (tmp_path / "no-torch/sitecustomize.py").write_text(hides, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "no-torch"), prepend=":")
    code, output = script(tmp_path, "import sys; print('torch is', sys.modules['torch'])").run()
    assert code == 0, output
    assert "torch is None" in output


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ranks_meet_without_settings_of_the_scripts(tmp_path: Path, method: str) -> None:
    text = (
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "ones = torch.ones(1)\n"
        "dist.all_reduce(ones)\n"
        "print(f'rank {dist.get_rank()} sees {int(ones)}')\n"
        "dist.destroy_process_group()\n"
    )
    code, output = script(tmp_path, text, ranks=3).run(MOORING_START_METHOD=method)
    assert code == 0
    assert sorted(line for line in output.splitlines() if "sees" in line) == [f"rank {n} sees 3" for n in range(3)]


def test_atexit_and_threads_of_a_script_are_waited_for(tmp_path: Path) -> None:
    text = (
        "import atexit, threading, time\n"
        "atexit.register(print, 'goodbye')\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('thread done'))).start()\n"
    )
    code, output = script(tmp_path, text).run()
    assert code == 0
    assert "thread done" in output
    assert "goodbye" in output


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "failure"),
    [
        ("exit 3", 3, "ended with exit code 3"),
        ("echo why >&2; kill -9 $$", 137, "killed by SIGKILL"),
        ("kill -SEGV $$", 139, "killed by SIGSEGV"),
        ("exit 0", 0, None),
    ],
)
def test_exit_code_is_the_scripts_own(tmp_path: Path, text: str, code: int, failure: str | None) -> None:
    job = shell(tmp_path, text)
    assert job.run()[0] == code
    assert job.paths.success.exists() == (failure is None)
    if failure is not None:
        assert failure in job.failure


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_first_failing_rank_is_named_with_its_root_cause(tmp_path: Path, method: str) -> None:
    text = (
        "import os, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "if dist.get_rank() == 1:\n"
        "    raise KeyError('no such column')\n"
        "dist.all_reduce(torch.ones(1))\n"
    )
    job = script(tmp_path, text, ranks=2)
    code, output = job.run(MOORING_START_METHOD=method)
    assert code == 1
    assert job.failure.startswith("KeyError: 'no such column' (rank 1 of 2 on algo-1, exit code 1)\nat ")
    assert "train.py:4 in <module>" in job.failure.splitlines()[1]
    assert "runpy" not in output
    assert not job.paths.success.exists()


def test_script_that_raised_and_whose_process_then_aborts_ended_with_one(tmp_path: Path) -> None:
    job = script(tmp_path, "import atexit, os\natexit.register(os.abort)\nraise KeyError('no such column')\n")
    code, _ = job.run()
    assert code == 1
    assert job.failure.startswith("KeyError: 'no such column' (algo-1, exit code 1)\nat ")


def test_system_exit_of_a_script_means_what_it_means_in_python(tmp_path: Path) -> None:
    job = script(tmp_path, "import sys\nsys.exit('because')\n")
    code, output = job.run()
    assert code == 1
    assert "because" in output
    assert "because" in job.failure


def test_outcome_of_an_earlier_run_is_forgotten(tmp_path: Path) -> None:
    job = shell(tmp_path, '[ -e "$SM_OUTPUT_DIR/../second" ] || exit 5')
    assert job.run()[0] == 5
    assert job.paths.failure.exists()
    (tmp_path / "second").touch()
    assert job.run()[0] == 0
    assert not job.paths.failure.exists()


def test_damaged_configuration_ends_with_one_and_a_failure_file(tmp_path: Path) -> None:
    job = shell(tmp_path, "exit 0")
    job.paths.resource_config_file.write_text('{"current_host": "algo-1"}', encoding="utf-8")
    assert job.run()[0] == 1
    assert "resourceconfig.json, field 'hosts'" in job.failure


def test_nothing_to_run_is_explained(tmp_path: Path) -> None:
    job = Job.write(tmp_path)
    assert job.run()[0] == 1
    assert "SAGEMAKER_PROGRAM" in job.failure
    assert "image-classification" in job.failure


def test_secrets_are_not_in_the_log(tmp_path: Path) -> None:
    job = Job.write(
        tmp_path, "#!/bin/bash\nexit 0\n", name="train.sh", hyperparameters={"hub_token": "hunter2", "epochs": 3}
    )
    output = job.run()[1]
    assert "hunter2" not in output
    assert "'epochs': 3" in output


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_reaches_every_rank_and_waits_for_it(tmp_path: Path, number: signal.Signals) -> None:
    run = script(tmp_path, PATIENT, ranks=2).start()
    with run.process:
        run.wait_for_line("waiting", 2)
        run.signal(number)
        assert run.wait() == 0
    assert run.output.count(f"got {number.name}") == 2


def test_stop_reaches_rank_leaders_only(tmp_path: Path) -> None:
    """A DataLoader worker that gets SIGTERM would take its rank with it."""
    text = (
        "worker() { trap 'echo worker signalled' TERM; for i in {1..100}; do sleep 0.05; done; }\n"
        "worker &\ntrap 'echo leader signalled; exit 0' TERM\necho waiting\nwhile true; do sleep 0.05; done"
    )
    run = shell(tmp_path, text).start()
    with run.process:
        run.wait_for_line("waiting")
        run.signal()
        assert run.wait() == 0
    assert "leader signalled" in run.output
    assert "worker signalled" not in run.output


@pytest.mark.slow
def test_save_of_forty_seconds_is_waited_for_while_loader_workers_live(tmp_path: Path) -> None:
    """Half a minute is what torch's own launcher would have given it; its workers must not be signalled."""
    text = (
        "import signal, time\n"
        "from torch.utils.data import DataLoader\n"
        "from mooring.training import StopRequest, process_group\n"
        "def main():\n"
        "    with process_group() as group, StopRequest() as stop:\n"
        "        for count, _ in enumerate(DataLoader(range(100_000), batch_size=1, num_workers=2)):\n"
        "            if count == 10:\n"
        "                print('training', flush=True)\n"
        "            if stop.agreed():\n"
        "                break\n"
        "            time.sleep(0.01)\n"
        "        time.sleep(40)\n"
        "        print('saved after', count, flush=True)\n"
        "main()\n"
    )
    run = script(tmp_path, text, ranks=2).start()
    with run.process:
        run.wait_for_line("training", 2)
        run.signal()
        assert run.wait() == 0
    saved = [line.split()[-1] for line in run.lines if line.startswith("saved after")]
    assert len(saved) == 2
    assert saved[0] == saved[1]


def test_rank_that_ignores_the_stop_is_killed_with_all_it_started(tmp_path: Path) -> None:
    run = shell(tmp_path, "trap '' TERM\nsleep 1000 &\necho waiting\nwhile true; do sleep 0.05; done").start(
        MOORING_GRACE_SECONDS="0.5"
    )
    with run.process:
        run.wait_for_line("waiting")
        family = run.family()
        run.signal()
        assert run.wait() == 137
    assert not psutil.wait_procs(family, timeout=5)[1]
    failure = (tmp_path / "output/failure").read_text(encoding="utf-8")
    assert failure.startswith("The training program did not end when it was asked to, and was killed")


def test_where_an_unwilling_rank_was_is_told(tmp_path: Path) -> None:
    """Blocked in a system call that goes on after every signal, it could not have said so itself."""
    text = (
        "import signal, socket\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "def wait_for_nobody():\n"
        "    ours, theirs = socket.socketpair()\n"
        "    ours.recv(1)\n"
        "print('waiting', flush=True)\n"
        "wait_for_nobody()\n"
    )
    job = script(tmp_path, text)
    run = job.start(MOORING_GRACE_SECONDS="0.5")
    with run.process:
        run.wait_for_line("waiting")
        run.signal()
        assert run.wait() == 137
    assert "rank 0 was at" in job.failure
    assert "train.py:5 in wait_for_nobody" in job.failure


def test_rank_that_keeps_the_others_waiting_is_named(tmp_path: Path) -> None:
    text = (
        "import datetime, time, torch, torch.distributed as dist\n"
        "from mooring.training import process_group\n"
        "def load_for_ever():\n"
        "    time.sleep(1000)\n"
        "with process_group(datetime.timedelta(seconds=5)) as group:\n"
        "    dist.barrier()\n"
        "    if group.rank == 1:\n"
        "        load_for_ever()\n"
        "    dist.all_reduce(torch.ones(1))\n"
    )
    job = script(tmp_path, text, ranks=3)
    assert job.run()[0] != 0
    assert "Meanwhile rank 1 was at" in job.failure, job.failure
    assert "train.py:4 in load_for_ever" in job.failure


def test_second_signal_ends_it_now(tmp_path: Path) -> None:
    run = shell(tmp_path, "trap 'echo ignored' TERM\necho waiting\nwhile true; do sleep 0.05; done").start()
    with run.process:
        run.wait_for_line("waiting")
        run.signal()
        run.wait_for_line("ignored")
        started = time.monotonic()
        run.signal()
        assert run.wait() == 137
        assert time.monotonic() - started < 50  # not the grace of 100 s


def test_stop_before_the_ranks_have_started_is_not_lost(tmp_path: Path) -> None:
    run = script(tmp_path, PATIENT).start()
    with run.process:
        run.wait_for(lambda: psutil.Process(run.process.pid).children())
        run.signal()  # the agent is importing torch
        assert run.wait() in (0, 143)  # the script caught it, or had not got so far


def test_what_ranks_leave_running_is_ended_with_them(tmp_path: Path) -> None:
    run = shell(tmp_path, "sleep 1000 &\necho started $!\nsetsid sleep 1000 &\necho started $!\n").start()
    with run.process:
        assert run.wait() == 0
    pids = [int(line.split()[1]) for line in run.lines if line.startswith("started")]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_output_of_eight_fast_ranks_is_neither_torn_nor_lost(tmp_path: Path) -> None:
    """400,000 lines as fast as they can be written: each of the 16 streams whole, and in its own order."""
    text = 'seq -f "rank $RANK out %.0f" 25000 & seq -f "rank $RANK err %.0f" 25000 >&2; wait'
    job = shell(tmp_path, text)
    code, output = job.run(MOORING_PROCESSES_PER_HOST="8")
    assert code == 0
    streams: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("rank "):
            name, _, number = line.rpartition(" ")
            streams.setdefault(name, []).append(number)
    assert set(streams) == {f"rank {rank} {stream}" for rank in range(8) for stream in ("out", "err")}
    assert all(numbers == [str(number) for number in range(1, 25001)] for numbers in streams.values())


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_killed_rank_ends_the_run_with_its_own_code(tmp_path: Path) -> None:
    run = script(tmp_path, PATIENT, ranks=2).start()
    with run.process:
        run.wait_for_line("waiting", 2)
        family = run.family()
        run.ranks()[1].kill()
        assert run.wait() == 137
    assert not psutil.wait_procs(family, timeout=5)[1]
    failure = (tmp_path / "output/failure").read_text(encoding="utf-8")
    assert failure.startswith("The training program was killed by SIGKILL")
    assert "rank 1 of 2" in failure


def test_killed_agent_takes_its_ranks_along_and_is_named(tmp_path: Path) -> None:
    run = script(tmp_path, PATIENT, ranks=2).start()
    with run.process:
        run.wait_for_line("waiting", 2)
        family = run.family()
        run.agent().kill()
        assert run.wait() == 137
    assert not psutil.wait_procs(family, timeout=5)[1]
    assert "process that starts the ranks" in (tmp_path / "output/failure").read_text(encoding="utf-8")


def test_killed_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    run = script(tmp_path, PATIENT, ranks=2).start()
    with run.process:
        run.wait_for_line("waiting", 2)
        family = run.family()
        run.signal(signal.SIGKILL)
        assert not psutil.wait_procs(family[1:], timeout=10)[1]


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_failed_ranks_are_started_again_as_often_as_allowed(tmp_path: Path) -> None:
    text = 'echo attempt; cd "$SM_OUTPUT_DATA_DIR"; echo x >> tries; [ $(wc -l < tries) -ge 3 ] || exit 7'
    job = shell(tmp_path, text)
    code, output = job.run(MOORING_MAX_RESTARTS="2")
    assert code == 0
    assert output.splitlines().count("attempt") == 3
    assert "rank 0 ended with exit code 7; starting the ranks again, restart 2" in output
    assert not job.paths.failure.exists()


def test_last_failure_counts_when_no_restart_is_left(tmp_path: Path) -> None:
    job = shell(tmp_path, "exit 7")
    code, output = job.run(MOORING_MAX_RESTARTS="1")
    assert code == 7
    assert output.count("starting the ranks again") == 1
    assert "exit code 7" in job.failure


def test_nothing_is_started_again_after_a_stop(tmp_path: Path) -> None:
    run = shell(tmp_path, "trap 'exit 3' TERM\necho waiting\nwhile true; do sleep 0.05; done").start(
        MOORING_MAX_RESTARTS="5"
    )
    with run.process:
        run.wait_for_line("waiting")
        run.signal()
        assert run.wait() == 3
    assert run.output.count("waiting") == 1


def test_stop_while_ranks_are_started_again_ends_the_run(tmp_path: Path) -> None:
    """However it falls between two attempts, nothing hangs and nothing is left."""
    run = shell(tmp_path, "exit 7").start(MOORING_MAX_RESTARTS="100000")
    with run.process:
        run.wait_for_line("starting the ranks again", 3)
        family = run.family()
        run.signal()
        assert run.wait() in (7, 143)
    assert not psutil.wait_procs(family, timeout=5)[1]


def test_error_of_a_rank_that_fails_at_once_is_not_lost(tmp_path: Path) -> None:
    job = script(tmp_path, "raise ValueError('at once')", ranks=2)
    assert job.run(MOORING_MAX_RESTARTS="1")[0] == 1
    assert job.failure.startswith("ValueError: at once")
