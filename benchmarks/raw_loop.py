"""The peer to beat: a bare ASGI application that runs onnxruntime in its own process, one request at a time.

uvicorn benchmarks.raw_loop:application
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import onnxruntime
import orjson

Message = dict[str, Any]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
HEADERS = [(b"content-type", b"application/json")]


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
    (output,) = session.run(None, {"x": np.asarray(orjson.loads(body), np.float32)}) if body else ([],)
    answer = orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": answer})
