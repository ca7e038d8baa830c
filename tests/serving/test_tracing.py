"""Spans, as a collector of OpenTelemetry receives them over HTTP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from models import code_model, scale_model
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from servers import RunningServer, Servers, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Keeps every span that it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorRequest)
        self.spans: list[Span] = []


class CollectorRequest(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


@pytest.fixture(scope="module")
def server(
    start_server: Servers, collector: Collector, tmp_path_factory: pytest.TempPathFactory, fronts: int
) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    server = start_server(root, variables=variables, fronts=fronts)
    assert server.load("m", scale_model(root / "m")).status_code == 200
    failing = code_model(root / "failing", "def model_fn(d): return None\ndef transform_fn(*given): raise KeyError\n")
    assert server.load("failing", failing).status_code == 200
    return server


def attributes(span: Span) -> dict[str, object]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def spans(collector: Collector, request_id: str) -> list[Span]:
    return [span for span in collector.spans if attributes(span).get("mooring.request_id") == request_id]


@pytest.mark.parametrize("lane", ["", "?ordinary"])
def test_request_is_a_span_under_its_clients(server: RunningServer, collector: Collector, lane: str) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": f"traced{lane}"}
    answer = server.client.post(f"/models/m/invoke{lane}", content=b"[[1,2,3]]", headers=headers)
    assert answer.status_code == 200
    wait_until(lambda: spans(collector, f"traced{lane}"))
    (span,) = spans(collector, f"traced{lane}")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9
    assert attributes(span)["http.response.status_code"] == 200
    assert span.status.code != Status.STATUS_CODE_ERROR


def test_failure_of_a_model_is_an_error_of_its_span(server: RunningServer, collector: Collector) -> None:
    answer = server.client.post("/models/failing/invoke", content=b"x", headers={"x-request-id": "failed"})
    assert answer.status_code == 500
    wait_until(lambda: spans(collector, "failed"))
    (span,) = spans(collector, "failed")
    assert attributes(span)["http.response.status_code"] == 500
    assert attributes(span)["mooring.model"] == "failing"
    assert span.status.code == Status.STATUS_CODE_ERROR


def test_pings_are_no_spans_and_what_is_left_is_sent_at_the_end(
    start_server: Servers, collector: Collector, tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    server = start_server(tmp_path, variables={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    server.client.get("/ping?ordinary")
    server.client.get("/models", headers={"x-request-id": "last"})
    assert server.stop() == 0
    assert len(spans(collector, "last")) == 1
    assert not any(attributes(span).get("url.path") == "/ping" for span in collector.spans)
