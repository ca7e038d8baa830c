"""FastAPI by hand, as most people begin: `uvicorn benchmarks.serving_suite.peer_apps.fastapi_app:app --workers N`."""

from typing import Any

from fastapi import Body, FastAPI

from .job import Job

job = Job()
app = FastAPI()


@app.post("/invocations")
def invocations(rows: list[list[float]]) -> Any:
    """Answer with the model's output."""
    return job.run(job.read(rows)).tolist()


@app.post("/array")
def array(body: bytes = Body(media_type="application/x-npy")) -> Any:
    """Answer an array file with the model's output."""
    return job.run(job.read(body)).tolist()
