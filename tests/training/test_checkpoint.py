"""Checkpoints are valid or not there: one rank, a real folder, and every way to spoil it."""

import contextlib
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mooring.training.checkpoint import Checkpointer, CheckpointMismatchError
from mooring.training.distributed import process_group
from mooring.training.manifest import DamagedCheckpointError, verify
from mooring.training.retention import Best, Retention
from mooring.training.sampler import DataPosition
from mooring.training.state import TrainingState

ALL = Retention(last=99)


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with process_group():
        yield


def make_state(width: int = 4, seed: int = 0) -> TrainingState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    return TrainingState(model, optimizer, scheduler, DataPosition())


def advance(state: TrainingState, steps: int = 1) -> list[float]:
    """Train on random data; returns the losses, which depend on all there is in the state."""
    losses = []
    for _ in range(steps):
        noise = torch.randn(8, 3) + float(np.random.rand()) + random.random()
        loss = state.model(noise).square().mean()
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        assert state.scheduler is not None
        state.scheduler.step()
        state.step += 1
        state.position.consumed += 8
        losses.append(loss.item())
    return losses


def save_steps(folder: Path, count: int, keep: Retention = ALL) -> TrainingState:
    """Save after each of some steps."""
    state = make_state()
    with Checkpointer(state, folder, keep=keep) as checkpoints:
        for _ in range(count):
            advance(state)
            checkpoints.save(metric=-abs(3 - state.step))
    return state


def resumed(folder: Path) -> tuple[int | None, TrainingState]:
    state = make_state(seed=99)
    with Checkpointer(state, folder) as checkpoints:
        return checkpoints.resume(), state


def test_resumed_run_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    state = make_state()
    with Checkpointer(state, tmp_path) as checkpoints:
        advance(state, 3)
        checkpoints.save()
        expected = advance(state, 5)
    step, again = resumed(tmp_path)
    assert step == 3
    assert advance(again, 5) == expected
    assert again.position == state.position
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """What is written is the state as it was when `save` was called."""
    state = make_state()
    with Checkpointer(state, tmp_path) as checkpoints:
        advance(state)
        weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        checkpoints.save()
        advance(state, 3)
    _, again = resumed(tmp_path)
    for name, tensor in weights.items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_empty_folder_means_a_new_run(tmp_path: Path) -> None:
    assert resumed(tmp_path / "not there")[0] is None


@pytest.mark.parametrize(
    ("keep", "steps"),
    [
        (Retention(), [7, 8]),
        (Retention(last=1), [8]),
        (Retention(last=1, every=3), [3, 6, 8]),
        (Retention(last=1, best=Best.HIGHEST), [3, 8]),
        (Retention(last=2, best=Best.LOWEST), [7, 8]),
    ],
)
def test_what_is_to_be_kept_is_kept_and_nothing_else(tmp_path: Path, keep: Retention, steps: list[int]) -> None:
    save_steps(tmp_path, 8, keep)
    assert sorted(int(entry.name.removeprefix("step-")) for entry in tmp_path.iterdir()) == steps


def test_keeping_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="would keep nothing"):
        Retention(last=0)


def damage_nothing(folder: Path) -> None:
    """The newest one is whole."""


def truncate(folder: Path) -> None:
    file = next(folder.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(folder: Path) -> None:
    file = next(folder.glob("*.distcp"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose_a_file(folder: Path) -> None:
    next(folder.glob("*.distcp")).unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def lose_a_hosts_manifest(folder: Path) -> None:
    next(folder.glob("host-*.json")).unlink()


def tear_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"step": 3, "hos', encoding="utf-8")


def empty_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}", encoding="utf-8")


def lead_outside(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"hosts": {"../x": {"bytes": 1}}}), encoding="utf-8")


def mix_two_checkpoints(folder: Path) -> None:
    """A sync that delivered the manifests of one save and a file of another."""
    file = next(folder.glob("*.distcp"))
    shutil.copy(folder.parent / "step-00000002" / file.name, file)


DAMAGE = [
    truncate,
    flip_a_bit,
    lose_a_file,
    lose_the_manifest,
    lose_a_hosts_manifest,
    tear_the_manifest,
    empty_the_manifest,
    lead_outside,
    mix_two_checkpoints,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    save_steps(tmp_path, 3)
    damage(tmp_path / "step-00000003")  # type: ignore[operator]
    assert resumed(tmp_path)[0] == 2
    assert "The checkpoint of step 3 is skipped" in caplog.text
    assert "step-00000003" in caplog.text


def test_resumed_run_writes_the_damaged_step_anew(tmp_path: Path) -> None:
    save_steps(tmp_path, 3)
    lose_the_manifest(tmp_path / "step-00000003")
    step, state = resumed(tmp_path)
    assert step == 2
    with Checkpointer(state, tmp_path, keep=ALL) as checkpoints:
        advance(state)
        checkpoints.save()
    verify(tmp_path / "step-00000003")
    assert resumed(tmp_path)[0] == 3


def test_damage_is_told_by_file_and_reason(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    truncate(tmp_path / "step-00000001")
    with pytest.raises(DamagedCheckpointError, match=r"__0_0\.distcp has [\d,]+ bytes; \d+ were written"):
        verify(tmp_path / "step-00000001")


def test_other_model_is_refused_by_its_tensors(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    other = make_state(width=5)
    with Checkpointer(other, tmp_path) as checkpoints, pytest.raises(CheckpointMismatchError) as refused:
        checkpoints.resume()
    assert "model.0.weight (4, 3) in the checkpoint, (5, 3) here" in refused.value.reshaped
    assert "empty checkpoint folder" in str(refused.value)


def test_unwritable_folder_costs_the_checkpoint_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = make_state()
    with Checkpointer(state, tmp_path) as checkpoints:
        advance(state)
        checkpoints.save()
        checkpoints.wait()
        advance(state)
        (tmp_path / "step-00000002").write_text("a file where the folder would be", encoding="utf-8")
        checkpoints.save()
        checkpoints.wait()
        assert "The checkpoint of step 2 failed, training goes on" in caplog.text
        advance(state)
        checkpoints.save()
    assert "An older checkpoint could not be removed" in caplog.text
    assert resumed(tmp_path)[0] == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets us mount nothing")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


# From 3.13 on Python tells of a writer of torch's own that could not flush when it went, once the disk was full.
@pytest.mark.filterwarnings("ignore:.*NoCloseWriter:pytest.PytestUnraisableExceptionWarning")
def test_full_disk_costs_the_checkpoint_not_the_run(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = make_state()
    with Checkpointer(state, small_disk) as checkpoints:
        advance(state)
        checkpoints.save()
        checkpoints.wait()
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(4096))
        advance(state)
        checkpoints.save()
        checkpoints.wait()
        assert "The checkpoint of step 2 failed" in caplog.text
        assert not (small_disk / "step-00000002").exists()
        assert resumed(small_disk)[0] == 1
        (small_disk / "filler").unlink()
        advance(state)
        checkpoints.save()
    assert resumed(small_disk)[0] == 3
