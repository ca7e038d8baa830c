"""The ordinary doors: settings as they reach the server, multi-model-server's paths, large bodies, health."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, wait_until

from mooring.contract.errors import SettingError
from mooring.serving.settings import LARGEST_BODY_BYTES, Mode, from_variables, limits

DIGEST = (
    "import hashlib\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept): return hashlib.sha256(body).hexdigest(), 'text/plain'\n"
)


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    server = start_server(root, spool_bytes=100_000, max_body_bytes=40_000_000, fronts=fronts)
    assert server.load("m", scale_model(root / "m")).status_code == 200
    assert server.load("digest", code_model(root / "digest", DIGEST)).status_code == 200
    return server


@pytest.mark.parametrize("lane", ["", "?ordinary"])
@pytest.mark.parametrize("size", [0, 99_999, 100_001, 30_000_000])
def test_body_arrives_whole_whether_kept_in_memory_or_in_a_file(server: RunningServer, size: int, lane: str) -> None:
    body = os.urandom(size)
    answer = server.client.post(
        f"/models/digest/invoke{lane}", content=body, headers={"content-type": "application/octet-stream"}
    )
    assert answer.text == hashlib.sha256(body).hexdigest()


def test_spooled_bodies_leave_no_files(
    start_server: Servers, root: Path, tmp_path_factory: pytest.TempPathFactory, fronts: int
) -> None:
    temporary = tmp_path_factory.mktemp("t")
    server = start_server(root, spool_bytes=1000, variables={"TMPDIR": str(temporary)}, fronts=fronts)
    server.load("digest", root / "digest")
    bodies = [b"x" * 50_000] * 3
    for body in bodies:
        server.client.post("/models/digest/invoke", content=body, headers={"content-type": "x/y"})
        server.client.post("/models/nobody/invoke", content=body)
    with server.connect() as connection:
        connection.sendall(
            b"POST /models/digest/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n" + bodies[0]
        )
        wait_until(lambda: list(temporary.rglob("body-*")))
    wait_until(lambda: not list(temporary.rglob("body-*")))


def test_predictions_are_what_multi_model_server_calls_invocations(server: RunningServer) -> None:
    assert server.client.post("/predictions/m", content=b"[[1, 2, 3]]").json() == [[2, 4, 6]]
    assert server.client.post("/predictions/nobody", content=b"[]").status_code == 404


def test_options_describe_the_server(server: RunningServer) -> None:
    assert "/models/{name}/invoke" in server.client.options("/").json()["paths"]
    assert server.client.options("/predictions/m").json()["openapi"].startswith("3.")
    assert server.client.options("/predictions/nobody").status_code == 404


def test_load_that_is_not_waited_for_is_accepted_and_goes_on(server: RunningServer, root: Path) -> None:
    scale_model(root / "later")
    answer = server.client.post(
        "/models", params={"model_name": "later", "url": str(root / "later"), "synchronous": "false"}
    )
    assert answer.status_code == 202
    wait_until(lambda: server.client.get("/models/later").json().get("status") == "ready")


def test_metrics_are_on_the_same_port(server: RunningServer) -> None:
    server.invoke("m", [[1, 2, 3]])
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'mooring_models{state="ready"}' in answer.text
    assert 'mooring_model_requests_total{model="m"}' in answer.text


def test_batch_jobs_are_advised_by_a_single_model_and_by_no_other(start_server: Servers, root: Path) -> None:
    server = start_server(root / "digest", "single", workers=2)
    advice = server.client.get("/execution-parameters").json()
    assert advice == {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 25}
    many = start_server(root)
    assert many.client.get("/execution-parameters").status_code == 404


def test_batch_job_without_a_payload_limit_sends_more_than_the_usual(start_server: Servers, tmp_path: Path) -> None:
    unlimited = limits({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}).max_body_bytes
    server = start_server(code_model(tmp_path / "m", DIGEST), "single", max_body_bytes=unlimited)
    assert server.client.get("/execution-parameters").json()["MaxPayloadInMB"] == 100
    body = bytes(30_000_000)
    answer = server.client.post("/invocations", content=body, headers={"content-type": "x/y"})
    assert answer.text == hashlib.sha256(body).hexdigest()


def test_one_model_is_called_as_one_likes(start_server: Servers, root: Path) -> None:
    server = start_server(scale_model(root / "m"), "single", model_name="digits")
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    answer = server.client.post("/v2/models/digits/infer", json={"inputs": [tensor]}).json()
    assert (answer["model_name"], answer["outputs"][0]["data"]) == ("digits", [2, 4, 6])
    assert server.client.post("/invocations", content=b"[[1, 2, 3]]").json() == [[2, 4, 6]]
    assert [model["modelName"] for model in server.client.get("/models").json()["models"]] == ["digits"]


def test_ping_says_when_some_workers_are_missing(start_server: Servers, root: Path, tmp_path: Path) -> None:
    folder = code_model(
        tmp_path / "m",
        "import os, time\n"
        "def model_fn(model_dir):\n"
        "    if os.path.exists(model_dir + '/stop'): time.sleep(100)\n"
        "def transform_fn(model, body, content_type, accept): return body, accept\n",
    )
    server = start_server(folder, "single", workers=2)
    assert server.client.get("/ping").json() == {"status": "Healthy"}
    (folder / "stop").touch()
    server.hosts()[0].kill()
    wait_until(lambda: server.client.get("/ping").json() == {"status": "Partial Healthy"})
    assert server.client.get("/ping").status_code == 200


def test_settings_in_effect_are_logged_at_the_start(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, response_seconds=7.0)
    assert "response_seconds=7.0" in server.log.read_text()


def test_overload_is_429_where_that_is_asked_for(start_server: Servers, tmp_path: Path) -> None:
    import concurrent.futures

    code = (
        "import time\ndef model_fn(d): return None\n"
        "def transform_fn(m, body, c, a):\n    time.sleep(float(body))\n    return body, a\n"
    )
    server = start_server(tmp_path, queue_length=1, overload_status=429)
    server.load("m", code_model(tmp_path / "m", code))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.invoke, "m", 0.7)
        wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 1)
        refused = server.invoke("m", 0)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert waiting.result().status_code == 200


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "5"}, "response_seconds", 5.0),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "5", "MOORING_RESPONSE_SECONDS": "0.5"}, "response_seconds", 0.5),
        ({"MMS_DEFAULT_RESPONSE_TIMEOUT": "120"}, "response_seconds", 120.0),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "3"}, "max_body_bytes", 3 << 20),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, "max_body_bytes", LARGEST_BODY_BYTES),
        ({"MOORING_BUDGET_BYTES": "2G"}, "budget_bytes", 2 << 30),
        ({"MMS_MAX_REQUEST_SIZE": "64k"}, "max_body_bytes", 64 << 10),
        ({"TS_DEFAULT_WORKERS_PER_MODEL": "4"}, "workers", 4),
        ({"SAGEMAKER_BIND_TO_PORT": "9000"}, "port", 9000),
        ({"MOORING_BUFFER_STREAMS": "true"}, "buffer_streams", True),
        ({"SAGEMAKER_SESSIONS_EXPIRATION": "60"}, "session_seconds", 60.0),
    ],
)
def test_earlier_names_are_read_and_ours_come_first(variables: dict[str, str], field: str, value: object) -> None:
    assert getattr(limits(variables), field) == value


def test_option_that_cannot_be_used_is_named_as_it_was_given() -> None:
    with pytest.raises(SettingError, match='--workers is "0"; expected more than 0'):
        limits({"MOORING_WORKERS": "2"}, {"workers": "0"})


def test_option_beats_variables() -> None:
    assert limits({"MOORING_WORKERS": "2"}, {"workers": "3"}).workers == 3


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MOORING_WORKERS", "many", "a whole number"),
        ("SAGEMAKER_TS_RESPONSE_TIMEOUT", "-1", "a number of seconds"),
        ("MOORING_MAX_BODY_BYTES", "1.5", "such as 512M"),
        ("MOORING_OVERLOAD_STATUS", "500", "503 or 429"),
        ("MOORING_BUFFER_STREAMS", "maybe", "true or false"),
        ("MOORING_RESPONSE_SECONDS", "0", "more than 0"),
        ("SAGEMAKER_TS_MAX_WORKERS", "0", "more than 0"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "many", "a number of megabytes"),
        ("MOORING_WORKERS", "inf", "a whole number"),
        ("MOORING_WORKERS", "nan", "a whole number"),
        ("MOORING_RESPONSE_SECONDS", "nan", "a number of seconds"),
        ("MMS_DEFAULT_RESPONSE_TIMEOUT", "inf", "a number of seconds"),
        ("MOORING_BUDGET_BYTES", "1e999", "such as 512M"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6M", "a number of megabytes"),
        ("MOORING_PORT", "99999", "0 to 65535"),
        ("MOORING_HEADER_BYTES", "16777216", "8,388,608 at most"),
        ("MOORING_MODEL_NAME", "a/b", "letters, digits"),
    ],
)
def test_bad_value_is_told_with_its_name(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingError, match=f"{name}.*{expected}"):
        limits({name: value})


def test_platform_says_which_mode() -> None:
    assert from_variables({}).mode is Mode.SINGLE
    assert from_variables({"SAGEMAKER_MULTI_MODEL": "true"}).mode is Mode.MULTI
    assert json.dumps(from_variables({}).described()).count("response_seconds=60.0") == 1


def test_mar_archive_of_a_service_is_served_with_its_manifest(start_server: Servers, tmp_path: Path) -> None:
    service = (
        "import json\n"
        "from mms.service import PredictionException\n"
        "class Service:\n"
        "    def initialize(self, context): self.name = context.manifest['model']['modelName']\n"
        "    def handle(self, data, context):\n"
        "        if data[0]['body'] == b'bad': raise PredictionException('not that', 422)\n"
        "        return [json.dumps([self.name, len(row['body'])]) for row in data]\n"
    )
    manifest = {"model": {"modelName": "counter", "handler": "service.py:Service"}}
    with zipfile.ZipFile(tmp_path / "counter.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("service.py", service)
    server = start_server(tmp_path, "repository", eviction="reuse")
    assert server.client.post("/models/counter/invoke", content=b"four").json() == ["counter", 4]
    refused = server.client.post("/predictions/counter", content=b"bad")
    assert (refused.status_code, refused.json()["message"]) == (422, "not that")
