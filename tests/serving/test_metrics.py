"""What /metrics says after known requests, read with Prometheus' own parser."""

from functools import partial
from pathlib import Path

import pytest
from models import code_model, scale_model
from prometheus_client.parser import text_string_to_metric_families
from servers import RunningServer, Servers, wait_until

SLOW = (
    "import time\ndef model_fn(d): return 0.03\ndef predict_fn(data, model):\n    time.sleep(model)\n    return data\n"
)


@pytest.fixture
def server(start_server: Servers, tmp_path: Path, fronts: int) -> RunningServer:
    server = start_server(tmp_path, budget_bytes=2 << 30, fronts=fronts)
    assert server.load("scale", scale_model(tmp_path / "scale")).status_code == 200
    assert server.load("slow", code_model(tmp_path / "slow", SLOW)).status_code == 200
    return server


def scraped(server: RunningServer) -> dict[tuple[str, ...], float]:
    """All samples by name and label values, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(server.client.get("/metrics").text)
        for sample in family.samples
    }


def is_counted(server: RunningServer, stage: str, count: int) -> bool:
    return scraped(server).get(("mooring_model_seconds_count", "slow", stage)) == count


def test_requests_are_timed_in_all_and_by_stage(server: RunningServer) -> None:
    for _ in range(5):
        assert server.invoke("slow", [1]).status_code == 200
    for stage in ("queue", "decode", "predict", "encode", "total"):
        wait_until(partial(is_counted, server, stage, 5))
    found = scraped(server)
    assert found["mooring_model_seconds_sum", "slow", "predict"] >= 5 * 0.03
    assert found["mooring_model_seconds_sum", "slow", "total"] >= found["mooring_model_seconds_sum", "slow", "predict"]
    assert found["mooring_model_seconds_bucket", "0.025", "slow", "predict"] == 0
    assert found["mooring_model_seconds_bucket", "+Inf", "slow", "predict"] == 5
    assert found["mooring_model_batch_requests_sum", "slow"] == 5
    assert ("mooring_model_seconds_count", "scale", "total") not in found  # nobody has asked it


def test_loads_and_processes_and_errors_are_counted(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model.onnx").write_bytes(b"no model")
    assert server.load("broken", tmp_path / "broken").status_code >= 400
    assert server.client.delete("/models/scale").status_code == 200
    assert server.client.post("/models/nobody/invoke").status_code == 404
    assert server.client.post("/models/nobody/invoke?ordinary").status_code == 404
    assert server.invoke("slow", [1], **{"content-type": "text/xml"}).status_code == 415
    found = scraped(server)
    events = {key[1]: value for key, value in found.items() if key[0] == "mooring_model_events_total"}
    assert events == {"loaded": 2, "failed": 1, "cancelled": 0, "unloaded": 1, "evicted": 0}
    assert found["mooring_errors_total", "ModelNotFoundException", "404"] == 2
    assert found["mooring_errors_total", "UnsupportedMediaTypeException", "415"] == 1
    assert found["mooring_hosts", "own"] == 1
    assert found["mooring_hosts", "shared"] >= 1
    (host,) = server.client.get("/models/slow").json()["hosts"]
    next(process for process in server.hosts() if process.pid == host).kill()
    wait_until(lambda: scraped(server)["mooring_host_deaths_total",] == 1)


def test_models_beyond_the_busiest_are_counted_together(server: RunningServer, tmp_path: Path) -> None:
    names = [f"m{index}" for index in range(25)]
    for name in names:
        assert server.load(name, scale_model(tmp_path / name)).status_code == 200
        assert server.invoke(name, [[1, 2, 3]]).status_code == 200
    assert server.invoke(names[3], [[1, 2, 3]]).status_code == 200
    found = scraped(server)
    counted = {
        key[1]: value for key, value in found.items() if key[0] == "mooring_model_seconds_count" and key[2] == "total"
    }
    assert len(counted) == 21
    assert counted["m3"] == 2
    assert sum(counted.values()) == 26
    assert counted["(others)"] == 5


def test_no_counter_falls_whatever_models_come_and_go_and_overtake_each_other(
    start_server: Servers, tmp_path: Path
) -> None:
    """Prometheus takes a counter that falls for a restart, and counts all of it again."""
    server = start_server(tmp_path, budget_bytes=2 << 30)
    names = [f"m{index}" for index in range(23)]

    def ask(name: str, times: int) -> None:
        for _ in range(times):
            assert server.invoke(name, [[1, 2, 3]]).status_code == 200

    seen: dict[tuple[str, ...], float] = {}

    def scrape() -> None:
        found = {key: value for key, value in scraped(server).items() if is_counter(key[0])}
        fallen = {key: (seen[key], value) for key, value in found.items() if value < seen.get(key, 0)}
        assert fallen == {}
        seen.update(found)

    for name in names:
        assert server.load(name, scale_model(tmp_path / name)).status_code == 200
        ask(name, 2)
    scrape()
    for name in names[-3:]:  # these overtake others, and have a name of their own from now on
        ask(name, 2)
    scrape()
    own = seen["mooring_model_seconds_count", names[-1], "total"]
    ask(names[-1], 3)
    scrape()
    assert seen["mooring_model_seconds_count", names[-1], "total"] == own + 3
    for name in (names[0], names[-1], names[10]):
        ask(name, 1)
        assert server.client.delete(f"/models/{name}").status_code == 200
        scrape()
    assert server.load(names[-1], scale_model(tmp_path / names[-1])).status_code == 200
    ask(names[-1], 4)
    scrape()
    total = sum(value for key, value in seen.items() if key[0] == "mooring_model_seconds_count" and key[2] == "total")
    assert total == 2 * 23 + 2 * 3 + 3 + 3 + 4


def is_counter(name: str) -> bool:
    return name.startswith("mooring_") and name.endswith(("_total", "_count", "_sum", "_bucket"))
