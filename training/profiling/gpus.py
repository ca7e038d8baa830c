"""What GPUs do, by the driver's own tool: one process that says it again and again, since starting it takes a while."""

import os
import shutil
import subprocess
from contextlib import suppress

QUERY = "--query-gpu=index,utilization.gpu,memory.used,memory.total"
MIB = 1 << 20
TERMINATE_S = 5.0


class GpuUsage:
    """The GPUs of this host, as far as there are any; `close` ends the tool."""

    def __init__(self, interval_ms: int) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._latest: dict[int, list[float]] = {}
        if shutil.which("nvidia-smi") is None:
            return
        command = ["nvidia-smi", QUERY, "--format=csv,noheader,nounits", f"--loop-ms={interval_ms}"]
        with suppress(OSError):
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)

    def sample(self) -> dict[str, list[list[float]]]:
        """Return for each GPU the share of time that it computed, and used and all bytes of memory; empty if none."""
        if self._process is not None and self._process.stdout is not None:
            self._take(self._process.stdout.read() or b"")
        return {"gpus": [self._latest[index] for index in sorted(self._latest)]} if self._latest else {}

    def _take(self, content: bytes) -> None:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            with suppress(ValueError):  # what a device does not support reads "[N/A]"
                index, busy, used, total = (float(part) for part in line.decode("ascii", "replace").split(","))
                self._latest[int(index)] = [busy / 100, used * MIB, total * MIB]

    def close(self) -> None:
        """End the tool."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(TERMINATE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
