"""Reading the platform's JSON files: what is wrong is said with the file's name, the field, and what was expected."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigurationFileError

Kind = TypeVar("Kind")

KIND_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a whole number", bool: "true or false"}


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None if there is no such file. Raises `ConfigurationFileError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationFileError(path, None, f"cannot be read: {error}") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise ConfigurationFileError(path, None, problem) from error
    if not isinstance(content, dict):
        raise ConfigurationFileError(path, None, f"holds {_shown(content)}; expected an object")
    return content


def read_required_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that the platform always writes. Raises `ConfigurationFileError`."""
    content = read_object(path)
    if content is None:
        raise ConfigurationFileError(
            path,
            None,
            "is missing; the platform writes it before the container starts. "
            "Mount the job's folder at /opt/ml, or name it with SAGEMAKER_BASE_DIR",
        )
    return content


def take(content: Mapping[str, Any], field: str, kind: type[Kind], path: Path, default: Kind | None = None) -> Kind:
    """Return a field of the wanted type. Raises `ConfigurationFileError` for another, or if it is missing."""
    value = content.get(field)
    if value is None:
        if default is None:
            raise ConfigurationFileError(path, field, f"is missing; expected {KIND_NAMES[kind]}")
        return default
    if not isinstance(value, kind):
        raise ConfigurationFileError(path, field, f"is {_shown(value)}; expected {KIND_NAMES[kind]}")
    return value


def take_strings(content: Mapping[str, Any], field: str, path: Path) -> tuple[str, ...]:
    """Return a field that holds a list of strings, at least one. Raises `ConfigurationFileError`."""
    values = take(content, field, list, path)
    if not values or not all(isinstance(value, str) for value in values):
        raise ConfigurationFileError(path, field, f"is {_shown(values)}; expected a list of at least one string")
    return tuple(values)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
