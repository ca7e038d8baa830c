"""The Open Inference Protocol with KServe's own client, in a process of its own: its imports never meet ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from models import code_model, scale_model
from servers import Servers

# Where `make` puts the client, beside the environment.
PACKAGE = Path(sys.prefix) / "kserve"
CLIENT = Path(__file__).parents[1] / "support/kserve_client.py"
TRIPLES = "def model_fn(model_dir): return 3\ndef predict_fn(data, model): return {'tripled': data * model}\n"

pytestmark = pytest.mark.skipif(not PACKAGE.exists(), reason="KServe's client is not installed beside the environment")


@pytest.fixture(scope="module")
def answers(start_server: Servers, root: Path) -> Any:
    scale_model(root / "scale")
    code_model(root / "code", TRIPLES)
    server = start_server(root, "repository", eviction="reuse")
    command = [sys.executable, str(CLIENT), str(PACKAGE), f"http://127.0.0.1:{server.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_server_and_models_are_live_and_ready(answers: Any) -> None:
    assert (answers["live"], answers["ready"], answers["ready models"]) == (True, True, [True, True, False])


def test_tensors_go_both_ways_as_json_and_as_bytes(answers: Any) -> None:
    expected = {"id": "42", "model": "scale", "shape": [2, 3], "type": "FP32", "values": [[2, 4, 6], [8, 10, 12]]}
    assert answers["data"] == [expected] * 4


def test_code_answers_with_named_tensors(answers: Any) -> None:
    assert [(answer["model"], answer["values"]) for answer in answers["code"]] == [("code", [[3, 6]])] * 4


def test_error_is_told_as_the_client_tells_errors(answers: Any) -> None:
    assert answers["refusal"]["status"] == 400
    assert "1 x 2, which does not fit" in answers["refusal"]["message"]
