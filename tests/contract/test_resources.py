import os
from pathlib import Path

import pytest

from mooring.contract.resources import has_efa, memory_available_bytes, memory_limit_bytes, usable_cpus

GIB = 1 << 30


def proc(folder: Path, total_gib: int = 16, available_gib: int = 8) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "meminfo").write_text(
        f"MemTotal: {total_gib * GIB // 1024} kB\nMemAvailable: {available_gib * GIB // 1024} kB\n"
    )
    return folder


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_cpus_are_the_quota_in_whole_cores_at_least_one(
    tmp_path: Path, files: dict[str, str], quota: int | None
) -> None:
    affinity = len(os.sched_getaffinity(0))
    assert usable_cpus(write(tmp_path, files)) == (quota or affinity)


def test_quota_above_the_affinity_does_not_help(tmp_path: Path) -> None:
    write(tmp_path, {"cpu.max": "99900000 100000"})
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        ({"memory.max": str(2 * GIB)}, 2),
        ({"memory.max": "max"}, 16),
        ({"memory.max": str(64 * GIB)}, 16),
        ({"memory/memory.limit_in_bytes": str(3 * GIB)}, 3),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096)}, 16),
        ({}, 16),
    ],
)
def test_memory_limit_is_the_containers_or_the_machines(tmp_path: Path, files: dict[str, str], gib: int) -> None:
    assert memory_limit_bytes(write(tmp_path / "cgroup", files), proc(tmp_path / "proc")) == gib * GIB


def test_reclaimable_cache_counts_as_free(tmp_path: Path) -> None:
    cgroup = write(
        tmp_path / "cgroup",
        {
            "memory.max": str(4 * GIB),
            "memory.current": str(3 * GIB),
            "memory.stat": f"anon 1\ninactive_file {GIB}\n",
        },
    )
    assert memory_available_bytes(cgroup, proc(tmp_path / "proc")) == 2 * GIB


def test_no_more_is_free_than_the_machine_has(tmp_path: Path) -> None:
    cgroup = write(tmp_path / "cgroup", {"memory.max": str(14 * GIB), "memory.current": "0"})
    assert memory_available_bytes(cgroup, proc(tmp_path / "proc")) == 8 * GIB


def test_efa_is_found_by_its_device(tmp_path: Path) -> None:
    assert not has_efa(tmp_path)
    (tmp_path / "uverbs0").touch()
    assert has_efa(tmp_path)
