"""A client of the endpoint, and what the demo measures at it."""

import io
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

START_TIMEOUT_S = 60.0


@dataclass
class Traffic:
    """What a stream of requests saw."""

    answered: int = 0
    failed: int = 0
    statuses: set[int] = field(default_factory=set)


class Endpoint:
    """An HTTP client for one server on this machine."""

    def __init__(self, port: int) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def wait_until_healthy(self) -> float:
        """Return the seconds until /ping answered 200. Raises `TimeoutError`."""
        started = time.monotonic()
        while time.monotonic() - started < START_TIMEOUT_S:
            try:
                if self.client.get("/ping").status_code == 200:
                    return time.monotonic() - started
            except httpx.TransportError:
                pass
            time.sleep(0.01)
        raise TimeoutError(f"/ping did not answer 200 within {START_TIMEOUT_S:g} s")

    def load(self, name: str, url: Path) -> httpx.Response:
        """Load a model as the platform does."""
        return self.client.post("/models", json={"model_name": name, "url": str(url)})

    def invoke(self, name: str, body: bytes, content_type: str, accept: str = "application/json") -> httpx.Response:
        """Invoke a model."""
        headers = {"content-type": content_type, "accept": accept}
        return self.client.post(f"/models/{name}/invoke", content=body, headers=headers)

    def classify(self, name: str, png: bytes) -> tuple[int, float]:
        """Return the class a model gives to an image, and its probability."""
        probabilities = self.invoke(name, png, "application/x-image").raise_for_status().json()
        best = int(np.argmax(probabilities))
        return best, float(probabilities[best])

    @contextmanager
    def traffic(self, name: str, png: bytes) -> Iterator[Traffic]:
        """Keep invoking a model from another connection while the block runs."""
        seen = Traffic()
        stop = threading.Event()

        def run() -> None:
            with httpx.Client(base_url=self.client.base_url, timeout=60) as client:
                while not stop.is_set():
                    answer = client.post(
                        f"/models/{name}/invoke", content=png, headers={"content-type": "application/x-image"}
                    )
                    seen.statuses.add(answer.status_code)
                    seen.answered += answer.status_code == 200
                    seen.failed += answer.status_code != 200

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()


def npy(array: Any) -> bytes:
    """Encode an array as an .npy body."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def memory_mib(pid: int) -> float:
    """Return the proportional memory of a process and all its descendants."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(member.memory_full_info().pss for member in family)) / (1 << 20)


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000
