"""Models without code that need torch, in a real server: transformers folders and torch programs."""

import json
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from servers import RunningServer, Servers, wait_until
from transformers_models import bert, gpt2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SENTENCE = "the quick brown fox jumps over the lazy dog"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    bert(root / "first", transformers.BertForSequenceClassification)
    bert(root / "second", transformers.BertForMaskedLM)
    gpt2(root / "writer")
    (root / "program").mkdir()
    exported = torch.export.export(torch.nn.Linear(3, 2).eval(), (torch.ones(1, 3),))
    torch.export.save(exported, root / "program/model.pt2")
    return root


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path) -> RunningServer:
    server = start_server(root)
    server.client.timeout = httpx.Timeout(120)
    for name in ("first", "second", "writer", "program"):
        answer = server.load(name, root / name)
        assert answer.status_code == 200, answer.text + server.log.read_text()[-3000:]
    return server


def hosts(server: RunningServer, name: str) -> list[int]:
    found: list[int] = server.client.get(f"/models/{name}").json()["hosts"]
    return found


def is_mapped(server: RunningServer, name: str) -> bool:
    return bool(server.client.get(f"/models/{name}").json()["tier"] == "mapped")


def test_models_that_are_only_data_share_a_process_and_programs_have_their_own(server: RunningServer) -> None:
    assert hosts(server, "first") == hosts(server, "second") == hosts(server, "writer")
    assert hosts(server, "program") != hosts(server, "first")


def test_tensors_that_large_models_share_are_mapped_once(start_server: Servers, tmp_path: Path) -> None:
    """Two classifiers of 24 MiB in files of their own, which differ in their last layer only."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048}
    server = start_server(tmp_path, variables={"MOORING_MODEL_CACHE": str(tmp_path / ".cache")})
    server.client.timeout = httpx.Timeout(120)
    before = {}
    for name in ("first", "second"):
        bert(tmp_path / name, transformers.BertForSequenceClassification, **sizes)
        if name == "second":
            tensors = load_file(tmp_path / "first/model.safetensors")
            tensors["classifier.bias"] += 1000 * torch.arange(2)
            save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
        assert server.load(name, tmp_path / name).status_code == 200
        before[name] = server.invoke(name, SENTENCE).json()
    for name in before:
        wait_until(partial(is_mapped, server, name), 60)
        assert server.invoke(name, SENTENCE).json() == before[name]
    assert before["first"] != before["second"]
    (host,) = (process for process in server.hosts() if process.pid in hosts(server, "first"))
    kept = {str(file): file.stat().st_size for file in (tmp_path / ".cache").glob("*.safetensors")}
    assert {region.path for region in host.memory_maps() if region.path.startswith(str(tmp_path))} == {*kept}
    assert sum(kept.values()) < 1.1 * (tmp_path / "first/model.safetensors").stat().st_size


def test_classifier_answers_as_a_pipeline_does(server: RunningServer, root: Path) -> None:
    classify = transformers.pipeline("text-classification", model=str(root / "first"))
    expected = classify(SENTENCE)[0]
    for lane in ("", "?ordinary"):
        answer = server.client.post(f"/models/first/invoke{lane}", content=json.dumps({"inputs": SENTENCE}))
        assert answer.json()[0]["label"] == expected["label"]
        assert answer.json()[0]["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_text_is_streamed_token_by_token_and_is_the_text_that_is_answered_whole(server: RunningServer) -> None:
    request: dict[str, object] = {"inputs": "one two", "parameters": {"max_new_tokens": 12, "return_full_text": False}}
    whole = server.client.post("/models/writer/invoke", content=json.dumps(request)).json()[0]["generated_text"]
    request["stream"] = True
    with server.client.stream("POST", "/models/writer/invoke", content=json.dumps(request)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data:")) for line in answer.iter_lines() if line.startswith("data:")]
    assert len(events) > 2
    assert "".join(event["token"]["text"] for event in events if event.get("token")) == whole


def test_long_text_does_not_hold_up_other_models_of_its_process(server: RunningServer) -> None:
    request = {"inputs": "one", "parameters": {"max_new_tokens": 400, "ignore_eos": True}, "stream": True}
    with server.client.stream("POST", "/models/writer/invoke", content=json.dumps(request)) as answer:
        lines = answer.iter_lines()
        next(lines)
        other = httpx.post(
            f"{server.client.base_url}/models/first/invoke", content=json.dumps({"inputs": SENTENCE}), timeout=30
        )
        assert other.status_code == 200
    wait_until(lambda: server.client.get("/models/writer").json()["inFlight"] == 0)


def test_program_answers_and_refuses_other_shapes(server: RunningServer) -> None:
    assert len(server.invoke("program", [[1, 2, 3]]).json()[0]) == 2
    assert server.invoke("program", [[1, 2]]).status_code == 400


def test_unloaded_model_is_gone_and_can_be_loaded_again(server: RunningServer, root: Path) -> None:
    assert server.client.delete("/models/second").status_code == 200
    assert server.invoke("second", {"inputs": "the [MASK]"}).status_code == 404
    assert server.load("second", root / "second").status_code == 200
    assert server.invoke("second", {"inputs": "the [MASK] fox"}).status_code == 200


def test_folder_whose_task_nobody_can_tell_does_not_load_and_says_what_would_help(
    server: RunningServer, root: Path
) -> None:
    folder = bert(root / "vague", transformers.BertModel)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Mystery"]}))
    answer = server.load("vague", folder)
    assert answer.status_code == 400
    assert "HF_TASK" in answer.json()["message"]
