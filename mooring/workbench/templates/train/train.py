"""The training script: rows of numbers in, a classifier out, stopped and resumed at any moment.

The channel `train` holds CSV files, the class (a whole number from 0) in the last column.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from mooring.training import (
    Checkpointer,
    DataPosition,
    GlobalBatchSampler,
    StopRequest,
    TrainingState,
    data_loader,
    hyperparameters,
    prepare,
    process_group,
    report,
)

# What every model of this project has beside its weights: the handler that serves it. May be absent.
CARRIED = Path(__file__).parent / "model"


@dataclass(frozen=True)
class Settings:
    """The hyperparameters."""

    epochs: int = 100
    batch_size: int = 8
    learning_rate: float = 0.05


def main():
    """Train, or go on training, and leave a model."""
    settings = hyperparameters(Settings)
    with process_group() as group:
        features, labels = read_rows(Path(os.environ["SM_CHANNEL_TRAIN"]))
        data = TensorDataset(features, labels)
        torch.manual_seed(0)
        network = nn.Linear(features.shape[1], int(labels.max()) + 1)
        model = prepare(network.to(group.device), group, features[:2].to(group.device))
        state = TrainingState(
            model, torch.optim.AdamW(model.parameters(), settings.learning_rate), position=DataPosition()
        )
        sampler = GlobalBatchSampler(
            len(data), settings.batch_size, state.position, seed=0, rank=group.rank, world_size=group.world_size
        )
        loader = data_loader(data, sampler)
        with StopRequest() as stop, Checkpointer(state) as checkpoints:
            checkpoints.resume()
            while state.position.epoch < settings.epochs:
                for inputs, wanted in loader:
                    loss = cross_entropy(model(inputs.to(group.device)), wanted.to(group.device))
                    state.optimizer.zero_grad()
                    loss.backward()
                    state.optimizer.step()
                    state.step += 1
                    state.position.consumed += settings.batch_size
                    if stop.agreed():
                        checkpoints.save()
                        return
                state.position.epoch += 1
                state.position.consumed = 0
                report(epoch=state.position.epoch, loss=loss.item())
            checkpoints.save()
        if group.rank == 0:
            leave_model(network, Path(os.environ["SM_MODEL_DIR"]))


def read_rows(folder):
    """Return features [rows, columns] and classes [rows] of all CSV files."""
    table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in sorted(folder.glob("*.csv"))])
    return torch.tensor(table[:, :-1], dtype=torch.float32), torch.tensor(table[:, -1], dtype=torch.int64)


def leave_model(network, folder):
    """Write the weights, and beside them the handler."""
    if CARRIED.is_dir():
        shutil.copytree(CARRIED, folder, dirs_exist_ok=True)
    weights = {"weight": network.weight.tolist(), "bias": network.bias.tolist()}
    (folder / "weights.json").write_text(json.dumps(weights), encoding="utf-8")


if __name__ == "__main__":
    main()
