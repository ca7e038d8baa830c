"""What this container uses: cores, memory, disk and network, as its cgroup counts them, or else as the machine does."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mooring.contract.resources import CGROUP, memory_available_bytes, memory_limit_bytes, usable_cpus

NETWORK = Path("/proc/net/dev")
RECEIVED, SENT = 0, 8  # bytes, by their column


@dataclass(frozen=True)
class Counters:
    """What only grows: seconds of cores, bytes read and written, bytes received and sent."""

    at: float
    cpu_seconds: float
    disk: tuple[int, int]
    network: tuple[int, int]

    @classmethod
    def now(cls, cgroup: Path = CGROUP) -> "Counters":
        """Return them as they are."""
        return cls(time.monotonic(), _cpu_seconds(cgroup), _disk_bytes(cgroup), _network_bytes())


@dataclass
class HostUsage:
    """This host's use since it was last asked."""

    cgroup: Path = CGROUP
    _before: Counters = field(init=False)

    def __post_init__(self) -> None:
        self._cores = usable_cpus(self.cgroup)
        self._memory_bytes = memory_limit_bytes(self.cgroup)
        self._before = Counters.now(self.cgroup)

    def facts(self) -> dict[str, Any]:
        """Return what does not change."""
        return {"cores": self._cores, "memory_bytes": self._memory_bytes}

    def sample(self) -> dict[str, Any]:
        """Return the share of all cores, bytes of memory, and bytes a second of disk and network."""
        before, now = self._before, Counters.now(self.cgroup)
        self._before = now
        seconds = max(now.at - before.at, 1e-6)

        def rate(after: int, earlier: int) -> int:
            return max(0, round((after - earlier) / seconds))  # counters begin anew when a device comes back

        return {
            "cpu": round(min(1.0, max(0.0, (now.cpu_seconds - before.cpu_seconds) / seconds / self._cores)), 4),
            "memory": self._memory_bytes - memory_available_bytes(self.cgroup),
            "disk": [rate(*pair) for pair in zip(now.disk, before.disk, strict=True)],
            "network": [rate(*pair) for pair in zip(now.network, before.network, strict=True)],
        }


class ProcessUsage:
    """This process's own use since it was last asked."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = time.monotonic(), time.process_time()

    def sample(self) -> dict[str, Any]:
        """Return cores and bytes; what a rank's workers use is the host's only."""
        (at, cpu), self._before = self._before, (time.monotonic(), time.process_time())
        cores = (self._before[1] - cpu) / max(self._before[0] - at, 1e-6)
        return {"rank_cores": round(cores, 3), "rank_memory": self._process.memory_info().rss}


def _cpu_seconds(cgroup: Path) -> float:
    for line in _lines(cgroup / "cpu.stat"):  # v2
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1e6
    for line in _lines(cgroup / "cpuacct" / "cpuacct.usage"):  # v1
        return int(line) / 1e9
    times = psutil.cpu_times()
    return float(times.user + times.system)


def _disk_bytes(cgroup: Path) -> tuple[int, int]:
    """Return bytes read and written."""
    if lines := _lines(cgroup / "io.stat"):  # v2: "8:0 rbytes=1 wbytes=2 …"
        fields = [dict(part.split("=", 1) for part in line.split()[1:] if "=" in part) for line in lines]
        return sum(int(each.get("rbytes", 0)) for each in fields), sum(int(each.get("wbytes", 0)) for each in fields)
    if lines := _lines(cgroup / "blkio" / "blkio.throttle.io_service_bytes"):  # v1: "8:0 Read 1"
        words = [line.split() for line in lines]
        return tuple(sum(int(each[2]) for each in words if each[1:2] == [kind]) for kind in ("Read", "Write"))  # type: ignore[return-value]
    counters = psutil.disk_io_counters()
    return (counters.read_bytes, counters.write_bytes) if counters else (0, 0)


def _network_bytes() -> tuple[int, int]:
    """Return bytes received and sent by all interfaces but the loopback, in this container's own network."""
    if lines := _lines(NETWORK):  # psutil reads it too, at twice the cost: two lines of heads, then "eth0: 1 … 9 …"
        named = (line.partition(":") for line in lines[2:])
        rows = [fields.split() for name, _, fields in named if name.strip() != "lo"]
        return sum(int(row[RECEIVED]) for row in rows), sum(int(row[SENT]) for row in rows)
    counters = [each for name, each in psutil.net_io_counters(pernic=True).items() if name != "lo"]
    return sum(each.bytes_recv for each in counters), sum(each.bytes_sent for each in counters)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode("ascii", "replace").splitlines()
    except OSError:
        return []


def free_bytes(folder: Path) -> int | None:
    """Return the room on a folder's disk; None where that cannot be told."""
    try:
        return os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    except OSError:
        return None
