"""When the container's memory is read anew."""

from collections.abc import Iterator

import pytest

from mooring.serving.memory import FRESH_S, MOST_TIMES, PLENTY_BYTES, AvailableMemory


@pytest.mark.parametrize(
    ("left", "artifact_bytes", "later", "readings"),
    [
        (PLENTY_BYTES, 0, FRESH_S / 2, 1),
        (PLENTY_BYTES, 0, 2 * FRESH_S, 2),  # old
        (PLENTY_BYTES - 1, 0, FRESH_S / 2, 2),  # scarce
        (PLENTY_BYTES + MOST_TIMES, 2, FRESH_S / 2, 2),  # scarce for a model of that size
    ],
)
def test_memory_is_read_anew_unless_there_was_plenty_just_now(
    left: int, artifact_bytes: int, later: float, readings: int
) -> None:
    counted: list[int] = []

    def read() -> int:
        counted.append(left)
        return left

    times: Iterator[float] = iter([100.0, 100.0 + later])
    memory = AvailableMemory(read, lambda: next(times))
    assert [memory.bytes(0), memory.bytes(artifact_bytes)] == [left, left]
    assert len(counted) == readings
