"""The wire between front door and hosts: length-prefixed frames over a Unix socket, never pickled.

A frame is a 20-byte head, `meta` (header lines, or JSON for loads) and a body. `number` is the model's number on the
way to a host and the status code on the way back. Many frames travel in one read or write; none waits for another.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from mooring.contract.errors import MooringError

# total length after the head, kind, length of meta, frame id, number; little-endian
HEAD = struct.Struct("<IHxxIII")
HEAD_BYTES = HEAD.size
_pack, _unpack = HEAD.pack, HEAD.unpack_from
# More than the largest head of a request that a setting allows, with what the front door adds.
MAX_META_BYTES = 1 << 24
# A host receives a larger frame that has not come whole into memory of its own, instead of putting it together.
LARGE_BYTES = 1 << 16
# What a socket between the two may hold for its reader; the kernel gives less where its limit is lower. With its
# default, a picture as an array of numbers takes a dozen wake-ups to cross.
SOCKET_BYTES = 1 << 22
# What may be under way to the client of one stream: enough to keep a link busy, little enough for thousands of slow
# readers.
WINDOW_BYTES = 1 << 20
# Larger than any body the front door lets in by far; anything above means that the two sides are out of step.
MAX_FRAME_BYTES = 1 << 31


class Kind(IntEnum):
    """What a frame asks or answers. A stream is STREAM, CHUNK…, then END, or ERROR where it broke off."""

    # to a host
    INFER = 1
    INFER_FILE = 2  # the body is the path of a file that holds the request's body
    LOAD = 3
    UNLOAD = 4
    CANCEL = 5  # nobody wants the answer, or the model, of the frame with this id
    CREDIT = 6  # `number` more bytes of a stream may be sent
    CHANGE_TIER = 14  # hold a model in another form
    MAKE = 15  # make the cached form of the model in a folder
    # from a host
    ANSWER = 7
    STREAM = 8  # status and header lines of an answer whose body follows in chunks
    CHUNK = 9
    END = 10
    WARMING = 11  # a load has what it needs and tries itself
    DONE = 12
    ERROR = 13
    TALLY = 16  # what the batches of models took since the last one


# Of the frames of every request, as plain numbers: a member of an enum is compared through Python.
INFER, ANSWER = int(Kind.INFER), int(Kind.ANSWER)


# A frame as it is read: kind, id, number, meta, body. To make a Frame of it takes as long as to read it.
Fields = tuple[int, int, int, bytes, bytes]


class Frame(NamedTuple):
    """One message between front door and host, for those that come seldom."""

    kind: int
    id: int
    number: int
    meta: bytes
    body: bytes


class FrameError(MooringError):
    """The other side sent something that is no frame."""


def encode(kind: int, frame_id: int, number: int, meta: bytes = b"", body: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    lines = len(meta)
    if lines > MAX_META_BYTES:
        raise _too_many_lines(lines)
    return _pack(lines + len(body), kind, lines, frame_id, number) + meta + body


def encode_head(kind: int, frame_id: int, number: int, meta: bytes, body_bytes: int) -> bytes:
    """Return what stands before a frame's body, for a body that is too large to be copied behind it."""
    lines = len(meta)
    if lines > MAX_META_BYTES:
        raise _too_many_lines(lines)
    return _pack(lines + body_bytes, kind, lines, frame_id, number) + meta


def _too_many_lines(size: int) -> FrameError:
    return FrameError(f"A frame's head lines are {size} bytes; the limit is {MAX_META_BYTES}.")


class FrameReader:
    """Turns a stream of bytes back into frames, keeping an unfinished one for the next read."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = HEAD_BYTES
        self._large: bytearray | None = None  # a frame of which the first `_filled` bytes have come
        self._filled = 0

    def room(self) -> memoryview | None:
        """Return where the next bytes are to be received, of which `fill` is then told; None if they are to be fed.

        All of a large frame's memory is taken at once: only for who trusts the lengths that the other side claims.
        """
        if self._large is None:
            if self._wanted <= LARGE_BYTES:
                return None
            self._large, self._filled = bytearray(self._wanted), len(self._rest)
            self._large[: self._filled] = self._rest
            self._rest.clear()
            self._wanted = HEAD_BYTES
        return memoryview(self._large)[self._filled :]

    def fill(self, size: int) -> list[Fields]:
        """Return the frame that the bytes received into `room` complete, if they do."""
        whole = self._large
        assert whole is not None
        self._filled += size
        if self._filled < len(whole):
            return []
        self._large = None
        _, kind, meta_length, frame_id, number = _unpack(whole, 0)
        view, body_start = memoryview(whole), HEAD_BYTES + meta_length
        return [(kind, frame_id, number, bytes(view[HEAD_BYTES:body_start]), bytes(view[body_start:]))]

    def feed(self, chunk: bytes) -> list[Fields]:
        """Return the frames that `chunk` completes, in order. Raises `FrameError` for impossible lengths."""
        if self._rest:
            self._rest += chunk
            # A large body arrives in many reads: look again only when it can be whole.
            if len(self._rest) < self._wanted:
                return []
            chunk = bytes(self._rest)
            self._rest.clear()
        frames: list[Fields] = []
        start, end = 0, len(chunk)
        self._wanted = HEAD_BYTES
        while end - start >= HEAD_BYTES:
            length, kind, meta_length, frame_id, number = _unpack(chunk, start)
            if length > MAX_FRAME_BYTES or meta_length > length:
                raise FrameError(f"A frame claims {length} bytes with {meta_length} of head lines.")
            meta_start = start + HEAD_BYTES
            body_start = meta_start + meta_length
            stop = meta_start + length
            if stop > end:
                self._wanted = stop - start
                break
            frames.append((kind, frame_id, number, chunk[meta_start:body_start], chunk[body_start:stop]))
            start = stop
        if start < end:
            self._rest += chunk[start:]
        return frames


def encode_lines(pairs: list[tuple[str, str]]) -> bytes:
    """Encode header names and values as the lines that travel in `meta`."""
    return "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1")


def decode_lines(lines: bytes) -> list[tuple[str, str]]:
    """Decode what `encode_lines` made."""
    pairs = []
    for line in lines.decode("latin-1").split("\r\n"):
        name, separator, value = line.partition(": ")
        if separator:
            pairs.append((name, value))
    return pairs
