"""The multi-model contract, against a real server."""

import json
import threading
from pathlib import Path

import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, wait_until


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path) -> RunningServer:
    return start_server(root)


def test_ping_is_healthy_with_no_model(server: RunningServer) -> None:
    assert server.client.get("/ping").status_code == 200


def test_load_invoke_describe_list_unload(server: RunningServer, root: Path) -> None:
    url = scale_model(root / "a/model")
    assert server.load("a", url).json() == {"status": "Workers scaled"}
    assert server.invoke("a", [[1, 2, 3]]).json() == [[2, 4, 6]]
    described = server.client.get("/models/a").json()
    assert (described["modelName"], described["modelUrl"], described["status"]) == ("a", str(url), "ready")
    assert {"modelName": "a", "modelUrl": str(url)} in server.client.get("/models").json()["models"]
    assert server.client.delete("/models/a").json() == {"status": 'Model "a" unregistered'}
    assert server.invoke("a", [[1, 2, 3]]).status_code == 404
    assert server.client.get("/models/a").status_code == 404


def test_second_load_is_a_conflict(server: RunningServer, root: Path) -> None:
    url = scale_model(root / "twice/model")
    server.load("twice", url)
    answer = server.load("twice", url)
    assert answer.status_code == 409
    assert answer.json()["type"] == "ConflictStatusException"
    assert "twice is already registered" in answer.json()["message"]


def test_racing_loads_of_one_model_load_it_once(server: RunningServer, root: Path) -> None:
    url = scale_model(root / "raced/model")
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(server.load("raced", url).status_code)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]


def test_missing_path_is_not_found(server: RunningServer, root: Path) -> None:
    answer = server.load("nowhere", root / "nowhere/model")
    assert answer.status_code == 404
    assert answer.json()["type"] == "ModelNotFoundException"


@pytest.mark.parametrize("url", ["/etc", "/proc/self", "{root}/../elsewhere", "{root}/link"])
def test_path_outside_the_models_folder_is_refused(server: RunningServer, root: Path, url: str) -> None:
    (root / "link").unlink(missing_ok=True)
    (root / "link").symlink_to("/etc")
    answer = server.load("sneaky", Path(url.format(root=root)))
    assert answer.status_code == 400
    assert "models are loaded only from below" in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The body is not a JSON object"),
        (b"[1]", "The body is not a JSON object"),
        (b'{"model_name": "m"}', "Parameter url is required."),
        (b'{"url": "/m"}', "Parameter model_name is required."),
        (b'{"url": 3, "model_name": "m"}', "Parameter url is required."),
    ],
)
def test_bad_load_request_says_what_is_missing(server: RunningServer, body: bytes, message: str) -> None:
    answer = server.client.post("/models", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


@pytest.mark.parametrize("name", ["team/model", "/", ".", ".."])
def test_name_that_no_path_leads_to_is_refused(server: RunningServer, root: Path, name: str) -> None:
    url = str(scale_model(root / "unreachable/model"))
    asked = {"model_name": name, "url": url}
    for answer in (server.client.post("/models", json=asked), server.client.post("/models", params=asked)):
        assert answer.status_code == 400
        assert f'model_name is "{name}"; expected a name without "/"' in answer.json()["message"]
    assert url not in server.client.get("/models").text


def test_folder_without_a_model_says_what_was_looked_for(server: RunningServer, root: Path) -> None:
    (root / "empty/model").mkdir(parents=True)
    (root / "empty/model/notes.txt").write_text("nothing")
    answer = server.load("empty", root / "empty/model")
    assert answer.status_code == 400
    assert "notes.txt" in answer.json()["message"]


def test_damaged_model_fails_its_load_and_can_be_loaded_once_mended(server: RunningServer, root: Path) -> None:
    folder = root / "damaged/model"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"not a model")
    answer = server.load("damaged", folder)
    assert answer.status_code >= 400
    assert "model.onnx" in answer.json()["message"]
    assert str(root) not in answer.json()["message"]
    scale_model(folder)
    assert server.load("damaged", folder).status_code == 200


