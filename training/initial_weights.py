"""The weights that a channel called `model` brings: of an earlier job, or of a network that somebody published."""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from mooring.artifact.archive import extract
from mooring.contract.channels import Channel, InputMode
from mooring.contract.errors import UserCodeError

from .data.channel import InputModeError
from .export import WEIGHTS_FILE

logger = logging.getLogger(__name__)

MODEL_CHANNEL = "model"
# What torch.save writes, by the names that people give it. Only tensors are taken from it, never code.
PICKLE_SUFFIXES = (".pth", ".pt", ".bin")
# Under which keys training scripts keep the weights in what they save.
HOLDERS = ("state_dict", "model_state_dict", "model")
# Of batch normalisation: counts batches, decides nothing, and is missing in older files.
COUNTER = "num_batches_tracked"
# How many tensors an error names.
SHOWN_TENSORS = 10


class InitialWeightsError(UserCodeError):
    """The channel `model` holds no weights, or those of another model."""


def initial_weights(channels: Mapping[str, Channel]) -> dict[str, torch.Tensor] | None:
    """Return the weights in the channel `model`: model.safetensors, another file of weights, or a .tar.gz with one.

    None if there is no such channel. A checkpoint of this job, if there is one, comes before them.
    Raises `InitialWeightsError`, `InputModeError`, `UnsafeArchiveError`, `DamagedArchiveError`.
    """
    if MODEL_CHANNEL not in channels:
        return None
    folder = model_folder(channels)
    archives = sorted(folder.glob("*.tar.gz"))
    if not archives or _weight_files(folder):
        return _read(folder, folder)
    with tempfile.TemporaryDirectory(prefix="mooring-model-") as beside:
        extract(archives[0], Path(beside) / "model")
        return _read(Path(beside) / "model", archives[0])


def model_folder(channels: Mapping[str, Channel]) -> Path:
    """Return the folder of the channel `model`. Raises `InputModeError`."""
    channel = channels[MODEL_CHANNEL]
    if channel.mode is InputMode.PIPE:
        raise InputModeError(MODEL_CHANNEL, channel.mode, "a model is files; give this channel the input mode File")
    return channel.path


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that may hold weights; ours alone if it is there."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    return sorted(path for suffix in (".safetensors", *PICKLE_SUFFIXES) for path in folder.glob(f"*{suffix}"))


def _read(folder: Path, shown: Path) -> dict[str, torch.Tensor]:
    files = _weight_files(folder)
    if len(files) != 1:
        held = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ""
        raise InitialWeightsError(
            f"{shown} holds no {WEIGHTS_FILE} and no single file of weights otherwise, but: {held or 'nothing'}."
        )
    try:
        return _load(files[0])
    except Exception as error:  # what a damaged pickle raises may be anything
        raise InitialWeightsError(f"{files[0].name} in {shown} cannot be read: {error}") from error


def _load(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return dict(load_file(file))
    content: Any = torch.load(file, map_location="cpu", weights_only=True)
    for holder in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(holder), Mapping):
            content = content[holder]
    if not isinstance(content, Mapping):
        raise InitialWeightsError(f"it holds a {type(content).__name__}; expected tensors by name")
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def named_from(weights: Mapping[str, torch.Tensor], first: str) -> dict[str, torch.Tensor]:
    """Return weights without what stands before all names, such as `module.`: what stands before tensor `first`.

    >>> named_from({"module.conv1.weight": torch.zeros(1)}, "conv1.weight").keys()
    dict_keys(['conv1.weight'])
    """
    prefix = min((name.removesuffix(first) for name in weights if name.endswith(first)), key=len, default="")
    if prefix and not prefix.endswith("."):
        return dict(weights)
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def start_from(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], *, fresh: Iterable[str] = ()) -> None:
    """Put weights into a model; those named `fresh` stay as they are in the model.

    Raises `InitialWeightsError` naming what is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    fresh = {*fresh, *(name for name in own if name.endswith(COUNTER) and name not in weights)}
    given = {name: value for name, value in weights.items() if name not in fresh}
    problems = [f"{name} is missing" for name in own if name not in given and name not in fresh]
    problems += [f"{name} is not in this model" for name in given if name not in own]
    problems += [
        f"{name} is {tuple(given[name].shape)}, here {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    if problems:
        shown = problems[:SHOWN_TENSORS]
        if len(problems) > SHOWN_TENSORS:
            shown.append(f"and {len(problems) - SHOWN_TENSORS} tensors more")
        raise InitialWeightsError(f"The channel '{MODEL_CHANNEL}' holds another model's weights: {'; '.join(shown)}.")
    model.load_state_dict({**{name: own[name] for name in fresh}, **given})
