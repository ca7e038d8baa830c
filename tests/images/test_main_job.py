"""The main job in containers: train, interrupted and resumed, then serve what it left, alone and among others."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from containers import Served, serving, training
from images import Images
from PIL import Image

from examples.digits.images import Split, load_split
from examples.digits.job import write_job
from mooring.contract.paths import ContainerPaths

EPOCHS = 4
OPTIONS = ["--env", "MOORING_ALGORITHM=image-classification", "--env", "MOORING_PROCESSES_PER_HOST=2"]
LEAST_ACCURACY = 0.9


@pytest.fixture(scope="module")
def validation() -> Split:
    return load_split()[1]


@pytest.fixture(scope="module")
def trained(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job's folder after two runs of one training container each, the first of which was stopped."""
    base = tmp_path_factory.mktemp("job")
    paths = write_job(base, *load_split(), seen_as=Path("/opt/ml"), epochs=EPOCHS)
    with training(images.cpu, base, options=OPTIONS) as container:
        container.wait_for(lambda: len(epochs(paths)) >= 2)
        assert container.stop() == 0, container.logs
    with training(images.cpu, base, options=OPTIONS) as container:
        assert container.wait() == 0, container.logs
        assert "resumed after step" in container.logs
    return base


def epochs(paths: ContainerPaths) -> list[int]:
    file = paths.output_data / "metrics.jsonl"
    if not file.exists():
        return []
    return [json.loads(line)["epoch"] for line in file.read_text().splitlines() if line.endswith("}")]


def accuracy(served: Served, path: str, validation: Split) -> float:
    right = 0
    chosen = range(0, len(validation.labels), 4)
    for index in chosen:
        file = io.BytesIO()
        Image.fromarray(validation.pixels[index]).save(file, "PNG")
        answer = served.client.post(path, content=file.getvalue(), headers={"content-type": "application/x-image"})
        assert answer.status_code == 200, answer.text
        right += int(np.argmax(answer.json()) == validation.labels[index])
    return right / len(chosen)


def test_stopped_training_goes_on_in_a_new_container_and_leaves_a_model(trained: Path) -> None:
    paths = ContainerPaths(trained)
    assert epochs(paths) == list(range(1, EPOCHS + 1))
    assert (paths.model / "model.onnx").exists()
    assert not paths.failure.exists()


def test_trained_model_is_served_alone(images: Images, trained: Path, validation: Split) -> None:
    options = ["--volume", f"{ContainerPaths(trained).model}:/opt/ml/model:ro"]
    with serving(images.inference, options=options) as served:
        assert accuracy(served, "/invocations", validation) >= LEAST_ACCURACY
        assert served.container.stop(30) == 0


def test_trained_model_is_served_among_others(images: Images, trained: Path, validation: Split) -> None:
    options = [
        "--env",
        "SAGEMAKER_MULTI_MODEL=true",
        "--volume",
        f"{ContainerPaths(trained).model}:/opt/ml/models/a:ro",
    ]
    options += ["--volume", f"{ContainerPaths(trained).model}:/opt/ml/models/b:ro"]
    with serving(images.cpu, "serve", options=options) as served:
        assert served.load("a", "/opt/ml/models/a").status_code == 200
        assert served.load("b", "/opt/ml/models/b").status_code == 200
        assert accuracy(served, "/models/b/invoke", validation) >= LEAST_ACCURACY
        assert served.client.delete("/models/b").status_code == 200
        assert served.client.get("/models/b").status_code == 404
        assert accuracy(served, "/models/a/invoke", validation) >= LEAST_ACCURACY
