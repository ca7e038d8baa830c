"""Which GPU a model gets, on a machine that has some: here the driver's tool is a script."""

from pathlib import Path

import pytest

from mooring.contract.resources import gpu_memory_bytes
from mooring.serving.devices import Devices

MIB = 1 << 20
TOOL = """#!/bin/sh
case "$1" in
  --list-gpus) printf 'GPU 0: A\\nGPU 1: B\\nGPU 2: C\\n' ;;
  --query-gpu*) printf '0, 16000, 1000\\n1, 16000, 9000\\n2, 16000, 5000\\n' ;;
esac
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.usefixtures("driver")
def test_model_goes_to_the_device_with_most_free_memory() -> None:
    devices = Devices.visible({})
    assert devices.ids == (0, 1, 2)
    assert devices.emptiest() == 1
    assert devices.free_bytes() == 9000 * MIB
    assert gpu_memory_bytes()[2] == (16000 * MIB, 5000 * MIB)


@pytest.mark.usefixtures("driver")
def test_only_visible_devices_are_used_by_their_place_among_them() -> None:
    devices = Devices.visible({"CUDA_VISIBLE_DEVICES": "2,0"})
    assert devices.ids == (0, 1)
    assert devices.emptiest() == 0
    assert devices.free_bytes() == 5000 * MIB


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_devices_are_not_there(hidden: str) -> None:
    assert Devices.visible({"CUDA_VISIBLE_DEVICES": hidden}).ids == ()


@pytest.mark.usefixtures("driver")
def test_device_named_by_uuid_is_used_although_its_memory_is_not_known() -> None:
    devices = Devices.visible({"CUDA_VISIBLE_DEVICES": "GPU-8f3a"})
    assert (devices.ids, devices.emptiest(), devices.free_bytes()) == ((0,), 0, None)


def test_shared_hosts_take_devices_in_turn() -> None:
    devices = Devices((0, 1))
    assert [devices.next() for _ in range(4)] == [0, 1, 0, 1]


def test_machine_without_one_gives_none() -> None:
    devices = Devices()
    assert (devices.next(), devices.emptiest(), devices.free_bytes()) == (None, None, None)
