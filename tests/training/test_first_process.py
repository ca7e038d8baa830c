"""A container that the platform starts with bash, as SDK v3 does: namespaces of its own, and bash as process 1."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from jobs import ONE_HOST, write_config
from training_jobs import TIMEOUT_S, Run

from mooring.runner.container_spec import ContainerSpec

BIN = Path(sys.executable).parent
BASH_ENV = Path(__file__).parents[2] / "docker/bash_env.sh"
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="this machine lets us make no process namespaces",
)

# What SDK v3 puts into its channels, as far as signals and exit codes meet it.
SM_TRAIN = """
#!/bin/bash
set -e
trap 'exit $?' ERR
cd "$SAGEMAKER_BASE_DIR/input/data/code"
python3 "$SAGEMAKER_BASE_DIR/input/data/sm_drivers/distributed_drivers/torchrun_driver.py"
echo "Training Container Execution Completed"
"""
DRIVER = """
import os, subprocess, sys
process = subprocess.Popen(os.environ["DRIVES"].split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
for line in process.stdout:
    print(line.decode().rstrip(), flush=True)
sys.exit(process.wait())
"""
TRAINS = """
import os, time, torch
from torch import nn
from mooring.training import Checkpointer, StopRequest, TrainingState, prepare, process_group, report
with process_group() as group:
    model = prepare(nn.Linear(8, 8), group, torch.zeros(2, 8))
    state = TrainingState(model, torch.optim.SGD(model.parameters(), 0.1))
    with StopRequest() as stop, Checkpointer(state) as checkpoints:
        # In one piece each: the pipe of the SDK's driver is shared by all ranks.
        os.write(1, f"resumed at {checkpoints.resume()}\\n".encode())
        while not stop.agreed() and state.step < int(os.environ["STEPS"]):
            model(torch.ones(2, 8)).sum().backward()
            state.step += 1
            if state.step % 5 == 0:
                report(step=state.step, loss=1.0)
            time.sleep(0.02)
        checkpoints.save()
    os.write(1, f"stopped after {state.step}\\n".encode())
"""
PATIENT = """
import signal, sys, time
def stop(number, frame):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""


def start(base: Path, script: str, drives: str = "python3 train.py", **variables: str) -> Run:
    """Start a job as the platform would."""
    write_config(base, "resourceconfig.json", ONE_HOST)
    data = base / "input/data"
    for path, text in {
        "code/train.py": script,
        "sm_drivers/sm_train.sh": SM_TRAIN,
        "sm_drivers/distributed_drivers/torchrun_driver.py": DRIVER,
    }.items():
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(textwrap.dedent(text), encoding="utf-8")
    entry = f"chmod +x {data}/sm_drivers/sm_train.sh && {data}/sm_drivers/sm_train.sh"
    image = {"BASH_ENV": str(BASH_ENV), "PATH": f"{BIN}:{os.environ['PATH']}", "DRIVES": drives}
    return Run.start(ContainerSpec((*UNSHARE, "/bin/bash", "-c", entry), base, {**image, **variables}))


def stop(run: Run, number: int = signal.SIGTERM) -> None:
    """Signal process 1 of the container."""
    first = psutil.Process(run.process.pid).children()[0]
    first.send_signal(number)


@needs_namespaces
@pytest.mark.slow
def test_stop_reaches_ranks_below_bash_driver_and_torchrun_and_the_next_run_resumes(tmp_path: Path) -> None:
    torchrun = "torchrun --nproc_per_node=2 train.py"
    run = start(tmp_path, TRAINS, torchrun, STEPS="100000")
    with run.process:
        run.wait_for_line("loss=1", 2)
        stop(run)
        assert run.wait() == 0, run.output
    stopped = [int(line.split()[-1]) for line in run.lines if line.startswith("stopped after")]
    assert len(stopped) == 2
    assert len(set(stopped)) == 1
    assert "Training Container Execution Completed" in run.output
    run = start(tmp_path, TRAINS, torchrun, STEPS="0")
    with run.process:
        assert run.wait() == 0
    assert run.output.count(f"resumed at {stopped[0]}") == 2


@needs_namespaces
def test_script_that_handles_the_signal_by_itself_gets_it(tmp_path: Path) -> None:
    run = start(tmp_path, PATIENT)
    with run.process:
        run.wait_for_line("waiting")
        stop(run)
        assert run.wait() == 0
    assert "saved\n" in run.lines


@needs_namespaces
def test_exit_code_is_the_scripts_own_below_bash_too(tmp_path: Path) -> None:
    run = start(tmp_path, "import sys\nsys.exit(7)\n")
    with run.process:
        assert run.process.wait(TIMEOUT_S) == 7


@needs_namespaces
@pytest.mark.parametrize("again", [True, False], ids=["second signal", "grace over"])
def test_script_that_ignores_the_stop_is_killed_below_bash_too(tmp_path: Path, again: bool) -> None:
    script = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('waiting', flush=True)\ntime.sleep(1000)\n"
    run = start(tmp_path, script, MOORING_GRACE_SECONDS="100" if again else "0.3")
    with run.process:
        run.wait_for_line("waiting")
        stop(run)
        if again:
            run.wait_for_line("passed on to")
            stop(run)
        assert run.wait() == 137


def test_command_runs_where_nothing_can_be_written(tmp_path: Path) -> None:
    nowhere = "import tempfile; tempfile._candidate_tempdir_list = lambda: []; "
    code = nowhere + "from mooring.cli.supervise import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--", "sh", "-c", "echo ran; exit 3"], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stdout == "ran\n"
    assert "no temporary folder" in done.stderr


@needs_namespaces
def test_without_ours_in_its_place_bash_keeps_the_signal(tmp_path: Path) -> None:
    """What the others guard against. If this fails, they prove nothing."""
    run = start(tmp_path, PATIENT, BASH_ENV="")
    with run.process:
        run.wait_for_line("waiting")
        stop(run)
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(1.5)
        assert "saved\n" not in run.lines
