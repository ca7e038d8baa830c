"""Lines from the ranks' pipes to this process's own streams: whole, in the order of their stream, and nothing added."""

import os

CHUNK = 1 << 16
# A line longer than this is passed on in pieces; something that never ends a line must not fill the memory.
MAX_LINE = 1 << 20
TAIL_BYTES = 1 << 13
# A pipe holds one chunk at most; something that outlives its rank may go on filling it, and is not waited for.
LAST_CHUNKS = 16


class Relay:
    """One pipe. Remembers the end of what went through, for the failure file."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.tail = b""
        self._sink = sink
        self._rest = b""

    def pump(self) -> bool:
        """Pass on what is there; False once the pipe has ended. The pipe must not block."""
        chunk = self._read()
        if chunk:
            self._take(chunk)
        return chunk != b""

    def finish(self) -> None:
        """Pass on what is still in the pipe, whoever holds its other end, and close it."""
        for _ in range(LAST_CHUNKS):
            chunk = self._read()
            if not chunk:
                break
            self._take(chunk)
        if self._rest:
            self._end_line()
        os.close(self.source)

    def _read(self) -> bytes | None:
        """Return what is there, nothing if the pipe has ended, None if it may still say something."""
        try:
            return os.read(self.source, CHUNK)
        except BlockingIOError:
            return None

    def _take(self, chunk: bytes) -> None:
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._write(self._rest + whole + newline)
            self._rest = rest
        else:
            self._rest += chunk
        if len(self._rest) > MAX_LINE:
            self._end_line()

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
