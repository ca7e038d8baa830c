"""The digits as a training job: what the platform would mount for the program image-classification."""

import shutil
from pathlib import Path
from typing import Any

from mooring.contract.paths import ContainerPaths
from mooring.runner.platform_files import write_training_inputs

from .images import Split, write_channels

EPOCHS = 12
HYPERPARAMETERS = {
    "num_layers": 20,
    "image_shape": "1,8,8",
    "num_classes": 10,
    "mini_batch_size": 64,
    "epochs": EPOCHS,
    "learning_rate": 0.1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_scheduler_factor": 0.1,
    "lr_scheduler_step": "8,11",
    "seed": 7,
}


def write_job(
    base: Path, train: Split, validation: Split, *, seen_as: Path | None = None, **changed: Any
) -> ContainerPaths:
    """Write the tree that the platform would mount: images, listings and config files.

    `changed` are hyperparameters beside ours or in their place; `seen_as` is what the container calls `base`.
    """
    paths = write_training_inputs(
        base,
        hyperparameters={**HYPERPARAMETERS, **changed, "num_training_samples": len(train.labels)},
        channels=dict.fromkeys(("train", "validation", "train_lst", "validation_lst"), "application/x-image"),
        seen_as=seen_as,
    )
    for split, name in ((train, "train"), (validation, "validation")):
        shutil.rmtree(paths.channel(name), ignore_errors=True)
        shutil.rmtree(paths.channel(f"{name}_lst"), ignore_errors=True)
        write_channels(split, paths.channel(name), paths.channel(f"{name}_lst"))
    return paths
