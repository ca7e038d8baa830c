"""What this container may use: cores, memory, accelerators. Limits of the container win over the machine's size."""

import json
import os
import shutil
import subprocess
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
INFINIBAND = Path("/dev/infiniband")
# cgroup v1 writes a number near 2**63 where there is no limit.
NO_LIMIT_BYTES = 1 << 60
TOOL_TIMEOUT_S = 30.0
# What is asked of the machine's memory stands at the top of sixty lines.
MEMINFO_LINES = 5


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """Return the whole cores this container may use: its quota, its affinity, at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return max(1, min(affinity, int(quota))) if quota else affinity


def _cpu_quota(cgroup: Path) -> float | None:
    """Return the quota in cores, None where there is none."""
    if text := _read(cgroup / "cpu.max"):  # v2: "quota period" in microseconds, or "max period"
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    given = _read_number(cgroup / "cpu/cpu.cfs_quota_us")  # v1: -1 where there is none
    period_us = _read_number(cgroup / "cpu/cpu.cfs_period_us")
    return given / period_us if given and given > 0 and period_us else None


def memory_limit_bytes(cgroup: Path = CGROUP, proc: Path = PROC) -> int:
    """Return the memory this container may use: its limit or the machine's memory, whichever is less."""
    return min(_meminfo(proc)["MemTotal"], _cgroup_limit(cgroup))


def _cgroup_limit(cgroup: Path) -> int:
    limits = (_read_number(cgroup / "memory.max"), _read_number(cgroup / "memory/memory.limit_in_bytes"))
    return min([NO_LIMIT_BYTES, *filter(None, limits)])


def memory_available_bytes(cgroup: Path = CGROUP, proc: Path = PROC) -> int:
    """Return the room left: the limit less what is used and cannot be reclaimed, but no more than the machine has."""
    machine = _meminfo(proc)
    free = machine["MemAvailable"]
    for folder, used_file, inactive in (
        (cgroup, "memory.current", "inactive_file"),
        (cgroup / "memory", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        used = _read_number(folder / used_file)
        if used is not None:
            reclaimable = _stat(folder / "memory.stat", inactive)
            limit = min(machine["MemTotal"], _cgroup_limit(cgroup))
            return max(0, min(free, limit - used + reclaimable))
    return free


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Return how often the kernel has killed a process of this container for want of memory."""
    events = cgroup / "memory.events"
    if not events.exists():
        events = cgroup / "memory" / "memory.oom_control"  # v1
    return _stat(events, "oom_kill")


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that are visible here, 0 without a driver."""
    return sum(line.startswith("GPU") for line in _output("nvidia-smi", "--list-gpus").splitlines())


def gpu_memory_bytes() -> dict[int, tuple[int, int]]:
    """Return total and free memory of each NVIDIA GPU by the driver's index; empty without a driver."""
    query = ("--query-gpu=index,memory.total,memory.free", "--format=csv,noheader,nounits")  # in MiB
    memory = {}
    for line in _output("nvidia-smi", *query).splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and all(field.isdecimal() for field in fields):
            index, total, free = (int(field) for field in fields)
            memory[index] = (total << 20, free << 20)
    return memory


def neuron_count() -> int:
    """Return the number of AWS Neuron cores, 0 without a driver."""
    try:
        devices = json.loads(_output("neuron-ls", "-j") or "[]")
        return sum(int(device.get("nc_count", 0)) for device in devices)
    except (ValueError, AttributeError, TypeError):
        return 0


def has_efa(devices: Path = INFINIBAND) -> bool:
    """Whether an Elastic Fabric Adapter is here, by its device: lists of instance types go stale."""
    return any(devices.glob("uverbs*"))


def _output(*command: str) -> str:
    """Return what a tool prints, nothing if it is not here or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("ascii").strip()
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.lstrip("-").isdecimal() else None


def _stat(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _meminfo(proc: Path) -> dict[str, int]:
    """Return the machine's memory and what of it is available; no /proc, as on macOS, is no limit that we know of."""
    found = dict.fromkeys(("MemTotal", "MemAvailable"), NO_LIMIT_BYTES)
    for line in _read(proc / "meminfo").splitlines()[:MEMINFO_LINES]:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found
