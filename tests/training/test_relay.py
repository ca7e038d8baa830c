"""Lines pass whole and in order, whatever a rank writes."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.training.relay import MAX_LINE, Relay


def relayed(chunks: list[bytes]) -> tuple[bytes, Relay]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with tempfile.TemporaryFile() as sink:
        relay = Relay(read_end, sink.fileno())
        for chunk in chunks:
            os.write(write_end, chunk)
            relay.pump()
        os.close(write_end)
        relay.finish()
        sink.seek(0)
        return sink.read(), relay


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
@settings(max_examples=50, deadline=None)
def test_every_byte_comes_through_in_order(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert relayed(chunks)[0] == (whole if not whole or whole.endswith(b"\n") else whole + b"\n")


def test_two_ranks_lines_are_not_torn(tmp_path: Path) -> None:
    sink = os.open(tmp_path / "sink", os.O_WRONLY | os.O_CREAT)
    pipes = [os.pipe() for _ in range(2)]
    relays = [Relay(read_end, sink) for read_end, _ in pipes]
    for part in (b"first half,", b" second half\n"):
        for (_, write_end), relay in zip(pipes, relays, strict=True):
            os.write(write_end, part)
            relay.pump()
    for (_, write_end), relay in zip(pipes, relays, strict=True):
        os.close(write_end)
        relay.finish()
    os.close(sink)
    assert (tmp_path / "sink").read_text(encoding="utf-8") == "first half, second half\n" * 2


def test_line_without_end_is_passed_on_in_pieces() -> None:
    passed, relay = relayed([b"x" * 30_000] * (MAX_LINE // 30_000 + 2))
    assert passed.count(b"\n") == 2
    assert len(relay.tail) <= 1 << 13


def test_held_pipe_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A grandchild that outlives its rank keeps the pipe open."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with (tmp_path / "sink").open("wb") as sink:
        relay = Relay(read_end, sink.fileno())
        os.write(write_end, b"last words")
        relay.finish()
    os.close(write_end)
    assert (tmp_path / "sink").read_bytes() == b"last words\n"


@pytest.fixture
def broken_sink() -> Iterator[int]:
    read_end, write_end = os.pipe()
    os.close(read_end)
    yield write_end
    os.close(write_end)


def test_unread_output_does_not_stop_the_run(broken_sink: int) -> None:
    read_end, write_end = os.pipe()
    relay = Relay(read_end, broken_sink)
    os.write(write_end, b"line\n")
    assert relay.pump()
    os.close(write_end)
    relay.finish()
