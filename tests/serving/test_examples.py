"""The serving examples do what they say."""

import json
from pathlib import Path

import numpy as np
from servers import Servers

from examples.serving.many_models.fleet import write_fleet

EXAMPLES = Path(__file__).parents[2] / "examples/serving"


def test_handler_of_your_own_names_flowers(start_server: Servers) -> None:
    server = start_server(EXAMPLES / "own_handler", "single")
    answer = server.client.post("/invocations", content="5.0,3.4,1.5,0.2\n", headers={"content-type": "text/csv"})
    assert answer.json() == ["setosa"]
    rows = json.dumps([[7.0, 3.1, 4.8, 1.5], [6.5, 3.0, 5.8, 2.2]])
    answer = server.client.post(
        "/invocations", content=rows, headers={"content-type": "application/json", "accept": "text/csv"}
    )
    assert answer.text == "versicolor\nvirginica\n"
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "rows=2"
    assert len(server.hosts()) == 2


def test_streaming_example_sends_words_as_events(start_server: Servers) -> None:
    server = start_server(EXAMPLES / "streaming", "single")
    with server.client.stream("POST", "/invocations", content='{"start": "the", "words": 5}') as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert len(events) == 6
    assert json.loads(events[0]) == {"word": "the"}
    assert events[-1] == "[DONE]"


def test_fleet_is_loaded_on_demand(start_server: Servers, tmp_path: Path) -> None:
    names = write_fleet(tmp_path, 40)
    server = start_server(tmp_path, "repository", eviction="reuse")
    row = np.zeros((1, 4)).tolist()
    assert [server.invoke(name, row).json() for name in names] == [[[float(index)]] for index in range(40)]
    index = server.client.post("/v2/repository/index", content="{}").json()
    assert {model["state"] for model in index} == {"READY"}
    assert len(server.hosts()) == 1
