"""Where a model says that it is a service as multi-model-server's: an entry point instead of functions by name.

Reads names and the archive's manifest only; nothing is imported.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ModelFolderError
from .model_config import FILE_NAME, ModelConfig

MANIFEST = Path("MAR-INF/MANIFEST.json")
HANDLER_VARIABLE = "SAGEMAKER_HANDLER"


@dataclass(frozen=True)
class ServiceEntry:
    """An entry point: a file or dotted module, and the function or class in it where one is named."""

    target: str
    source: str  # where it is named, in words


def find_entry(folder: Path, config: ModelConfig, variables: Mapping[str, str]) -> ServiceEntry | None:
    """Return the entry point that a model names, None if it names none.

    The model's own word comes first, then the container's. Raises `ModelFolderError` for a manifest that is damaged.
    """
    if config.handler and _is_entry(config.handler):
        return ServiceEntry(config.handler, FILE_NAME)
    named = read_manifest(folder).get("model", {}).get("handler")
    # torch-model-archiver names handlers that come with TorchServe, such as image_classifier, by a bare word.
    if isinstance(named, str) and (_is_entry(named) or (folder / named).is_file()):
        return ServiceEntry(named, str(MANIFEST))
    given = variables.get(HANDLER_VARIABLE, "")
    if given and (_is_entry(given) or "." in given):
        return ServiceEntry(given, HANDLER_VARIABLE)
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of an unpacked archive, empty where there is none. Raises `ModelFolderError`."""
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelFolderError(f"{MANIFEST} is no JSON: {error}.", [], []) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("model", {}), dict):
        raise ModelFolderError(f"{MANIFEST} is no manifest: it has to be an object with an object 'model'.", [], [])
    return manifest


def _is_entry(named: str) -> bool:
    """Whether a name is `module:function`, `file.py:function` or `/path/file.py:function`, and no script alone."""
    return ":" in named
