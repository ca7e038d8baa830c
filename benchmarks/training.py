"""`make bench-training`: our launcher and loop against bare torchrun, and how long a checkpoint holds up the loop."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from mooring.runner.platform_files import write_training_inputs
from mooring.training import Checkpointer, TrainingState, process_group

ROUNDS = 5
STEPS = 400
BIN = Path(sys.executable).parent
SCRIPT = Path(__file__).with_name("step_loop.py")
STATE_MB = (50, 500)
SAVES = 4


def main() -> None:
    """Print all tables."""
    launchers()
    checkpoints()


def launchers() -> None:
    """Compare the time to the first step and the median step of two ranks."""
    results: dict[str, list[tuple[float, float]]] = {"torchrun": [], "train, script as it is": [], "train, library": []}
    for _ in range(ROUNDS):
        results["torchrun"].append(with_torchrun())
        results["train, script as it is"].append(with_train(library=0))
        results["train, library"].append(with_train(library=1))
    print(f"two ranks, {ROUNDS} interleaved rounds, medians")
    first_base, step_base = (statistics.median(values) for values in zip(*results["torchrun"], strict=True))
    for name, rounds in results.items():
        first, step = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(
            f"  {name:<24} first step after {first:5.2f} s {first / first_base:5.2f} x"
            f"   step {step:6.3f} ms {step / step_base:5.3f} x"
        )


def with_torchrun() -> tuple[float, float]:
    """Run the loop under torchrun."""
    command = [str(BIN / "torchrun"), "--nproc-per-node", "2", str(SCRIPT), "--steps", str(STEPS)]
    return measure([*command, "--begun", str(time.time())], {})


def with_train(library: int) -> tuple[float, float]:
    """Run the loop under `train`."""
    with tempfile.TemporaryDirectory() as base:
        given = {"steps": STEPS, "library": library, "begun": time.time()}
        paths = write_training_inputs(Path(base), hyperparameters=given, channels={})
        (paths.code / "loop.py").write_bytes(SCRIPT.read_bytes())
        variables = {"SAGEMAKER_BASE_DIR": base, "SAGEMAKER_PROGRAM": "loop.py", "MOORING_PROCESSES_PER_HOST": "2"}
        return measure([str(BIN / "train")], variables)


def measure(command: list[str], variables: dict[str, str]) -> tuple[float, float]:
    """Return seconds to the first step, and the median step in milliseconds."""
    environment = os.environ | variables | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        raise RuntimeError(f"{command[0]} gave no result:\n{done.stdout}\n{done.stderr}")
    _, first, step = line.split()
    return float(first), float(step)


def checkpoints() -> None:
    """Compare how long a save holds up the loop with torch.save and fsync of the same state."""
    print(f"\nsaving, {SAVES} interleaved rounds after a first one, medians; the loop is held up for")
    for megabytes in STATE_MB:
        with tempfile.TemporaryDirectory() as folder, process_group():
            ours, torchs = stalls(Path(folder), megabytes)
        print(
            f"  {megabytes:>4} MB   torch.save + fsync {torchs * 1000:8.1f} ms"
            f"   Checkpointer.save {ours * 1000:8.1f} ms   {ours / torchs:6.1%}"
        )


def stalls(folder: Path, megabytes: int) -> tuple[float, float]:
    """Return the median stall of ours and of torch's save, in seconds. The disk is idle before each."""
    layers = 10
    width = int((megabytes * 1e6 / 4 / 2 / layers) ** 0.5)  # momentum doubles the weights
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    torch.autograd.backward(model(torch.ones(1, width)).sum())
    optimizer.step()
    state = TrainingState(model, optimizer)
    ours, torchs = [], []
    with Checkpointer(state, folder / "checkpoints") as saver:
        for _ in range(SAVES + 1):
            state.step += 1
            started = time.perf_counter()
            saver.save()
            ours.append(time.perf_counter() - started)
            saver.wait()
            started = time.perf_counter()
            with (folder / "torch.pt").open("wb") as file:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
                file.flush()
                os.fsync(file.fileno())
            torchs.append(time.perf_counter() - started)
    return statistics.median(ours[1:]), statistics.median(torchs[1:])


if __name__ == "__main__":
    main()
