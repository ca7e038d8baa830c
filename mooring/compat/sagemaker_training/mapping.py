"""Dictionaries as arguments and as variables."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mooring.contract.hyperparameters import compact_text, to_arguments


class SplitResultSpec(NamedTuple):
    """The entries that fit, and the others."""

    included: dict[str, Any]
    excluded: dict[str, Any]


def to_cmd_args(mapping: Mapping[str, Any]) -> list[str]:
    """Return a dictionary as a script's arguments, sorted by name."""
    return to_arguments(mapping)


def to_env_vars(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Return a dictionary as SM_* variables."""
    return {f"SM_{name.upper()}" if name else "": compact_text(value) for name, value in mapping.items()}


def split_by_criteria(
    dictionary: Mapping[str, Any], keys: Iterable[str] | None = None, prefix: str | None = None
) -> SplitResultSpec:
    """Split a dictionary by names or by how they begin."""
    chosen = set(keys or ())
    included = {key: value for key, value in dictionary.items() if key in chosen or (prefix and key.startswith(prefix))}
    return SplitResultSpec(included, {key: value for key, value in dictionary.items() if key not in included})
