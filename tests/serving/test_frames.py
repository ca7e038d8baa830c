import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.serving import frames
from mooring.serving.frames import Fields, Frame, FrameError, FrameReader, Kind, decode_lines, encode, encode_lines

FRAMES = st.lists(
    st.builds(
        Frame,
        kind=st.sampled_from([int(kind) for kind in Kind]),
        id=st.integers(0, 2**32 - 1),
        number=st.integers(0, 2**32 - 1),
        meta=st.binary(max_size=64),
        body=st.binary(max_size=300),
    ),
    max_size=6,
)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_frames_survive_any_cutting_of_the_stream(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    reader = FrameReader()
    received: list[Fields] = []
    position = 0
    for cut in cuts:
        received += reader.feed(stream[position : position + cut])
        position += cut
    received += reader.feed(stream[position:])
    assert received == sent


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=4), st.lists(st.integers(1, 150_000), max_size=12))
def test_large_frames_arrive_fed_or_received_in_place(sizes: list[int], reads: list[int]) -> None:
    sent = [Frame(1, number, 7, b"x-a: b\r\n", bytes([number]) * size) for number, size in enumerate(sizes)]
    stream = b"".join(encode(*frame) for frame in sent)
    fed, reader, received, position = FrameReader(), FrameReader(), list[Fields](), 0
    for size in [*reads, *[100_000] * 10]:
        room = reader.room()
        if room is None:
            piece = stream[position : position + size]
            received += reader.feed(piece)
        else:
            piece = stream[position : position + min(size, len(room))]
            room[: len(piece)] = piece
            received += reader.fill(len(piece))
        position += len(piece)
    assert received == sent
    assert [
        frame for start in range(0, len(stream), 70_000) for frame in fed.feed(stream[start : start + 70_000])
    ] == sent


def test_impossible_length_is_an_error() -> None:
    with pytest.raises(FrameError, match="claims"):
        FrameReader().feed(struct.pack("<IHxxIII", frames.MAX_FRAME_BYTES + 1, 1, 0, 1, 1))


def test_head_lines_longer_than_the_frame_are_an_error() -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(struct.pack("<IHxxIII", 3, 1, 4, 1, 1))


def test_head_lines_over_the_limit_are_refused_before_they_are_sent() -> None:
    with pytest.raises(FrameError, match=str(frames.MAX_META_BYTES)):
        encode(Kind.INFER, 1, 1, b"x" * (frames.MAX_META_BYTES + 1))


def test_header_lines_come_back_as_they_went() -> None:
    pairs = [("content-type", "text/csv; charset=utf-8"), ("x-amzn-sagemaker-custom-attributes", "a: b, c=ü")]
    assert decode_lines(encode_lines(pairs)) == pairs
