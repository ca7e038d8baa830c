"""The script as a training job of the platform runs it: files, variables and exit code."""

import json
import shutil
from pathlib import Path

from mooring.runner.container_spec import ContainerSpec
from mooring.runner.platform_files import write_training_inputs
from mooring.runner.process_runner import ProcessRunner

PROJECT = Path(__file__).parents[1]


def test_training_leaves_a_model(tmp_path):
    paths = write_training_inputs(tmp_path, hyperparameters={"epochs": 5}, channels={"train": "text/csv"})
    shutil.copytree(PROJECT / "data/train", paths.channel("train"), dirs_exist_ok=True)
    variables = {"SAGEMAKER_PROGRAM": "train.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(PROJECT)}
    with ProcessRunner(on_line=print).start(ContainerSpec(("train",), tmp_path, variables)) as container:
        assert container.wait() == 0
    weights = json.loads((paths.model / "weights.json").read_text(encoding="utf-8"))
    assert len(weights["weight"]) == len(weights["bias"]) == 2
