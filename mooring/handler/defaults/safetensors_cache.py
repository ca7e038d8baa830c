"""The mapped form of safetensors models: each large tensor in a file named by its content, and an index over them.

transformers reads an index of many files as it reads one file, and maps each; so models that share tensors, such as
those fine-tuned from one model with its lower layers frozen, share them in memory and on disk.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file

from mooring.artifact.publish import publish_file, publish_folder

from .model_cache import LEAST_WEIGHT_BYTES, CachedModel, ModelCache, version_of

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Beside the weights, what a model is made from.
CONFIGS = ("config.json", "generation_config.json")
# Of a tensor whose name nobody asks for.
ANY_NAME = "tensor"
# transformers refuses files that do not say by which framework they were written.
METADATA = {"format": "pt"}


class SafetensorsCache(ModelCache):
    """The mapped forms of folders that hold safetensors files."""

    def find(self, folder: Path) -> CachedModel | None:
        """Return the mapped form of a folder, None if there is none yet."""
        form = self._folder / _entry(folder)
        try:
            index = json.loads((form / INDEX).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        sizes = self._weights(Path(name).name for name in index["weight_map"].values())
        return None if sizes is None else CachedModel(form, sizes)

    def make(self, source: Path) -> CachedModel | None:
        """Make the mapped form of a folder, one tensor at a time; None if it has no weights that are worth it.

        Raises `safetensors.SafetensorError` for a damaged file.
        """
        entry = _entry(source)  # of what is read below, whatever lies there when it has been
        files: dict[str, str] = {}  # tensor -> file
        small: dict[str, torch.Tensor] = {}
        for name, tensor in read_tensors(source):
            if tensor.nbytes < LEAST_WEIGHT_BYTES:
                small[name] = tensor.clone()
            else:
                files[name] = self._keep({name: tensor})
        if not files:
            return None
        if small:
            files |= dict.fromkeys(small, self._keep(small))
        sizes = self._weights(files.values()) or {}
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: f"../{file}" for name, file in files.items()},
        }
        with publish_folder(self._folder / entry, replaces=False) as beside:
            (beside / INDEX).write_text(json.dumps(index), encoding="ascii")
            for name in CONFIGS:
                if (source / name).is_file():
                    (beside / name).write_bytes((source / name).read_bytes())
        return self.find(source)

    def map_in_place(self, tensors: Iterable[torch.Tensor]) -> dict[str, int]:
        """Give large tensors the same values from mappings of files; returns what is mapped, by content.

        So the processes of a model, and models with tensors alike, hold them once. The tensors' own memory is freed.
        """
        weights = {}
        for tensor in tensors:
            if tensor.nbytes >= LEAST_WEIGHT_BYTES and tensor.is_contiguous():
                file = self._keep({ANY_NAME: tensor.detach()})
                with safetensors.safe_open(self._folder / file, framework="pt") as opened:
                    tensor.data = opened.get_tensor(ANY_NAME)
                weights[file] = tensor.nbytes
        return weights

    def _keep(self, tensors: Mapping[str, torch.Tensor]) -> str:
        """Write tensors to a file that is named by what they are, unless it is there; return its name."""
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}:".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        file = f"{digest.hexdigest()}.safetensors"
        if not (self._folder / file).exists():
            with publish_file(self._folder / file) as beside:
                save_file(dict(tensors), beside, METADATA)
        return file


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a model's weights: those of its index, or the one that needs none."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    if not index.is_file():
        return []
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a folder's tensors by name, each as it lies in the mapping of its file."""
    for file in weight_files(folder):
        with safetensors.safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                yield name, opened.get_tensor(name)


def _entry(folder: Path) -> str:
    """Return the name of the folder with a model's mapped form."""
    files = [*weight_files(folder), *(folder / name for name in CONFIGS if (folder / name).is_file())]
    return f"{version_of(*files, made_with=safetensors.__version__)}.mapped"
