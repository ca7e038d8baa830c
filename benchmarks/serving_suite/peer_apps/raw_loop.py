"""The loop to beat: a bare ASGI application that runs onnxruntime in its own process, one request at a time.

uvicorn benchmarks.serving_suite.peer_apps.raw_loop:application
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from .job import NPY, Job

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

job = Job()


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answer every request with the model's output."""
    if scope["type"] == "http":
        body = await whole_body(receive)
        await answer(job.run(parse(job, body)), send)


async def whole_body(receive: Receive) -> bytes:
    """Return the body of a request."""
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


def parse(job: Job, body: bytes) -> Any:
    """Return a request's rows by the fastest parser there is."""
    return job.read(body if body.startswith(NPY) else orjson.loads(body))


async def answer(output: Any, send: Send) -> None:
    """Send an output as JSON."""
    body = orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
