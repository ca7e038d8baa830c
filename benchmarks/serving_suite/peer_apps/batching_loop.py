"""The raw loop with batching added: what is queued runs together, as our hosts do it, but in the process of the server.

uvicorn benchmarks.serving_suite.peer_apps.batching_loop:application
"""

import asyncio
from typing import Any

from .job import MOST_ROWS, Job
from .raw_loop import Message, Receive, Send, answer, parse, whole_body

job = Job()
waiting: list[tuple[Any, asyncio.Future[Any]]] = []


def run() -> None:
    """Answer what has queued up since the loop was last here."""
    global waiting
    queued, waiting = waiting, []
    for start in range(0, len(queued), MOST_ROWS):
        batch = queued[start : start + MOST_ROWS]
        for output, (_, answered) in zip(job.run_together([rows for rows, _ in batch]), batch, strict=True):
            answered.set_result(output)


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answer every request with the model's output."""
    if scope["type"] != "http":
        return
    rows = parse(job, await whole_body(receive))
    loop = asyncio.get_running_loop()
    if not waiting:
        loop.call_soon(run)
    answered: asyncio.Future[Any] = loop.create_future()
    waiting.append((rows, answered))
    await answer(await answered, send)
