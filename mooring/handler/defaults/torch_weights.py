"""Models with the weights in their folder: complete, offline, and mapped from the file rather than copied.

transformers makes a model without memory and gives it the tensors of a safetensors file as they lie in the file's
mapping, so that hosts which load the same file share its pages. Whatever would break that is refused or avoided here.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mooring.contract.switches import is_on
from mooring.handler.errors import ModelLoadError
from mooring.handler.terms import LoadTerms

from .model_cache import LEAST_MODEL_BYTES, Tier, version_of
from .safetensors_cache import SafetensorsCache, weight_files

logger = logging.getLogger(__name__)

# Layers that a bare model may lack: nothing that is served reads what they compute.
UNREAD = ("pooler.",)
# What torch says when the processor's memory is at its end; it has an exception of its own for devices only.
NO_CPU_MEMORY = "can't allocate memory"


@dataclass(frozen=True)
class HeldWeights:
    """Where a model's weights are mapped from: its own files, or the cache's copy of their tensors."""

    folder: Path
    tier: Tier
    weights: Mapping[str, int]  # what is mapped, by a name for its content -> bytes

    @classmethod
    def of(cls, folder: Path, terms: LoadTerms) -> "HeldWeights":
        """Return how the weights of a folder are held by a load that begins now."""
        files = weight_files(folder)
        if not files or terms.gpu_id is not None:
            return cls(folder, Tier.INLINE, {})
        sizes = {version_of(file, made_with=""): file.stat().st_size for file in files if file.is_file()}
        # Code that came along is found beside the configuration only.
        is_plain = not trusts_code(terms) and sum(sizes.values()) >= LEAST_MODEL_BYTES
        cache = SafetensorsCache.open(terms.variables) if is_plain else None
        cached = cache.find(folder) if cache is not None else None
        return cls(folder, Tier.INLINE, sizes) if cached is None else cls(cached.path, Tier.MAPPED, cached.weights)

    def metadata(self) -> dict[str, Any]:
        """Return it as the front door counts it."""
        is_large = sum(self.weights.values()) >= LEAST_MODEL_BYTES
        return {"tier": self.tier.value, "is_large": is_large, "weights": dict(self.weights)}


def trusts_code(terms: LoadTerms) -> bool:
    """Whether code in a model's folder may run."""
    return is_on(terms.variables, "HF_TRUST_REMOTE_CODE")


def load_model(auto_class: Any, folder: Path, terms: LoadTerms) -> Any:
    """Return a model in evaluation mode on its device.

    Raises `ModelLoadError`, also for weights that lack a layer, whose answers would be random; `MemoryError`.
    """
    from transformers.utils.logging import disable_progress_bar

    _refuse_pickles(folder, terms)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar's many lines make no log
    torch.set_num_threads(max(1, terms.threads))
    allow_pickle = terms.config.allow_pickle
    options = {"use_safetensors": None if allow_pickle else True, "weights_only": not allow_pickle}
    held = terms.held or HeldWeights.of(folder, terms)
    model, notes = read_folder(auto_class, held.folder, terms, output_loading_info=True, **options)
    missing = [name for name in notes["missing_keys"] if not any(part in name for part in UNREAD)]
    if missing:
        problem = f"its weights lack {_some(missing)}: they are for another task, or incomplete"
        raise ModelLoadError(folder / "config.json", problem)
    mismatched = [str(entry[0]) for entry in notes["mismatched_keys"]]
    if mismatched:
        raise ModelLoadError(folder / "config.json", f"its weights have other shapes: {_some(mismatched)}")
    try:
        return model.to(device_of(terms)).eval()
    except (RuntimeError, MemoryError) as error:
        raise memory_error(error) or ModelLoadError(folder / "config.json", first_line(error, folder)) from error


def read_folder(auto_class: Any, folder: Path, terms: LoadTerms, **options: Any) -> Any:
    """Return what an Auto class makes of a folder, without asking the network or running code that came along.

    Raises `ModelLoadError`, `MemoryError`.
    """
    trust = trusts_code(terms)
    try:
        return auto_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust, **options)
    except Exception as error:  # damaged files raise whatever the parser of each raises
        logger.debug("Loading from %s failed.", folder, exc_info=True)
        raise memory_error(error) or ModelLoadError(folder / "config.json", first_line(error, folder)) from error


def device_of(terms: LoadTerms) -> torch.device:
    """Return where a model computes."""
    return torch.device("cpu") if terms.gpu_id is None else torch.device("cuda", terms.gpu_id)


def memory_error(error: BaseException) -> MemoryError | None:
    """Return a `MemoryError` if an error says that memory is at its end, the device's or the processor's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_CPU_MEMORY in str(error):
        return MemoryError("The memory is at its end.")
    return None


def first_line(error: BaseException, folder: Path | None = None) -> str:
    """Return the first sentence of an error, without the folder's place on the machine."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if folder is None else text.replace(f"{folder}/", "").replace(str(folder), "the folder")


def _refuse_pickles(folder: Path, terms: LoadTerms) -> None:
    if terms.config.allow_pickle or any(folder.glob("*.safetensors")):
        return
    pickled = next((file for pattern in ("*.bin", "*.pt", "*.pth") for file in sorted(folder.glob(pattern))), None)
    if pickled is None:
        raise ModelLoadError(folder / "model.safetensors", "it is not there")
    problem = (
        "it is a pickle, which could run code. Save the model with save_pretrained, which writes model.safetensors, "
        "or set allow_pickle = true in mooring.toml"
    )
    raise ModelLoadError(pickled, problem)


def _some(names: Any) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
