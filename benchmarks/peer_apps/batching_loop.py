"""The raw loop with batching added: what is queued runs together, as our hosts do it, but in the process of the server.

uvicorn benchmarks.peer_apps.batching_loop:application
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import onnxruntime
import orjson

Message = dict[str, Any]
MOST_ROWS = 64

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
waiting: list[tuple[Any, asyncio.Future[Any]]] = []


def run() -> None:
    """Answer what has queued up since the loop was last here."""
    global waiting
    queued, waiting = waiting, []
    for start in range(0, len(queued), MOST_ROWS):
        batch = queued[start : start + MOST_ROWS]
        (output,) = session.run(None, {"x": np.concatenate([rows for rows, _ in batch])})
        first = 0
        for rows, answered in batch:
            answered.set_result(output[first : first + len(rows)])
            first += len(rows)


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer every request with the model's output."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    output: Any = []
    if body:
        loop = asyncio.get_running_loop()
        if not waiting:
            loop.call_soon(run)
        answered: asyncio.Future[Any] = loop.create_future()
        waiting.append((np.asarray(orjson.loads(body), np.float32), answered))
        output = await answered
    answer = orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