def test_list_is_paged_in_the_order_of_loading(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    names = [f"m{index}" for index in range(5)]
    for name in names:
        server.load(name, scale_model(tmp_path / name))
    seen = []
    token = ""
    while True:
        page = server.client.get("/models", params={"limit": 2, "next_page_token": token}).json()
        seen += [model["modelName"] for model in page["models"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert seen == names
    for token in ("x", "-1", "9" * 5000):
        assert server.client.get("/models", params={"next_page_token": token}).status_code == 400


def test_invocations_path_explains_itself(server: RunningServer) -> None:
    answer = server.client.post("/invocations", content=b"[]")
    assert answer.status_code == 400
    assert "/models/{name}/invoke" in answer.json()["message"]


def test_wrong_method_and_unknown_path_are_told(server: RunningServer) -> None:
    assert server.client.put("/models").status_code == 405
    assert server.client.get("/nothing").json()["type"] == "ResourceNotFoundException"


def test_unload_lets_requests_finish(server: RunningServer, root: Path) -> None:
    slow = code_model(
        root / "slow/model",
        "import time\n"
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    time.sleep(1)\n"
        "    return body, accept\n",
    )
    assert server.load("slow", slow).status_code == 200
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(server.invoke("slow", [1]).status_code))
    thread.start()
    wait_until(lambda: server.client.get("/models/slow").json()["inFlight"] == 1)
    assert server.client.delete("/models/slow").status_code == 200
    thread.join()
    assert answers == [200]


def test_loading_one_model_does_not_hold_up_another(server: RunningServer, root: Path) -> None:
    server.load("steady", scale_model(root / "steady/model"))
    loader = code_model(
        root / "slow-load/model",
        "import time\n"
        "def model_fn(model_dir): time.sleep(1.5)\n"
        "def transform_fn(model, body, content_type, accept): return body, accept\n",
    )
    thread = threading.Thread(target=lambda: server.load("slow-load", loader))
    thread.start()
    answered = 0
    while thread.is_alive():
        assert server.invoke("steady", [[1, 2, 3]]).elapsed.total_seconds() < 1
        answered += 1
    assert answered > 20


def test_code_models_with_modules_of_one_name_do_not_meet(server: RunningServer, root: Path) -> None:
    for name in ("left", "right"):
        folder = code_model(
            root / name / "model",
            "import settings_of_mine\n"
            "def model_fn(model_dir): return settings_of_mine.NAME\n"
            "def transform_fn(model, body, content_type, accept): return '\"' + model + '\"', accept\n",
        )
        (folder / "code/settings_of_mine.py").write_text(f"NAME = {name!r}\n")
        assert server.load(name, folder).status_code == 200
    assert [server.invoke(name, []).json() for name in ("left", "right")] == ["left", "right"]


def test_unloading_a_code_model_ends_its_process(server: RunningServer, root: Path) -> None:
    before = {process.pid for process in server.hosts()}
    folder = code_model(
        root / "own/model",
        "import os\ndef model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept): return str(os.getpid()), accept\n",
    )
    server.load("own", folder)
    pid = server.invoke("own", []).json()
    assert pid not in before
    assert pid in {process.pid for process in server.hosts()}
    server.client.delete("/models/own")
    assert pid not in {process.pid for process in server.hosts()}


def test_model_that_cannot_fit_is_refused_with_507_before_loading(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, budget=8 << 20)
    big = scale_model(tmp_path / "big", padding_floats=3 << 20)
    answer = server.load("big", big)
    assert answer.status_code == 507
    assert "big" in answer.json()["message"]
    assert server.load("small", scale_model(tmp_path / "small")).status_code == 200


def test_memory_error_in_a_handler_is_507(server: RunningServer, root: Path) -> None:
    folder = code_model(root / "hungry/model", "def model_fn(model_dir): raise MemoryError\n")
    assert server.load("hungry", folder).status_code == 507


def test_requests_reach_the_handler_with_their_own_headers(server: RunningServer, root: Path) -> None:
    folder = code_model(
        root / "echo/model",
        "import json\n"
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    context.set_response_header(0, 'x-amzn-sagemaker-custom-attributes', "
        "context.get_request_header(0, 'X-Amzn-SageMaker-Custom-Attributes'))\n"
        "    return json.dumps([content_type, accept]), 'application/json'\n",
    )
    assert server.load("echo", folder).status_code == 200
    answer = server.invoke(
        "echo", [], **{"X-Amzn-SageMaker-Custom-Attributes": "trace=7", "accept": "application/json"}
    )
    assert json.loads(answer.content) == ["application/json", "application/json"]
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "trace=7"


def test_model_that_is_alone_is_tried_though_a_guess_says_that_it_may_not_fit(
    start_server: Servers, tmp_path: Path
) -> None:
    folder = scale_model(tmp_path / "m", padding_floats=10 << 20)
    server = start_server(tmp_path, budget=45 << 20)
    assert server.load("m", folder).status_code == 200
    assert "may need 60 MiB of memory; 45 are free" in server.log.read_text()
