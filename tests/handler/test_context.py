"""The context that handlers ask, as they asked those of the earlier servers."""

import logging
from pathlib import Path

import pytest

from mooring.handler.context import Context
from mooring.handler.protocol import InferenceRequest


def context(*headers: dict[str, str]) -> Context:
    requests = [InferenceRequest(b"", "", "", each) for each in headers]
    return Context(Path("/models/mine"), requests, manifest={"model": {"modelName": "mine"}}, batch_size=2)


def test_model_and_machine_are_described() -> None:
    made = context()
    assert (made.model_name, made.manifest["model"]["modelName"]) == ("mine", "mine")
    facts = made.system_properties
    assert (facts["model_dir"], facts["gpu_id"], facts["batch_size"]) == ("/models/mine", None, 2)
    assert (made.explain, made.model_yaml_config) == (False, {})


def test_headers_are_found_in_any_case() -> None:
    made = context({"content-type": "a/b", "x-amzn-sagemaker-inference-id": "7"}, {"accept": "c/d"})
    assert made.get_request_header(0, "Content-Type") == "a/b"
    assert made.get_request_header(1, "Content-Type") is None
    assert made.get_request_id() == "7"
    properties = made.request_processor[1].get_request_properties()
    assert properties["Accept"] == properties.get("ACCEPT") == made.get_all_request_header(1)["accept"] == "c/d"
    assert "Accept" in properties
    assert properties.get("Missing") is None
    assert dict(properties) == {"accept": "c/d"}


def test_each_answer_of_a_batch_has_its_own_status_and_headers() -> None:
    made = context({}, {})
    made.set_response_status(418, "teapot", 1)
    made.set_response_content_type(1, "a/b")
    made.set_response_header(1, "X-Count", 5)
    first, second = (made.response(b"", "text/plain", index) for index in range(2))
    assert (first.status, first.content_type, dict(first.headers)) == (200, "text/plain", {})
    assert (second.status, second.content_type, dict(second.headers)) == (418, "a/b", {"x-count": "5"})
    assert made.get_response_status(1) == (418, "teapot")
    assert made.get_response_content_type(1) == "a/b"
    assert made.get_response_headers(1) == {"x-count": "5", "content-type": "a/b"}
    made.set_all_response_status(503)
    assert [made.get_response_status(index)[0] for index in range(2)] == [503, 503]


def test_content_type_set_as_a_header_is_the_content_type() -> None:
    made = context({})
    made.set_response_header(0, "Content-Type", "a/b")
    answer = made.response(b"", "text/plain")
    assert (answer.content_type, dict(answer.headers)) == ("a/b", {})


def test_handler_can_ask_whether_the_client_is_gone() -> None:
    gone = InferenceRequest(b"", "", "", {}, lambda: True)
    made = Context(Path("/m"), [InferenceRequest(b"", "", "", {}), gone])
    assert [made.is_cancelled(), made.is_cancelled(1)] == [False, True]
    assert not Context(Path("/m")).is_cancelled()


def test_metrics_are_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    metrics = context({}).metrics
    with caplog.at_level(logging.INFO, "mooring.metrics"):
        metrics.add_time("load", 1.5)
        metrics.add_time("load", 2, None, "s")
        metrics.add_counter("seen", 1, 0)
        metrics.add_size("body", 3)
        metrics.add_percent("full", 50)
        metrics.add_metric("theirs", 4, 0, "parsecs")
        metrics.add_metric("ours", 5, "ms", 0)
        metrics.add_error("broken", "why")
    lines = [record.getMessage().partition("|")[0] for record in caplog.records]
    assert lines == [
        "load.Milliseconds:1.5",
        "load.Seconds:2",
        "seen.Count:1",
        "body.Megabytes:3",
        "full.Percent:50",
        "theirs.parsecs:4",
        "ours.Milliseconds:5",
        "broken.Error:why",
    ]
    assert caplog.records[0].getMessage().endswith("|#ModelName:mine,Level:Model")
