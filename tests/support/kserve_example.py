"""examples/kserve as KServe would read it: its runtimes, its model, and the container that comes of both."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "examples/kserve"
CLIENT = Path(__file__).with_name("kserve_client.py")
# Where `make` puts KServe's package, beside the environment.
PACKAGE = Path(sys.prefix) / "kserve"
# Where KServe mounts a model.
MOUNT = "/mnt/models"


def documents() -> list[dict[str, Any]]:
    """Return every object in the manifests."""
    return [each for file in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text("utf-8"))]


def runtimes() -> dict[str, dict[str, Any]]:
    """Return the specifications of the runtimes by name."""
    return {each["metadata"]["name"]: each["spec"] for each in documents() if each["kind"] == "ServingRuntime"}


def service() -> dict[str, Any]:
    """Return the one InferenceService."""
    (found,) = (each for each in documents() if each["kind"] == "InferenceService")
    return found


def container(runtime: str) -> dict[str, Any]:
    """Return a runtime's container with the model's name put in as KServe does it: into its JSON, anywhere."""
    (found,) = runtimes()[runtime]["containers"]
    made: dict[str, Any] = json.loads(json.dumps(found).replace("{{.Name}}", service()["metadata"]["name"]))
    return made


def ask(url: str, model: str, output: str) -> Any:
    """Return what KServe's own client gets from a server: its health, and two rows of three floats answered."""
    command = [sys.executable, str(CLIENT), str(PACKAGE), url.rstrip("/"), model, output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
