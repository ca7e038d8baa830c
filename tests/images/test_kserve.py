"""The image in a pod of KServe's, as far as one engine can play it: the manifest's command, user, rights and mounts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kserve_example
import pytest
from containers import Served, serving
from images import Images
from models import scale_model

# What Kubernetes waits between SIGTERM and SIGKILL.
GRACE_S = 30
RUNTIME = "mooring"


def options_of(container: dict[str, Any], model: Path) -> list[str]:
    """Return the options of `docker run` for a manifest's container: its user, rights, limits, variables and mounts."""
    rights, limits = container["securityContext"], container["resources"]["limits"]
    assert rights["readOnlyRootFilesystem"]
    assert not rights["allowPrivilegeEscalation"]
    words = ["--read-only", "--security-opt", "no-new-privileges", "--user", str(rights["runAsUser"])]
    words += ["--memory", limits["memory"].removesuffix("i"), "--cpus", limits["cpu"]]
    words += [f"--cap-drop={capability}" for capability in rights["capabilities"]["drop"]]
    words += [word for each in container["env"] for word in ("--env", f"{each['name']}={each['value']}")]
    words += [word for mount in container["volumeMounts"] for word in ("--tmpfs", f"{mount['mountPath']}:exec")]
    return [*words, "--volume", f"{model}:{kserve_example.MOUNT}:ro"]


@contextmanager
def pod(image: str, model: Path) -> Iterator[tuple[Served, dict[str, Any]]]:
    """A pod whose model is ready, and the manifest's container."""
    container = kserve_example.container(RUNTIME)
    (port,) = (port["containerPort"] for port in container["ports"])
    command = [*container["command"], *container["args"]]
    with serving(image, *command, options=options_of(container, model), port=port) as served:
        served.container.wait_for(lambda: status(served, container["readinessProbe"]) == 200)
        yield served, container


def status(served: Served, probe: dict[str, Any]) -> int:
    return served.client.get(probe["httpGet"]["path"], timeout=probe["timeoutSeconds"]).status_code


@pytest.mark.skipif(not kserve_example.PACKAGE.exists(), reason="KServe's client is not installed")
def test_pod_answers_kserves_client_and_stops_in_time(images: Images, tmp_path: Path) -> None:
    with pod(images.inference, scale_model(tmp_path / "model")) as (served, container):
        assert status(served, container["livenessProbe"]) == 200
        answers = kserve_example.ask(str(served.client.base_url), kserve_example.service()["metadata"]["name"], "y")
        assert answers["ready models"] == [True]
        assert [answer["values"] for answer in answers["data"]] == [[[2, 4, 6], [8, 10, 12]]] * 4
        assert served.container.execute("id", "-u").strip() == str(container["securityContext"]["runAsUser"])
        served.container.execute(*container["lifecycle"]["preStop"]["exec"]["command"])
        assert served.container.stop(GRACE_S) == 0


def test_only_the_pod_itself_may_unload(images: Images, tmp_path: Path) -> None:
    with pod(images.inference, scale_model(tmp_path / "model")) as (served, container):
        refused = served.client.delete(f"/models/{kserve_example.service()['metadata']['name']}")
        assert (refused.status_code, status(served, container["readinessProbe"])) == (403, 200)
