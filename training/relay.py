"""Lines from the ranks' pipes to this process's own streams: whole, in the order of their stream, and nothing added."""

import os

CHUNK = 1 << 16
# A line longer than this is passed on in pieces; something that never ends a line must not fill the memory.
MAX_LINE = 1 << 20
TAIL_BYTES = 1 << 13


class Relay:
    """One pipe. Remembers the end of what went through, for the failure file."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.tail = b""
        self._sink = sink
        self._rest = b""

    def pump(self) -> bool:
        """Pass on what is there; False once the pipe has ended. The pipe must not block."""
        try:
            chunk = os.read(self.source, CHUNK)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._write(self._rest + whole + newline)
            self._rest = rest
        else:
            self._rest += chunk
        if len(self._rest) > MAX_LINE:
            self._end_line()
        return True

    def finish(self) -> None:
        """Pass on whatever is still in the pipe, whoever holds its other end, and close it."""
        before = b""
        while before is not self.tail:
            before = self.tail
            if not self.pump():
                break
        if self._rest:
            self._end_line()
        os.close(self.source)

    def _end_line(self) -> None:
        self._write(self._rest + b"\n")
        self._rest = b""

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._sink, view) :]
        except OSError:
            pass  # nobody reads our output any more, which is no reason to stop training
