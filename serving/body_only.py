"""The callbacks of a parser that reads on where another one stopped, for a body whose head was read already."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lane import ExpressLane


class BodyOnly:
    """The callbacks of a parser whose first message's body belongs to a request that was begun already."""

    def __init__(self, lane: "ExpressLane") -> None:
        self.lane = lane
        self.is_complete = False

    def on_chunk_header(self) -> None:
        """Pass on that a chunk begins."""
        if not self.is_complete:
            self.lane.on_chunk_header()

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body."""
        if not self.is_complete:
            self.lane.on_body(body)

    def on_message_complete(self) -> None:
        """Pass on the body's end; what follows it is another request, and not read."""
        if not self.is_complete:
            self.is_complete = True
            self.lane.on_message_complete()
