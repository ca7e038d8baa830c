"""examples/kserve: manifests that fit KServe's API, and a container that does what they rely on."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kserve_example
import kubernetes_shapes
import pytest
from models import code_model, scale_model
from servers import RunningServer, free_port, wait_until

from mooring.serving.settings import Limits
from mooring.workbench.build import DEVICES, TARGETS, image_name

needs_shapes = pytest.mark.skipif(
    not kubernetes_shapes.are_here(), reason="kserve and kubernetes are not installed beside the environment"
)
needs_client = pytest.mark.skipif(
    not kserve_example.PACKAGE.exists(), reason="KServe's client is not installed beside the environment"
)
RUNTIMES = tuple(kserve_example.runtimes())
# Loads when a file lies beside it.
WAITS = """
import pathlib, time
def model_fn(model_dir):
    while not pathlib.Path(model_dir, "go").exists(): time.sleep(0.01)
def predict_fn(data, model): return {"y": data}
"""


def kind_of(document: dict[str, Any]) -> str:
    """serving.kserve.io/v1alpha1, ServingRuntime -> V1alpha1ServingRuntime."""
    return str(document["apiVersion"]).rpartition("/")[2].capitalize() + str(document["kind"])


@needs_shapes
@pytest.mark.parametrize("document", kserve_example.documents(), ids=lambda document: document["metadata"]["name"])
def test_manifest_fits_the_api(document: dict[str, Any]) -> None:
    assert document["apiVersion"].startswith("serving.kserve.io/")
    assert list(kubernetes_shapes.problems(document, kind_of(document))) == []


def broken(runtime: dict[str, Any], change: str) -> dict[str, Any]:
    made = copy.deepcopy(runtime)
    container = made["spec"]["containers"][0]
    if change == "misspelt":
        container["readinessProbe"]["httpget"] = container["readinessProbe"].pop("httpGet")
    elif change == "kind":
        container["securityContext"]["runAsUser"] = "1000"
    elif change == "list":
        container["args"] = "--model=/mnt/models"
    else:
        del container["livenessProbe"]["httpGet"]["port"]
    return made


@needs_shapes
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("misspelt", ".spec.containers[0].readinessProbe: V1Probe has no httpget"),
        ("kind", ".spec.containers[0].securityContext.runAsUser: '1000' is no int"),
        ("list", ".spec.containers[0].args: '--model=/mnt/models' is no list"),
        ("gap", ".spec.containers[0].livenessProbe.httpGet: V1HTTPGetAction needs port"),
    ],
)
def test_what_does_not_fit_the_api_is_found(change: str, told: str) -> None:
    runtime = kserve_example.documents()[-1]
    assert list(kubernetes_shapes.problems(broken(runtime, change), kind_of(runtime))) == [told]


def test_model_asks_for_what_its_runtime_offers() -> None:
    model = kserve_example.service()["spec"]["predictor"]["model"]
    runtime = kserve_example.runtimes()[model["runtime"]]
    assert model["modelFormat"]["name"] in [each["name"] for each in runtime["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["protocolVersions"]
    assert runtime["multiModel"] is False


@pytest.mark.parametrize("name", RUNTIMES)
def test_container_is_named_reached_and_probed_as_the_server_has_it(name: str) -> None:
    """KServe looks for its container by name; probes have to ask where the server listens."""
    runtime, container = kserve_example.runtimes()[name], kserve_example.container(name)
    ports = {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")}
    ports |= {port["containerPort"] for port in container["ports"]}
    assert (container["name"], ports) == ("kserve-container", {Limits().port})
    assert runtime["annotations"]["prometheus.kserve.io/port"] == str(Limits().port)
    assert container["image"] in [image_name(device, target) for device in DEVICES for target in TARGETS]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in runtime["volumes"]]


def test_runtimes_differ_in_image_formats_and_memory_only() -> None:
    specs = [copy.deepcopy(spec) for spec in kserve_example.runtimes().values()]
    for spec in specs:
        del spec["supportedModelFormats"], spec["containers"][0]["image"]
        for amounts in spec["containers"][0]["resources"].values():
            del amounts["memory"]
    assert specs[0] == specs[1]


@contextmanager
def started(runtime: str, model: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """A runtime's container as a process: its command and variables, another folder for each mount, another port."""
    container, port = kserve_example.container(runtime), free_port()
    (tmp_path / "tmp").mkdir()
    words = [*container["command"], *container["args"], f"--port={port}"]
    program, *arguments = (word.replace(kserve_example.MOUNT, str(model)) for word in words)
    variables = {each["name"]: each["value"].replace("/tmp", str(tmp_path / "tmp")) for each in container["env"]}
    variables |= {"TMPDIR": str(tmp_path / "tmp")}
    log = tmp_path / "server.log"
    with log.open("w") as output:
        command = [str(Path(sys.executable).parent / program), *arguments]
        process = subprocess.Popen(command, env=os.environ | variables, stdout=output, stderr=output, text=True)
    server = RunningServer(process, port, log)
    try:
        yield server
    finally:
        server.client.close()
        process.kill()
        process.wait()


def probe(server: RunningServer, runtime: str, name: str) -> int:
    """What a probe of the container's is answered, 0 where nobody listens yet."""
    return server.status(kserve_example.container(runtime)[name]["httpGet"]["path"])


@needs_client
def test_kserves_client_is_answered_under_the_services_name(tmp_path: Path) -> None:
    """By one runtime; the other's process is the same."""
    name, runtime = kserve_example.service()["metadata"]["name"], RUNTIMES[0]
    with started(runtime, scale_model(tmp_path / "model"), tmp_path) as server:
        wait_until(lambda: probe(server, runtime, "readinessProbe") == 200, 30)
        answers = kserve_example.ask(f"http://127.0.0.1:{server.port}", name, "y")
        assert (answers["live"], answers["ready"], answers["ready models"]) == (True, True, [True])
        expected = {"id": "42", "model": name, "shape": [2, 3], "type": "FP32", "values": [[2, 4, 6], [8, 10, 12]]}
        assert answers["data"] == [expected] * 4
        assert server.client.get("/console").status_code == 404
        assert server.stop() == 0


def test_pod_lives_while_its_model_loads_and_is_ready_when_it_has(tmp_path: Path) -> None:
    model, runtime = code_model(tmp_path / "model", WAITS), RUNTIMES[0]
    with started(runtime, model, tmp_path) as server:
        wait_until(lambda: probe(server, runtime, "livenessProbe") == 200, 30)
        assert probe(server, runtime, "readinessProbe") == 503
        (model / "go").touch()
        wait_until(lambda: probe(server, runtime, "readinessProbe") == 200, 30)


def test_container_ends_where_its_model_cannot_be_served(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with started(RUNTIMES[0], tmp_path / "model", tmp_path) as server:
        assert server.process.wait(60) == 1
        assert "Nothing here is a model" in server.log.read_text()
