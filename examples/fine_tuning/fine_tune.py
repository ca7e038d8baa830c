"""Fine-tune a classifier of sentences through `train`, serve what it leaves, and ask it.

    python -m examples.fine_tuning.fine_tune                       # a small model of random weights, in a minute
    python -m examples.fine_tuning.fine_tune --model ./minilm      # a pretrained one: config, safetensors, tokenizer

It learns to tell which package of Python's library a sentence of documentation is about. Everything is as on the
platform: the job's files below a folder that stands for /opt/ml, the command `train`, and what it leaves, served.
"""

import argparse
import json
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from mooring.contract.paths import ContainerPaths
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.platform_files import write_training_inputs
from mooring.runner.process_runner import ProcessRunner

from .sentences import read_channel, write_channels
from .small_model import write_model

HYPERPARAMETERS = {
    "algorithm": "text-classification",
    "epochs": 3,
    "mini_batch_size": 32,
    "learning_rate": 0.002,  # a pretrained model takes a hundredth of it
    "logging_steps": 20,
}
PRETRAINED = {"learning_rate": 5e-5, "max_length": 64}
START_S = 120.0
QUESTIONS = (
    "Return the exponent of the number, rounded half even in the current context.",
    "Wait until the future is done, and cancel the task if the loop is closed.",
    "Add a header to the message, encoded with the given charset.",
    "Fail if the two objects are unequal, with the message of the test case.",
)


def main() -> None:
    """Run the example."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", type=Path, metavar="DIR", help="the pretrained model; else a small one is made")
    made.add_argument("--base", type=Path, metavar="DIR", help="what stands for /opt/ml; else a temporary folder")
    arguments = made.parse_args()
    with tempfile.TemporaryDirectory(prefix="mooring-fine-tuning-") as folder:
        base = (arguments.base or Path(folder)).resolve()
        paths = write_job(base, arguments.model)
        with ProcessRunner(on_line=say).start(ContainerSpec(("train",), base)) as job:
            code = job.wait()
        if code != 0:
            sys.exit(f"train ended with {code}: {paths.failure.read_text(encoding='utf-8')}")
        for question, answer in zip(QUESTIONS, ask(paths.model, QUESTIONS), strict=True):
            print(f"{answer['label']} ({answer['score']:.0%}): {question}")


def write_job(base: Path, model: Path | None) -> ContainerPaths:
    """Write what the platform would: hyperparameters, and the channels `train`, `validation` and `model`."""
    given = HYPERPARAMETERS | (PRETRAINED if model else {})
    channels = {"train": "text/csv", "validation": "text/csv", "model": None}
    paths = write_training_inputs(base, hyperparameters=given, channels=channels)
    write_channels(paths.channel("train"), paths.channel("validation"))
    if model is not None:
        shutil.copytree(model, paths.channel("model"), dirs_exist_ok=True)
    else:
        write_model(paths.channel("model"), (text for text, _ in read_channel(paths.channel("train"))))
    return paths


def ask(model: Path, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Serve a model for as long as it takes to ask it, and return its answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ("serve", "--model", str(model), "--port", str(port))
    with (
        ProcessRunner(on_line=say).start(ContainerSpec(command, model.parent)) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        limit = time.monotonic() + START_S
        while not is_healthy(client):
            if time.monotonic() > limit or server.poll() is not None:
                sys.exit("the server did not come up")
            time.sleep(0.05)
        answer = client.post("/invocations", json={"inputs": list(texts)}).raise_for_status()
        server.stop(grace_seconds=30)
    answers: list[dict[str, Any]] = json.loads(answer.content)
    return answers


def is_healthy(client: httpx.Client) -> bool:
    """Whether the model is ready to answer."""
    try:
        return client.get("/ping").status_code == 200
    except httpx.TransportError:
        return False


def say(line: str) -> None:
    """Print what a process says."""
    sys.stdout.write(f"    {line}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
