"""Hyperparameters as a dataclass: every value converted and checked, every problem found reported at once."""

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from .environment import process_variables
from .errors import HyperparameterError
from .hyperparameters import ALGORITHM, ALGORITHM_VARIABLE, decode, read_hyperparameters
from .paths import ContainerPaths
from .secrets_mask import MASK, is_secret

T = TypeVar("T")
# Says what is wrong with fields that do not go together, None if they do; its arguments are named as the fields.
Rule = Callable[..., str | None]

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})


class _MismatchError(Exception):
    """A value does not fit; its message is what was expected."""


def hyperparameters(cls: type[T]) -> T:
    """Return this job's hyperparameters as a `cls`, a dataclass. For use inside a training script.

    Raises `HyperparameterError` with a line for each problem, `ConfigurationFileError` if the file is damaged.

        @dataclass
        class Settings:
            epochs: int = 3
            learning_rate: float = 0.1

        settings = hyperparameters(Settings)
    """
    variables = process_variables()
    given = dict(read_hyperparameters(ContainerPaths.from_variables(variables)).user)
    if ALGORITHM_VARIABLE in variables:  # this chose the program that asks, and is none of its own
        given.pop(ALGORITHM, None)
    return parse_hyperparameters(cls, given)


def limited(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    aliases: Sequence[str] = (),
    meaning: str = "",
) -> Any:
    """Return a dataclass field whose value must lie in a range: at least `minimum`, at most `maximum`, over `above`.

    Without a default the hyperparameter must be given. `aliases` are names that mean the same; `meaning` is for the
    documentation.
    """
    limits = {"minimum": minimum, "maximum": maximum, "above": above}
    return dataclasses.field(default=default, metadata={**limits, "aliases": tuple(aliases), "meaning": meaning})


def parse_hyperparameters(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return `values` as a `cls`. A dash in a name means the same as an underscore.

    A `cls` may have `RULES` about fields that have to go together; each is asked if its fields are right by themselves.
    Raises `HyperparameterError` naming each value that does not fit, each that is missing, and each that nobody knows.
    """
    known = _fields(cls)
    spellings = {spelling: name for name, field in known.items() for spelling in _spellings(field)}
    hints = typing.get_type_hints(cls)
    problems: list[str] = []
    given: dict[str, str] = {}  # field -> how it was spelt
    taken: dict[str, Any] = {}
    for key, value in values.items():
        name = spellings.get(key.replace("-", "_"))
        if name is None:
            problems.append(_unknown(key, spellings))
        elif name in given:
            problems.append(f"Hyperparameters '{given[name]}' and '{key}' mean the same; give one of them.")
        else:
            given[name] = key
            try:
                taken[name] = _within(_convert(value, hints[name]), known[name].metadata)
            except _MismatchError as mismatch:
                problems.append(f"Hyperparameter '{key}' is {_shown(key, value)}; expected {mismatch}.")
    for name, field in known.items():
        if name not in given and _default(field) is dataclasses.MISSING:
            problems.append(f"Hyperparameter '{name}' is missing; expected {_expected(hints[name])}.")
    left_out = {name: _default(field) for name, field in known.items() if name not in given}
    problems += _broken_rules(getattr(cls, "RULES", ()), left_out | taken)
    if problems:
        raise HyperparameterError(problems)
    return cls(**taken)


def _broken_rules(rules: Sequence[Rule], values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what rules say of values; those are not asked that need a value that is missing or wrong by itself."""
    for rule in rules:
        needed = {name: values.get(name, dataclasses.MISSING) for name in inspect.signature(rule).parameters}
        if dataclasses.MISSING not in needed.values():
            problem = rule(**needed)
            if problem is not None:
                yield problem


def table(cls: type) -> str:
    """Return a dataclass's hyperparameters as a table in Markdown, for the documentation."""
    hints = typing.get_type_hints(cls)
    lines = ["| hyperparameter | value | default | |", "|---|---|---|---|"]
    for name, field in _fields(cls).items():
        spelt = ", ".join(f"`{spelling}`" for spelling in _spellings(field))
        value = _in_words(hints[name], field.metadata)
        lines.append(f"| {spelt} | {value} | {_default_text(field)} | {field.metadata.get('meaning', '')} |")
    return "\n".join(lines) + "\n"


def _fields(cls: type) -> dict[str, "dataclasses.Field[Any]"]:
    """Return what may be given, by name."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass")
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _spellings(field: "dataclasses.Field[Any]") -> tuple[str, ...]:
    return (field.name, *field.metadata.get("aliases", ()))


def _default(field: "dataclasses.Field[Any]") -> Any:
    """Return what stands where nothing is given; `MISSING` where something must be."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _default_text(field: "dataclasses.Field[Any]") -> str:
    default = _default(field)
    if default is dataclasses.MISSING:
        return "required"
    if default in (None, "", (), []):
        return ""
    if isinstance(default, (tuple, list)):
        return ",".join(map(str, default))
    return str(default.value if isinstance(default, Enum) else default)


def _in_words(kind: Any, rule: Mapping[str, Any]) -> str:
    """Say a type and its range."""
    words = {"minimum": "at least", "maximum": "at most", "above": "more than"}
    limits = [f"{word} {rule[name]:g}" for name, word in words.items() if rule.get(name) is not None]
    return ", ".join([_expected(kind).removesuffix(" or nothing"), *limits])


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(sorted(set(known.values())))}."
    return f"Hyperparameter '{key}' is not known; {hint}"


