"""How the cores of a machine are divided among the processes of models."""

from pathlib import Path

import pytest
from models import code_model
from servers import Servers

from mooring.contract.resources import usable_cpus
from mooring.serving.pool import divided

THREADS = (
    "import torch\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept): return str(torch.get_num_threads()), 'text/plain'\n"
)


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "is_alone", "expected"),
    [
        (1, 0, 1, False, (1, 1)),
        (2, 0, 1, False, (1, 2)),
        (16, 0, 1, False, (8, 2)),
        (16, 0, 4, False, (8, 2)),  # workers are those of single models, which take turns
        (16, 0, 1, True, (1, 16)),
        (16, 0, 4, True, (1, 4)),
        (2, 0, 8, True, (1, 1)),
        (96, 8, 1, True, (8, 12)),
        (96, 8, 1, False, (8, 12)),
        (2, 0, 0, True, (1, 2)),
    ],
)
def test_many_models_share_cores_and_one_alone_has_all(
    cpus: int, gpus: int, workers: int, is_alone: bool, expected: tuple[int, int]
) -> None:
    assert divided(cpus, gpus, workers, is_alone=is_alone) == expected


@pytest.mark.slow  # imports torch in each process
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_a_model_that_is_alone_divide_the_cores(start_server: Servers, tmp_path: Path, workers: int) -> None:
    server = start_server(code_model(tmp_path / "model", THREADS), "single", workers=workers)
    assert server.client.post("/invocations", json=[]).text == str(max(1, usable_cpus() // workers))
