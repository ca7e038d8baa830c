"""Functions that TorchServe's handlers borrow."""

import inspect
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mms.service import PredictionException

__all__ = ["PredictionException", "list_classes_from_module", "load_label_mapping", "map_class_to_label"]

logger = logging.getLogger(__name__)


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that a module defines itself, those below a parent where one is given."""
    classes = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    return [kind for kind in classes if parent_class is None or issubclass(kind, parent_class)]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Return the names of classes by index, None where the file is missing. Raises `ValueError` for other JSON."""
    file = Path(mapping_file_path)
    if not file.is_file():
        logger.info("There is no %s: answers hold the indices of classes, not their names.", file.name)
        return None
    given = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(given, dict) and isinstance(given.get("object_type_names"), list):
        given = {str(index): name for index, name in enumerate(given["object_type_names"])}
    if not isinstance(given, dict):
        raise ValueError(f'{file.name} has to map each class to its label: {{"0": "cat"}}.')
    labels = {key: label[-1] if isinstance(label, list) else label for key, label in given.items()}
    if not all(isinstance(label, str) for label in labels.values()):
        raise ValueError(f"{file.name}: labels have to be text, or lists of text.")
    return labels


def map_class_to_label(
    probs: list[list[float]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Iterable[Iterable[Any]] | None = None,
) -> list[dict[str, float]]:
    """Return the probability of each class by its label, for every row."""
    rows = [range(len(row)) for row in probs] if lbl_classes is None else lbl_classes
    return [
        {(mapping[str(index)] if mapping else str(index)): value for index, value in zip(indices, row, strict=False)}
        for indices, row in zip(rows, probs, strict=False)
    ]
