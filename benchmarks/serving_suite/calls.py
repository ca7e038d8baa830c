"""Requests for one of many small models, by our server's paths and by multi-model-server's."""

from examples.serving.many_models.fleet import FEATURES

from .client import Client

QUERY = [[1.0] * FEATURES]
# Lines of our /metrics.
READY = 'mooring_models{state="ready"}'
LOADS = 'mooring_model_events_total{event="loaded"}'
BUDGET = 'mooring_memory_bytes{what="budget"}'
HELD = 'mooring_memory_bytes{what="models"}'


def invoke(client: Client, name: str) -> None:
    """Ask a model; one that is found in the repository is loaded first."""
    client.post(f"/models/{name}/invoke", QUERY)


def register(client: Client, name: str) -> None:
    """Let multi-model-server load a model with one worker, and ask it."""
    client.send("POST", f"/models?url={name}&model_name={name}&initial_workers=1&synchronous=true")
    client.post(f"/predictions/{name}", QUERY)


def unload(client: Client, name: str) -> None:
    """Unload a model: the same of both servers."""
    client.send("DELETE", f"/models/{name}")


def metric(client: Client, line: str) -> float:
    """Return the number that our /metrics has for something."""
    lines = client.send("GET", "/metrics").decode().splitlines()
    return next(float(found.rpartition(" ")[2]) for found in lines if found.startswith(line))
