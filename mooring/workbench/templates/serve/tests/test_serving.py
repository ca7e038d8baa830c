"""The handler by itself, and behind the server that an endpoint would run."""

import importlib.util
import json
import shutil
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

from mooring.runner.container_spec import ContainerSpec
from mooring.runner.process_runner import ProcessRunner

MODEL = Path(__file__).parents[1] / "model"
ROWS = [[4.6, 3.1], [6.7, 3.1]]
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def test_handler_tells_classes_apart():
    spec = importlib.util.spec_from_file_location("inference", MODEL / "code/inference.py")
    inference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(inference)
    assert list(inference.predict_fn(ROWS, inference.model_fn(MODEL))) == [0, 1]


def test_server_answers(tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    variables = {"SAGEMAKER_BIND_TO_PORT": url.rpartition(":")[2]}
    with ProcessRunner(on_line=print).start(ContainerSpec(("serve",), tmp_path, variables)) as container:
        wait_until_healthy(url, container)
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{url}/invocations", json.dumps(ROWS).encode(), headers)
        with LOCAL.open(request, timeout=60) as answer:
            assert json.load(answer) == [0, 1]
        assert container.stop(grace_seconds=30) == 0


def wait_until_healthy(url, container):
    while container.poll() is None:
        try:
            with LOCAL.open(f"{url}/ping", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.05)
    raise AssertionError(f"serve ended with {container.wait()}; the lines above say why")
