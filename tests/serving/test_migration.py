"""What docs/migrate.md says of servers before ours, where no other test shows it."""

import json
from pathlib import Path

import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers

from mooring.handler.context import Context
from mooring.handler.resolve import HandlerKind, choose_handler
from mooring.handler.tasks import TaskError, task_of

KIND_OF_BODY = """
class Service:
    def initialize(self, context): self.settings = context.model_yaml_config
    def handle(self, data, context): return [[type(row["body"]).__name__, self.settings] for row in data]
"""


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path) -> RunningServer:
    server = start_server(root)
    assert server.load("m", scale_model(root / "m")).status_code == 200
    assert server.load("code", code_model(root / "code", KIND_OF_BODY)).status_code == 200
    return server


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predictions/m/2.0"),
        ("PUT", "/models/m/2.0/set-default"),
        ("GET", "/models/m/all"),
        ("POST", "/v1/models/m:predict"),
        ("POST", "/explanations/m"),
        ("POST", "/workflows"),
    ],
)
def test_path_of_torchserve_that_is_not_here_is_not_found(server: RunningServer, method: str, path: str) -> None:
    assert server.client.request(method, path, content=b"[]").status_code == 404


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"url": "m.mar", "model_name": "new"}, "models are loaded only from below the folder"),
        ({"url": "http://127.0.0.1/m.mar", "model_name": "new"}, "models are loaded only from below the folder"),
        ({"url": "m.mar"}, "Parameter model_name is required"),
    ],
)
def test_url_is_a_path_below_the_repository_and_a_name_is_needed(
    server: RunningServer, query: dict[str, str], message: str
) -> None:
    refused = server.client.post("/models", params=query)
    assert refused.status_code == 400
    assert message in refused.json()["message"]


def test_parameters_of_torchserve_that_mean_nothing_here_do_no_harm(server: RunningServer, root: Path) -> None:
    query = {"batch_size": "8", "max_batch_delay": "50", "response_timeout": "120", "initial_workers": "1"}
    loaded = server.client.post("/models", params={"model_name": "again", "url": str(root / "m"), **query})
    assert loaded.status_code == 200
    assert server.client.get("/models/again").json()["minWorkers"] == 1


def test_scaling_waits_unless_told_otherwise(server: RunningServer) -> None:
    assert server.client.put("/models/code", params={"min_worker": 2}).status_code == 200
    assert len(server.client.get("/models/code").json()["hosts"]) == 2
    assert server.client.put("/models/code", params={"min_worker": 1, "synchronous": "false"}).status_code == 202


def test_service_gets_json_as_bytes_and_no_yaml(server: RunningServer) -> None:
    assert server.invoke("code", {"a": 1}).json() == ["bytes", {}]
    assert Context(Path("m")).model_yaml_config == {}


@pytest.mark.parametrize(
    ("handler", "files", "kind"),
    [
        ("handler.py", ("handler.py", "model.pt"), HandlerKind.SERVICE),
        ("handler:handle", ("handler.py", "model.pt"), HandlerKind.SERVICE),
        ("image_classifier", ("model.pt",), HandlerKind.TORCHSCRIPT),
    ],
)
def test_archive_has_the_handler_that_it_brings(
    tmp_path: Path, handler: str, files: tuple[str, ...], kind: HandlerKind
) -> None:
    manifest = tmp_path / "MAR-INF/MANIFEST.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"model": {"handler": handler, "serializedFile": "model.pt"}}), encoding="utf-8")
    for name in files:
        (tmp_path / name).touch()
    assert choose_handler(tmp_path, {}).kind is kind


@pytest.mark.parametrize(
    "task", ["table-question-answering", "document-question-answering", "object-detection", "text-to-image"]
)
def test_task_that_needs_code_is_told_so(task: str) -> None:
    with pytest.raises(TaskError, match=r"bring code/inference\.py"):
        task_of({}, task)
