"""How soon two ranks take their first step, and how long a step is: our launcher, torchrun, and the earlier toolkit."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mooring.runner.platform_files import write_training_inputs

from .peers import peer_environment

ROUNDS = 5
STEPS = 400
TIMEOUT_S = 120
BIN = Path(sys.executable).parent
SCRIPT = Path(__file__).with_name("step_loop.py")
# The last of each: the launcher, and PyTorch's part that makes it call torchrun.
EARLIER_TOOLKIT = ("sagemaker-training==5.1.4", "sagemaker-pytorch-training==3.0.0")
EARLIER_SWITCHES = {"sagemaker_torch_distributed_enabled": True, "sagemaker_mpi_num_of_processes_per_host": 2}
EARLIER_HOOK = {"SAGEMAKER_TRAINING_MODULE": "sagemaker_pytorch_container.training:main"}
# Seconds to the first step, milliseconds of the median step, steps with our library to those without.
Measured = tuple[float, float, float]


def main() -> None:
    """Print the table."""
    earlier = peer_environment("sagemaker-training", *EARLIER_TOOLKIT) / "train"
    spawned = {"MOORING_START_METHOD": "spawn"}
    contenders: dict[str, Callable[[], Measured]] = {
        "torchrun": with_torchrun,
        EARLIER_TOOLKIT[0]: lambda: with_platform(earlier, EARLIER_SWITCHES, EARLIER_HOOK),
        "train, forked ranks": lambda: with_platform(BIN / "train", {}, {}),
        "train, spawned ranks": lambda: with_platform(BIN / "train", {}, spawned),
        "train, our library in the loop": lambda: with_platform(BIN / "train", {"library": 1}, {}),
    }
    results: dict[str, list[Measured]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, measured in contenders.items():
            results[name].append(measured())
    print(f"\ntwo ranks, {ROUNDS} interleaved rounds, medians; ratios are to torchrun in the same round")
    for name, rounds in results.items():
        first, step, of_bare = (statistics.median(values) for values in zip(*rounds, strict=True))
        of_first, of_step = (_ratio(rounds, results["torchrun"], which) for which in (0, 1))
        print(f"  {name:<32} first step {first:5.2f} s {of_first:5.2f} x   step {step:6.3f} ms {of_step:5.3f} x")
        if of_bare != 1:
            print(f"  {'':<32} in turns with bare steps of the same ranks: {of_bare:5.3f} x")


def _ratio(rounds: list[Measured], base: list[Measured], which: int) -> float:
    return statistics.median(one[which] / other[which] for one, other in zip(rounds, base, strict=True))


def with_torchrun() -> Measured:
    """Run the loop under torchrun."""
    command = [str(BIN / "torchrun"), "--nproc-per-node", "2", str(SCRIPT), "--steps", str(STEPS)]
    return measure([*command, "--begun", str(time.time())], {})


def with_platform(train: Path, given: Mapping[str, object], variables: Mapping[str, str]) -> Measured:
    """Run the loop under a command that does what the platform expects of `train`."""
    with tempfile.TemporaryDirectory() as base:
        hyperparameters = {"steps": STEPS, **given, "begun": time.time()}
        # The earlier toolkit waits a quarter of an hour for a host whose name nobody knows, even for its own.
        host = "localhost"
        paths = write_training_inputs(
            Path(base), hyperparameters=hyperparameters, channels={}, hosts=(host,), current_host=host
        )
        (paths.code / "loop.py").write_bytes(SCRIPT.read_bytes())
        platforms = {
            "SAGEMAKER_BASE_DIR": base,
            "SAGEMAKER_PROGRAM": "loop.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": str(paths.code),
            "MOORING_PROCESSES_PER_HOST": "2",
            "PATH": f"{train.parent}:{os.environ['PATH']}",
        }
        return measure([str(train)], {**platforms, **variables})


def measure(command: list[str], variables: dict[str, str]) -> Measured:
    """Run a command, and return what the loop in it measured."""
    environment = os.environ | variables | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    line = next((line for line in done.stdout.splitlines() if "RESULT" in line), None)
    if line is None:
        raise RuntimeError(f"{command[0]} gave no result:\n{done.stdout}\n{done.stderr}")
    first, step, ratio = (float(number) for number in line.partition("RESULT")[2].split())
    return first, step, ratio
