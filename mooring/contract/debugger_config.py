"""What a job says of looking inside: the files of the platform's Debugger, which ask for profiles, watches and curves.

All of them are optional. Numbers and switches come as JSON's own or as strings, depending on which SDK wrote them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config_files import read_object, take
from .errors import ConfigurationFileError, SettingError
from .paths import ContainerPaths

PROFILE_VARIABLE = "MOORING_PROFILE"
DEFAULT_INTERVAL_MS = 500
# The platform takes 100, 200, 500, 1000, 5000 and 60000; a job elsewhere may ask for anything between.
LEAST_INTERVAL_MS, MOST_INTERVAL_MS = 100, 60_000
SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True)
class ProfilerConfig:
    """How a job is profiled, by profilerconfig.json."""

    directory: Path
    is_enabled: bool = True
    interval_ms: int = DEFAULT_INTERVAL_MS


def read_profiler_config(
    paths: ContainerPaths, variables: Mapping[str, str], *, by_default: bool = True
) -> ProfilerConfig:
    """Return how to profile: whether at all says MOORING_PROFILE, or else the file; without it, `by_default`.

    Without a file profiles go into output/data, which is always uploaded. Raises `ConfigurationFileError`,
    `SettingError`.
    """
    file = paths.profiler_config_file
    asked = _asked(variables, PROFILE_VARIABLE)
    content = read_object(file)
    if content is None:
        return ProfilerConfig(paths.output_data / "profile", by_default if asked is None else asked)
    parameters = take(content, "ProfilingParameters", dict, file, {})
    given = content.get("LocalPath") or parameters.get("LocalPath") or paths.profiler
    if not isinstance(given, (str, Path)):
        raise ConfigurationFileError(file, "LocalPath", f"is {json.dumps(given)}; expected a string")
    is_disabled = _switch(content, "DisableProfiler", file, default=False)
    is_enabled = _switch(parameters, "ProfilerEnabled", file, default=True)
    is_on = is_enabled and not is_disabled if asked is None else asked
    return ProfilerConfig(Path(given), is_on, _interval(content, file))


def _asked(variables: Mapping[str, str], name: str) -> bool | None:
    """Return what a variable says, None where it says nothing. Raises `SettingError`."""
    text = variables.get(name, "")
    if text and text.lower() not in SWITCHES:
        raise SettingError(name, text, "true or false")
    return SWITCHES.get(text.lower())


def _interval(content: Mapping[str, Any], file: Path) -> int:
    value = content.get("ProfilingIntervalInMilliseconds")
    if value is None:
        return DEFAULT_INTERVAL_MS
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not LEAST_INTERVAL_MS <= int(text) <= MOST_INTERVAL_MS:
        expected = f"a whole number from {LEAST_INTERVAL_MS} to {MOST_INTERVAL_MS}"
        problem = f"is {json.dumps(value)}; expected {expected}"
        raise ConfigurationFileError(file, "ProfilingIntervalInMilliseconds", problem)
    return int(text)


def _switch(content: Mapping[str, Any], field: str, file: Path, *, default: bool) -> bool:
    value = content.get(field)
    if value is None:
        return default
    if str(value).lower() not in SWITCHES:
        raise ConfigurationFileError(file, field, f"is {json.dumps(value)}; expected true or false")
    return SWITCHES[str(value).lower()]


@dataclass(frozen=True)
class DebugHookConfig:
    """What is to be watched, by debughookconfig.json: the hook's parameters, and each collection's."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    collections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_debug_hook_config(paths: ContainerPaths, variables: Mapping[str, str]) -> DebugHookConfig | None:
    """Return what the job asks to watch; None if nothing, or if USE_SMDEBUG is 0.

    SMDEBUG_CONFIG_FILE_PATH names another file than the platform's. Raises `ConfigurationFileError`.
    """
    if not SWITCHES.get(variables.get("USE_SMDEBUG", "").lower(), True):
        return None
    file = Path(variables.get("SMDEBUG_CONFIG_FILE_PATH") or paths.debug_hook_config_file)
    content = read_object(file)
    if content is None:
        return None
    collections = {}
    for number, entry in enumerate(take(content, "CollectionConfigurations", list, file, [])):
        if not isinstance(entry, dict) or not isinstance(entry.get("CollectionName"), str):
            problem = f"has no CollectionName in its entry {number + 1}"
            raise ConfigurationFileError(file, "CollectionConfigurations", problem)
        collections[entry["CollectionName"]] = _texts(take(entry, "CollectionParameters", dict, file, {}))
    return DebugHookConfig(_texts(take(content, "HookParameters", dict, file, {})), collections)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def tensorboard_directory(paths: ContainerPaths, variables: Mapping[str, str]) -> Path | None:
    """Return where TensorBoard's files go; None unless MOORING_TENSORBOARD or the job's configuration asks for them.

    Raises `ConfigurationFileError`, `SettingError`.
    """
    asked = _asked(variables, "MOORING_TENSORBOARD")
    content = read_object(paths.tensorboard_config_file)
    if not (content is not None if asked is None else asked):
        return None
    given = take(content or {}, "LocalPath", str, paths.tensorboard_config_file, "")
    return Path(given) if given else paths.tensorboard
