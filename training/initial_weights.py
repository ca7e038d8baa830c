"""Incremental training: the weights that a channel called `model` brings, from an earlier job."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from mooring.artifact.archive import extract
from mooring.contract.channels import Channel
from mooring.contract.errors import UserCodeError

from .export import WEIGHTS_FILE

MODEL_CHANNEL = "model"


class InitialWeightsError(UserCodeError):
    """The channel `model` holds no weights, or those of another model."""


def initial_weights(channels: Mapping[str, Channel]) -> dict[str, torch.Tensor] | None:
    """Return the weights that a job is to start from: model.safetensors, or a .tar.gz that holds it.

    None if there is no channel `model`. A checkpoint of this job, if there is one, comes before them.
    Raises `InitialWeightsError`, `UnsafeArchiveError`, `DamagedArchiveError`.
    """
    if MODEL_CHANNEL not in channels:
        return None
    folder = channels[MODEL_CHANNEL].path
    archives = sorted(folder.glob("*.tar.gz"))
    if (folder / WEIGHTS_FILE).is_file() or not archives:
        return _read(folder, folder)
    with tempfile.TemporaryDirectory(prefix="mooring-model-") as beside:
        extract(archives[0], Path(beside) / "model")
        return _read(Path(beside) / "model", archives[0])


def _read(folder: Path, shown: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS_FILE
    if not file.is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ""
        raise InitialWeightsError(f"{shown} holds no {WEIGHTS_FILE}, but: {held or 'nothing'}.")
    try:
        weights: dict[str, torch.Tensor] = load_file(file)
    except SafetensorError as error:
        raise InitialWeightsError(f"{WEIGHTS_FILE} in {shown} cannot be read: {error}") from error
    return weights


def start_from(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights into a model. Raises `InitialWeightsError` naming what is missing, unexpected or of another shape."""
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} is not in this model" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, here {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        raise InitialWeightsError(
            f"The channel '{MODEL_CHANNEL}' holds another model's weights: {'; '.join(problems)}."
        )
    model.load_state_dict(dict(weights))
