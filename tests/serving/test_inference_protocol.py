"""The Open Inference Protocol, with Triton's own client and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from models import code_model, scale_model
from servers import RunningServer, Servers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    scale_model(root / "scale")
    scale_model(root / "other", 3.0)
    code_model(
        root / "code",
        "def model_fn(model_dir): return 3\ndef predict_fn(data, model): return {'tripled': data * model}\n",
    )
    return root


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    return start_server(root, "repository", eviction="reuse", fronts=fronts)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"127.0.0.1:{server.port}")


def tensor(values: object, *, binary: bool) -> triton.InferInput:
    array = np.array(values, dtype=np.float32)
    given = triton.InferInput("x", list(array.shape), "FP32")
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "mooring"
    client.load_model("scale")
    assert client.is_model_ready("scale")
    assert not client.is_model_ready("nobody")
    assert client.is_model_ready("scale", "1")
    metadata = client.get_model_metadata("scale")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


@pytest.mark.parametrize("ask_binary", [True, False])
@pytest.mark.parametrize("send_binary", [True, False])
def test_tensors_go_both_ways_as_json_and_as_bytes(
    client: triton.InferenceServerClient, send_binary: bool, ask_binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput("y", binary_data=ask_binary)]
    given = tensor([[1, 2, 3], [4, 5, 6]], binary=send_binary)
    result = client.infer("scale", [given], outputs=outputs, request_id="42")
    assert result.as_numpy("y").tolist() == [[2, 4, 6], [8, 10, 12]]
    assert result.get_response()["id"] == "42"
    assert result.get_response()["model_name"] == "scale"


def test_model_is_loaded_on_its_first_request(client: triton.InferenceServerClient) -> None:
    result = client.infer("other", [tensor([[1, 1, 1]], binary=True)])
    assert result.as_numpy("y").tolist() == [[3, 3, 3]]


def test_code_answers_with_named_tensors(client: triton.InferenceServerClient) -> None:
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("tripled", binary_data=binary)]
        result = client.infer("code", [tensor([[1, 2]], binary=True)], outputs=outputs, request_id="7")
        assert result.as_numpy("tripled").tolist() == [[3, 6]]
        answer = result.get_response()
        assert (answer["id"], answer["model_name"]) == ("7", "code")


def test_repository_is_listed_loaded_and_unloaded(client: triton.InferenceServerClient) -> None:
    client.load_model("scale")
    index = {model["name"]: model for model in client.get_model_repository_index()}
    assert set(index) == {"scale", "other", "code"}
    assert index["scale"]["state"] == "READY"
    assert index["scale"]["bytes"] > 0
    client.unload_model("scale")
    assert not client.is_model_ready("scale")
    index = {model["name"]: model for model in client.get_model_repository_index()}
    assert index["scale"]["state"] == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "JSON"),
        (b'{"inputs": 3}', "inputs"),
        (b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2]}]}', "x"),
        (b'{"inputs": [{"name": "z", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}', "z"),
        (b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP99", "data": [1, 2, 3]}]}', "FP99"),
    ],
)
def test_error_is_said_as_the_protocol_says_it(server: RunningServer, body: bytes, words: str) -> None:
    answer = server.client.post("/v2/models/scale/infer", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_unknown_model_and_version_are_not_found(server: RunningServer) -> None:
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]})
    for path in ("nobody", "scale/versions/9"):
        answer = server.client.post(f"/v2/models/{path}/infer", content=body)
        assert answer.status_code == 404
        assert "error" in answer.json()


def test_head_length_that_is_no_number_is_refused(server: RunningServer) -> None:
    headers = {"inference-header-content-length": "many"}
    assert server.client.post("/v2/models/scale/infer", content=b"{}", headers=headers).status_code == 400
