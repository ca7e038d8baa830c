"""What a user's handler returned, as an answer: text, bytes, values to encode, or what makes them one by one."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any, cast

from . import codecs
from .context import Context
from .protocol import InferenceResponse
from .user_module import user_code

Body = str | bytes | bytearray | memoryview


def to_response(
    result: Any, accept: str, context: Context, idx: int = 0, loop: asyncio.AbstractEventLoop | None = None
) -> InferenceResponse:
    """Return the answer that a function's result means: a body, or (body, content type), or a stream of either."""
    body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, accept)
    if is_stream(body):
        return context.response(b"", content_type, idx, chunks=_chunks(body, loop))
    return context.response(to_bytes(body), content_type, idx)


def is_stream(result: Any) -> bool:
    """Whether a result makes its answer piece by piece."""
    return inspect.isgenerator(result) or inspect.isasyncgen(result)


def to_bytes(body: Any) -> bytes:
    """Return a body as bytes; what is neither text nor bytes becomes JSON."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    return codecs.encode_json(plain(body))


def plain(value: Any) -> Any:
    """Return a tensor as an array; other values as they are."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu().numpy()
    return value


def _chunks(made: Any, loop: asyncio.AbstractEventLoop | None) -> Iterator[bytes]:
    """Yield what a generator makes. Closing this closes the generator, which sees it as GeneratorExit."""
    pieces: Generator[Any, None, None] = (
        _in_turn(cast("AsyncGenerator[Any, Any]", made), loop) if inspect.isasyncgen(made) else made
    )
    try:
        while True:
            with user_code("The model's stream"):
                try:
                    piece = next(pieces)
                except StopIteration:
                    return
            yield to_bytes(piece)
    finally:
        pieces.close()


def _in_turn(made: AsyncGenerator[Any, Any], loop: asyncio.AbstractEventLoop | None) -> Generator[Any, None, None]:
    assert loop is not None
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(made))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(made.aclose())
