"""Heads of requests that were read before: clients repeat them byte for byte, and what they say need not be found anew.

Only what the parser has accepted is remembered, so a head means here what it means there.
"""

from typing import NamedTuple

POST = b"POST "
END = b"\r\n\r\n"
# Heads that hold a request's own id or cookies never come again: these bounds keep what they cost small.
MOST_HEADS = 512
MOST_BYTES = 2048


class Head(NamedTuple):
    """What the express lane needs to know of a request before its body."""

    name: str  # of the model
    lines: bytes  # the header lines that reach the handler
    length: int  # of the body


class Heads:
    """The heads that were read last."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.get = self._known.get  # what a head's bytes say, None if they have not been read before

    def remember(self, chunk: bytes, head: Head) -> None:
        """Remember what the head with which a chunk begins was found to say. A chunk that begins otherwise is passed.

        So is one with a line that ends in a line feed alone: the parser may end such a head somewhere else.
        """
        raw = chunk[: chunk.find(END) + len(END)]
        if len(raw) > MOST_BYTES or not raw.startswith(POST) or raw.count(b"\n") != raw.count(b"\r\n"):
            return
        if len(self._known) >= MOST_HEADS:
            self._known.clear()
        self._known[raw] = head
