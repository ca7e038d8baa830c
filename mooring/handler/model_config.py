"""A model's own configuration: `mooring.toml` beside its files. Everything has a default; unknown keys are errors."""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import ModelConfigError

FILE_NAME = "mooring.toml"


@dataclass(frozen=True)
class Batching:
    """How requests run together."""

    max_rows: int | None = None  # default: what the handler finds safe
    max_delay_ms: float = 0.0  # how long the first request of a batch waits for others


@dataclass(frozen=True)
class WarmUpSample:
    """A request that is answered once, and its answer dropped, before the model is ready."""

    body: str = ""  # the body itself, or
    file: str = ""  # a file in the model's folder that holds it
    content_type: str = "application/json"
    accept: str = "application/json"


@dataclass(frozen=True)
class ModelConfig:
    """What `mooring.toml` says. None means: the server's setting."""

    handler: str | None = None  # a script or module in code/, with `:function` for an MMS entry point
    task: str | None = None  # what a transformers model does, such as "text-classification"
    workers: int | None = None  # processes, for a model that has its own
    threads: int | None = None
    response_seconds: float | None = None
    load_seconds: float | None = None
    queue_length: int | None = None
    pinned: bool = False  # never evicted
    trusted: bool = False  # may share a process although its format could touch files
    allow_pickle: bool = False  # whether torch files may hold any object
    batching: Batching = field(default_factory=Batching)
    warm_up: tuple[WarmUpSample, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> "ModelConfig":
        """Read the configuration of the model in a folder. Raises `ModelConfigError` naming every problem."""
        file = folder / FILE_NAME
        if not file.is_file():
            return cls()
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ModelConfigError([f"it is no TOML: {error}"]) from error
        problems: list[str] = []
        batching = _table(Batching, given.pop("batching", {}), "batching.", problems)
        samples = given.pop("warm_up", [])
        if not isinstance(samples, list):
            problems.append("warm_up: expected a list of tables, each headed [[warm_up]]")
            samples = []
        warm_up = tuple(_table(WarmUpSample, sample, "warm_up.", problems) for sample in samples)
        config: ModelConfig = _table(cls, given, "", problems)
        if problems:
            raise ModelConfigError(problems)
        return replace(config, batching=batching, warm_up=warm_up)


def _table(kind: Any, given: Any, prefix: str, problems: list[str]) -> Any:
    """Return a dataclass made of a TOML table; what does not fit is added to the problems."""
    if not isinstance(given, Mapping):
        problems.append(f"{prefix.rstrip('.')}: expected a table")
        return kind()
    expected = {item.name: str(item.type) for item in fields(kind) if item.name not in ("batching", "warm_up")}
    taken: dict[str, Any] = {}
    for name, value in given.items():
        if name not in expected:
            problems.append(f"{prefix}{name}: there is no such key; known are {', '.join(sorted(expected))}")
        elif problem := _problem(expected[name], value):
            problems.append(f"{prefix}{name}: {problem}")
        else:
            taken[name] = value
    return kind(**taken)


def _problem(expected: str, value: object) -> str:
    """Say what is wrong with a value, nothing if it fits. Types are named as in the dataclasses above."""
    if "bool" in expected:
        return "" if isinstance(value, bool) else "expected true or false"
    if "str" in expected:
        return "" if isinstance(value, str) else "expected text"
    if isinstance(value, bool) or not isinstance(value, int if "int" in expected else (int, float)):
        return f"expected a {'whole ' if 'int' in expected else ''}number"
    if not abs(value) <= sys.float_info.max:  # nan is not, either
        return "expected a finite number"
    return "expected no negative number" if value < 0 else ""
