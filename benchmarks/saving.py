"""What a checkpoint costs: how long it holds up the loop, and how fast it is written and read."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mooring.training import Checkpointer, Retention, TrainingState, process_group

STATE_MB = (50, 500)
ROUNDS = 5


def stalls() -> None:
    """Compare how long a save holds up the loop with torch.save and fsync of the same state."""
    print(f"\nsaving, {ROUNDS} interleaved rounds after a first one, medians; the loop is held up for")
    for megabytes in STATE_MB:
        with tempfile.TemporaryDirectory() as folder, process_group():
            ours, torchs = _stalls(Path(folder), _state(megabytes))
        print(
            f"  {megabytes:>4} MB   torch.save + fsync {torchs * 1000:8.1f} ms"
            f"   Checkpointer.save {ours * 1000:8.1f} ms   {ours / torchs:6.1%}"
        )


def _stalls(folder: Path, state: TrainingState) -> tuple[float, float]:
    """Return the median stall of ours and of torch's save, in seconds. The disk is idle before each."""
    ours, torchs = [], []
    with Checkpointer(state, folder / "checkpoints") as saver:
        for _ in range(ROUNDS + 1):
            state.step += 1
            ours.append(_seconds(saver.save))
            saver.wait()
            torchs.append(_seconds(lambda: _torch_save(state, folder / "torch.pt")))
    return statistics.median(ours[1:]), statistics.median(torchs[1:])


def throughput() -> None:
    """Compare writing and reading a checkpoint with writing and reading a file as large, both through to the disk."""
    print(f"\n{STATE_MB[-1]} MB through to the disk, {ROUNDS} interleaved rounds, medians")
    with tempfile.TemporaryDirectory() as name, process_group():
        folder = Path(name)
        state = _state(STATE_MB[-1])
        content = os.urandom(STATE_MB[-1] * 1_000_000)
        written: list[tuple[float, float]] = []
        read: list[tuple[float, float]] = []
        with Checkpointer(state, folder / "checkpoints", keep=Retention(last=1)) as saver:
            for _ in range(ROUNDS):
                state.step += 1
                plain = _seconds(lambda: _write(folder / "plain", content))
                written.append((plain, _seconds(lambda: _save_whole(saver))))
                _forget(folder)
                plain = _seconds(lambda: _read(folder / "plain"))
                read.append((plain, _seconds(saver.resume)))
    for what, pairs in (("write", written), ("read", read)):
        plain, ours = (STATE_MB[-1] / statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(plain / ours for plain, ours in pairs)
        print(
            f"  {what:<6} one file {plain:7.0f} MB/s   checkpoint, checksums and all {ours:7.0f} MB/s   {ratio:5.2f} x"
        )


def _state(megabytes: int) -> TrainingState:
    """Return a state of about that size, a step into its training; momentum doubles the weights."""
    layers = 10
    width = int((megabytes * 1e6 / 4 / 2 / layers) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    torch.autograd.backward(model(torch.ones(1, width)).sum())
    optimizer.step()
    return TrainingState(model, optimizer)


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _save_whole(saver: Checkpointer) -> None:
    saver.save()
    saver.wait()


def _torch_save(state: TrainingState, path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def _forget(folder: Path) -> None:
    """Let the kernel forget what it has cached of the files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
