"""Requests made up from the server's own OpenAPI document: whatever it allows is answered as it says."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from models import scale_model
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import RunningServer, Servers

Operation = schemathesis.APIOperation[Any, Any, Any, Any]

# Not among them: that what the document forbids is refused (bodies are read leniently, as the earlier servers did),
# and that what it allows is accepted (a model of a made-up name is not there).
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# 503 where a model, or the server, is not ready: the answer that probes of readiness are asked for.
READINESS = frozenset({"/ping", "/v2/health/ready", "/v2/models/{name}/ready"})
EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(start_server: Servers, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    server = start_server(root, "repository", eviction="reuse")
    for name in ("0", "a"):  # names that are made up often
        assert server.load(name, scale_model(root / name)).status_code == 200
    return server


@pytest.fixture(scope="module")
def operations(server: RunningServer) -> dict[str, Operation]:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return {operation.label: operation for operation in found}


LABELS = [
    "GET /ping",
    "POST /invocations",
    "GET /execution-parameters",
    "POST /models/{name}/invoke",
    "POST /models",
    "GET /models",
    "GET /models/{name}",
    "PUT /models/{name}",
    "DELETE /models/{name}",
    "POST /predictions/{name}",
    "GET /v2",
    "GET /v2/health/live",
    "GET /v2/health/ready",
    "GET /v2/models/{name}",
    "GET /v2/models/{name}/ready",
    "POST /v2/models/{name}/infer",
    "POST /v2/repository/index",
    "POST /v2/repository/models/{name}/load",
    "POST /v2/repository/models/{name}/unload",
    "GET /metrics",
]


def test_every_documented_operation_is_tried(operations: dict[str, Operation]) -> None:
    assert set(LABELS) == set(operations)


@pytest.mark.parametrize("label", LABELS)
def test_made_up_requests_are_answered_as_documented(
    server: RunningServer, operations: dict[str, Operation], label: str
) -> None:
    operation = operations[label]
    checks = [check for check in CHECKS if check is not not_a_server_error or operation.path not in READINESS]

    @EXAMPLES
    @given(case=operation.as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(checks=checks)

    ask()
    assert server.ping_status() == 200
