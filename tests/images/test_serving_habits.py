"""What the platform and its users do to a container that serves."""

import json
import threading
from pathlib import Path

import httpx
import pytest
from containers import docker, network, running, said, serving
from images import Images
from models import code_model, layered_model, scale_model

GRACE_S = 30
MULTI = ["--env", "SAGEMAKER_MULTI_MODEL=true"]
QUERY = [[1, 2, 3]]
ANSWER = [[2, 4, 6]]
LOCKED_DOWN = ["--read-only", "--tmpfs", "/tmp", "--network", "none", "--user", "12345", "--cap-drop", "ALL"]
# Answers once a file appears in the folder that test and container share.
SLOW = """
import pathlib, time
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept):
    shared = pathlib.Path("/shared")
    (shared / "begun").touch()
    while not (shared / "go").exists(): time.sleep(0.01)
    return "done", "text/plain"
"""
# Asks the server of its own container, which no network leads to.
ASK = """
import json, time, urllib.request
def ask(path, body=None):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, body, {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=10).read()
for attempt in range(600):
    try:
        ask("/ping")
        break
    except OSError:
        time.sleep(0.1)
print(ask("/invocations", b"[[1, 2, 3]]").decode())
"""
THREADS = """
import pathlib
hosts = [p for p in pathlib.Path("/proc").glob("[0-9]*") if b"zygote" in (p / "cmdline").read_bytes()]
print(len(hosts), sum(len(list((p / "task").iterdir())) for p in hosts))
"""


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """The options that mount a model, uncompressed and not to be written to."""
    return ["--volume", f"{scale_model(tmp_path / 'model')}:/opt/ml/model:ro"]


def test_stop_answers_what_is_under_way_and_ends_with_0(images: Images, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    code_model(tmp_path / "model", SLOW)
    options = ["--volume", f"{tmp_path / 'model'}:/opt/ml/model:ro", "--volume", f"{shared}:/shared"]
    with serving(images.inference, options=options) as served:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(served.ask(QUERY)))
        asking.start()
        served.container.wait_for((shared / "begun").exists)
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(served.container.stop(GRACE_S)))
        stopping.start()
        served.container.wait_for(lambda: not served.is_healthy())
        (shared / "go").touch()
        for thread in (asking, stopping):
            thread.join(GRACE_S + 10)
        assert [answer.text for answer in answers] == ["done"]
        assert codes == [0]


def test_no_network_no_root_and_no_file_to_write_to_are_enough(images: Images, model: list[str]) -> None:
    with running(images.inference, "serve", options=[*LOCKED_DOWN, *model]) as container:
        assert json.loads(container.execute("python3", "-c", ASK)) == ANSWER
        assert container.stop(GRACE_S) == 0


@pytest.mark.parametrize("engine", ["own", "mms"])
def test_server_answers_where_the_platform_says_it_should(images: Images, model: list[str], engine: str) -> None:
    image = images.mms if engine == "mms" else images.inference
    with serving(image, options=[*model, "--env", "SAGEMAKER_BIND_TO_PORT=7070"], port=7070) as served:
        assert served.ask(QUERY).json() == ANSWER
        assert served.container.stop(GRACE_S) == 0


def test_models_that_do_not_fit_are_refused_and_the_container_lives(images: Images, tmp_path: Path) -> None:
    for index in range(6):
        layered_model(tmp_path / f"big{index}", 16, seed=index)
    scale_model(tmp_path / "small")
    options = [*MULTI, "--memory", "704m", "--memory-swap", "704m", "--volume", f"{tmp_path}:/opt/ml/models:ro"]
    with serving(images.inference, options=options) as served:
        assert served.load("small", "/opt/ml/models/small").status_code == 200
        statuses = [served.load(f"big{index}", f"/opt/ml/models/big{index}").status_code for index in range(6)]
        assert statuses[0] == 200
        assert statuses[-1] == 507
        assert set(statuses) == {200, 507}
        assert served.invoke("small", QUERY).json() == ANSWER
        for name in (
            "big0",
            "big1",
        ):  # what each was measured to hold differs by half: one may leave a little too little
            assert served.client.delete(f"/models/{name}").status_code == 200
        assert served.load("big5", "/opt/ml/models/big5").status_code == 200
        state = served.container.state
        assert (state["Running"], state["OOMKilled"]) == (True, False)


def test_threads_are_no_more_than_the_processors_the_container_may_use(images: Images, tmp_path: Path) -> None:
    counted = {}
    model = f"{layered_model(tmp_path / 'large', 1)}:/opt/ml/model:ro"
    for cpus in (1, 2):
        with serving(images.inference, options=["--volume", model, "--cpus", str(cpus)]) as served:
            assert served.ask([[1.0] * 1024]).status_code == 200
            counted[cpus] = served.container.execute("python3", "-c", THREADS).split()
    assert counted[1][0] == counted[2][0]
    assert int(counted[2][1]) == int(counted[1][1]) + 1


def test_two_containers_of_one_image_are_a_pipeline(images: Images, tmp_path: Path) -> None:
    folders = [scale_model(tmp_path / f"model{number}", factor) for number, factor in enumerate((2.0, 5.0))]
    with network() as name:
        first, second = (
            ["--network", name, "--volume", f"{folder}:/opt/ml/model:ro", "--env", f"SAGEMAKER_BIND_TO_PORT={port}"]
            for folder, port in zip(folders, (8081, 8082), strict=True)
        )
        with (
            serving(images.inference, options=first, port=8081) as doubling,
            serving(images.inference, options=second, port=8082) as fivefold,
        ):
            between = doubling.ask(QUERY)
            headers = {"content-type": between.headers["content-type"]}
            answer = fivefold.client.post("/invocations", content=between.content, headers=headers)
            assert answer.json() == [[10, 20, 30]]


def test_workers_that_outlive_their_parents_are_reaped_by_the_first_process(images: Images, tmp_path: Path) -> None:
    orphan = (
        "import os\n"
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        if os.fork(): os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    return 'done', 'text/plain'\n"
    )
    code_model(tmp_path / "model", orphan)
    with serving(images.inference, options=["--volume", f"{tmp_path / 'model'}:/opt/ml/model:ro"]) as served:
        assert served.ask(QUERY).text == "done"
        states = (
            "import pathlib\nfor p in pathlib.Path('/proc').glob('[0-9]*/stat'): print(p.read_text().split(') ')[1][0])"
        )
        served.container.wait_for(lambda: "Z" not in served.container.execute("python3", "-c", states).split())


def test_batch_transform_and_doctor_run_in_the_image(images: Images, tmp_path: Path) -> None:
    folder = scale_model(tmp_path / "model")
    assert "onnx" in said(images.inference, "mooring", "doctor", "/m", options=["--volume", f"{folder}:/m:ro"])


def test_server_that_is_killed_leaves_nothing_to_the_engine(images: Images, model: list[str]) -> None:
    with serving(images.inference, options=model) as served:
        docker("kill", served.container.name)
        assert served.container.wait(30) == 137
