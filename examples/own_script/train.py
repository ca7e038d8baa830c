"""A training script of your own: a table of numbers in, a classifier out, interrupted and resumed at any moment.

The channel `train` holds CSV files, the label (a whole number from 0) in the last column. In an image of ours:

    SAGEMAKER_PROGRAM=train.py train                                  # one process
    MOORING_PROCESSES_PER_HOST=2 SAGEMAKER_PROGRAM=train.py train     # two, on this host

As an estimator it is `entry_point="train.py"` and `distribution={"torch_distributed": {"enabled": True}}`. Nothing here
needs our launcher: under torchrun, or in a job of SDK v3, it is the same.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from mooring.training import (
    Best,
    Checkpointer,
    DataPosition,
    GlobalBatchSampler,
    Retention,
    StopRequest,
    TrainingState,
    data_loader,
    hyperparameters,
    prepare,
    process_group,
    report,
    whole_weights,
)


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, read typed; one that cannot be used ends the job with all that is wrong with them."""

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 0.01
    width: int = 64
    shard: bool = False  # spread the model over the ranks, where it does not fit into one


def main() -> None:
    """Train, or go on training, and leave a model."""
    settings = hyperparameters(Settings)
    with process_group() as group:
        features, labels = read_table(Path(os.environ.get("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train")))
        data = TensorDataset((features - features.mean(0)) / features.std(0), labels)
        torch.manual_seed(0)
        network = make_network(features, labels, settings.width)
        torch.manual_seed(group.rank)  # dropout differs between ranks, weights do not
        blocks = [network[0], network[3]] if settings.shard else None
        model = prepare(network.to(group.device), group, features[:2].to(group.device), shard=blocks)
        optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate)
        state = TrainingState(model, optimizer, position=DataPosition())
        sampler = GlobalBatchSampler(
            len(data), settings.batch_size, state.position, seed=1, rank=group.rank, world_size=group.world_size
        )
        loader = data_loader(data, sampler)
        with StopRequest() as stop, Checkpointer(state, keep=Retention(last=2, best=Best.LOWEST)) as checkpoints:
            checkpoints.resume()
            while state.position.epoch < settings.epochs:
                for inputs, wanted in loader:
                    loss = cross_entropy(model(inputs.to(group.device)), wanted.to(group.device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    state.step += 1
                    state.position.consumed += settings.batch_size
                    time.sleep(float(os.environ.get("EXAMPLE_PACE", "0")))  # for who wants to watch it being stopped
                    if stop.agreed():
                        checkpoints.save(loss.item())
                        return
                state.position.epoch += 1
                state.position.consumed = 0
                report(epoch=state.position.epoch, loss=loss.item())
                if state.position.epoch % 10 == 0:
                    checkpoints.save(loss.item())
        weights = whole_weights(model)
        if group.rank == 0:
            leave_model(weights, features, labels, settings.width)


def read_table(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features [rows, columns] and labels [rows] of all CSV files."""
    table = np.concatenate([np.loadtxt(file, delimiter=",", ndmin=2) for file in sorted(folder.glob("*.csv"))])
    return torch.tensor(table[:, :-1], dtype=torch.float32), torch.tensor(table[:, -1], dtype=torch.int64)


def make_network(features: torch.Tensor, labels: torch.Tensor, width: int) -> nn.Sequential:
    """Return what is trained: logits [rows, classes] for features [rows, columns]."""
    columns, classes = features.shape[1], int(labels.max()) + 1
    return nn.Sequential(
        nn.Linear(columns, width),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def leave_model(weights: dict[str, torch.Tensor], features: torch.Tensor, labels: torch.Tensor, width: int) -> None:
    """Write model.onnx, which `serve` answers with as it is; the scaling of the features is part of it."""
    network = make_network(features, labels, width)
    network.load_state_dict(weights)
    served = nn.Sequential(Scaled(features.mean(0), features.std(0)), network, nn.Softmax(dim=1)).eval()
    file = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model")) / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        served,
        (features[:2],),
        str(file),
        input_names=["features"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False,
    )


class Scaled(nn.Module):
    """Puts features on the scale that the network was trained with."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features [rows, columns] with mean 0 and deviation 1 in each column."""
        return (features - self.mean) / self.deviation


if __name__ == "__main__":
    main()