def _shown(key: str, value: Any) -> str:
    if is_secret(key):
        return MASK
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


# --- conversion -------------------------------------------------------------------------------------------------------


def _convert(value: Any, kind: Any) -> Any:
    """Return `value` as a `kind`, without losing anything of it. Raises `_MismatchError`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, kind, arguments)
    if origin is typing.Literal:
        return _convert_literal(value, kind, arguments)
    if origin in (list, tuple, Sequence):
        return _convert_items(value, kind, origin, arguments)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _MismatchError(_expected(kind))
        return {_convert(key, arguments[0]): _convert(item, arguments[1]) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_nested(value, kind)
    return _convert_plain(value, kind)


def _convert_plain(value: Any, kind: Any) -> Any:
    converter = CONVERTERS.get(kind)
    if converter is not None:
        return converter(value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        for member in kind:
            if value in (member.value, member.name):
                return member
        raise _MismatchError(_expected(kind))
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _MismatchError(_expected(kind))


def _to_bool(value: Any) -> bool:
    word = str(value).lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise _MismatchError(_expected(bool))


def _to_int(value: Any) -> int:
    value = decode(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _MismatchError(_expected(int))
    return value


def _to_float(value: Any) -> float:
    value = decode(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _MismatchError(_expected(float))
    return float(value)


def _to_str(value: Any) -> str:
    # A tuner sends strings bare, so that "7" arrives as the number 7: its text is what was meant.
    if isinstance(value, (str, int, float)):
        return str(value)
    raise _MismatchError(_expected(str))


CONVERTERS: dict[Any, Any] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    Path: lambda value: Path(_to_str(value)),
}


def _convert_union(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if type(None) in arguments and value in (None, "", "None", "null"):
        return None
    candidates = [argument for argument in arguments if argument is not type(None)]
    if len(candidates) == 1:
        return _convert(value, candidates[0])
    exact = [argument for argument in candidates if type(value) is argument]
    for argument in exact + [argument for argument in candidates if argument not in exact]:
        try:
            return _convert(value, argument)
        except _MismatchError:
            continue
    raise _MismatchError(_expected(kind))


def _convert_literal(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    for argument in arguments:
        if value == argument or str(value) == str(argument):
            return argument
    raise _MismatchError(_expected(kind))


def _convert_items(value: Any, kind: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    """Convert a list. A string of values separated by commas is one too, as the built-in algorithms take them."""
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        items = [items]
    try:
        converted = [_convert(item, arguments[0]) for item in items]
    except _MismatchError as mismatch:
        raise _MismatchError(_expected(kind)) from mismatch
    return tuple(converted) if origin is tuple else converted


def _convert_nested(value: Any, kind: type) -> Any:
    if not isinstance(value, Mapping):
        raise _MismatchError(_expected(kind))
    try:
        return parse_hyperparameters(kind, value)
    except HyperparameterError as error:
        raise _MismatchError(f"an object in which this holds: {'; '.join(error.problems)}") from error


def _within(value: Any, rule: Mapping[str, Any]) -> Any:
    """Return a value that lies in its range. Raises `_MismatchError`."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    for number in numbers:
        if not isinstance(number, (int, float)):
            continue
        if rule.get("minimum") is not None and not number >= rule["minimum"]:
            raise _MismatchError(f"at least {rule['minimum']}")
        if rule.get("maximum") is not None and not number <= rule["maximum"]:
            raise _MismatchError(f"at most {rule['maximum']}")
        if rule.get("above") is not None and not number > rule["above"]:
            raise _MismatchError(f"more than {rule['above']}")
    return value


NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    type(None): "nothing",
}


def _expected(kind: Any) -> str:
    """Say a type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in NAMES:
        return NAMES[kind]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in arguments)
    if origin in (list, tuple, Sequence):
        return f"a list, each of it {_expected(arguments[0])}"
    if origin in (dict, Mapping):
        return "an object"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(f'"{member.value}"' for member in kind)
    return "an object" if dataclasses.is_dataclass(kind) else str(kind)
