"""The example of a script of one's own, run as a job: stopped, resumed, and its model served."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_wine
from training_jobs import Job

SCRIPT = Path(__file__).parents[2] / "examples/own_script/train.py"


@pytest.mark.slow
def test_own_script_is_stopped_resumed_and_leaves_a_model_that_knows_its_wines(tmp_path: Path) -> None:
    wines = load_wine()
    job = Job.write(
        tmp_path,
        SCRIPT.read_text(encoding="utf-8"),
        ranks=2,
        hyperparameters={"shard": True},
        channels={"train": "text/csv"},
    )
    channel = job.paths.input_data / "train"
    channel.mkdir(parents=True, exist_ok=True)
    np.savetxt(channel / "wines.csv", np.column_stack([wines.data, wines.target]), delimiter=",")
    run = job.start(EXAMPLE_PACE="0.05")
    with run.process:
        run.wait_for_line("epoch=12;")
        run.signal()
        assert run.wait() == 0
    assert not (job.paths.model / "model.onnx").exists()
    code, output = job.run()
    assert code == 0, output
    assert "resumed after step" in output
    assert "epoch=11;" not in output
    session = onnxruntime.InferenceSession(str(job.paths.model / "model.onnx"), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"features": wines.data.astype(np.float32)})
    assert (probabilities.argmax(1) == wines.target).mean() > 0.95
