"""Mixed precision on whatever device there is: a run killed and resumed has the losses of one that was not."""

import signal
from pathlib import Path

import pytest
import torch
from training_jobs import Job

SCRIPT = """
import os, torch
from torch import nn
from mooring.training import Checkpointer, TrainingState, prepare, process_group
kind = getattr(torch, os.environ["KIND"])
with process_group() as group:
    assert group.device.type == os.environ["DEVICE"]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))
    example = torch.zeros(2, 32, device=group.device)
    shard = [model[0]] if "SHARD" in os.environ else None
    model = prepare(model.to(group.device), group, example, shard=shard)
    scaler = torch.amp.GradScaler(group.device.type, enabled=kind is torch.float16, growth_interval=4)
    state = TrainingState(model, torch.optim.AdamW(model.parameters(), 0.01), scaler=scaler)
    with Checkpointer(state) as checkpoints:
        print("resumed at", checkpoints.resume(), flush=True)
        while state.step < 30:
            inputs = torch.randn(16, 32, device=group.device)
            with torch.autocast(group.device.type, dtype=kind):
                loss = (model(inputs).float() - inputs.sum(1, keepdim=True)).square().mean()
            state.optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(state.optimizer)
            scaler.update()
            state.step += 1
            if group.rank == 0:
                print("loss", state.step, loss.item(), scaler.get_scale(), flush=True)
            if state.step % 5 == 0:
                checkpoints.save()
"""

CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")]


def losses(output: str) -> dict[int, tuple[float, ...]]:
    lines = (line.split() for line in output.splitlines() if line.startswith("loss "))
    return {int(step): (float(loss), float(scale)) for _, step, loss, scale in lines}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shard"), [("bfloat16", True), ("float16", False)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_killed_run_in_mixed_precision_goes_on_as_it_was(tmp_path: Path, device: str, kind: str, shard: bool) -> None:
    ranks = max(1, torch.cuda.device_count()) if device == "cuda" else 2
    variables = {"KIND": kind, "DEVICE": device} | ({"SHARD": "1"} if shard else {})
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    code, output = Job.write(tmp_path / "whole", SCRIPT, ranks=ranks).run(**variables)
    assert code == 0, output
    expected = losses(output)
    job = Job.write(tmp_path / "killed", SCRIPT, ranks=ranks)
    run = job.start(**variables)
    with run.process:
        run.wait_for_line("loss 12 ")
        run.signal(signal.SIGKILL)
        run.wait()
    code, output = job.run(**variables)
    assert code == 0, output
    assert "resumed at None" not in output
    seen = losses(run.output) | losses(output)
    assert set(seen) == set(range(1, 31))
    for step, values in seen.items():
        assert values == pytest.approx(expected[step], rel=1e-3 if device == "cuda" else 0), step
