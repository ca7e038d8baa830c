"""Importing the code that a model brings, in a process of its own, and telling what it raises from what we do."""

import asyncio
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from mooring.contract.errors import MooringError

from .errors import HandlerError, HandlerStatusError

logger = logging.getLogger(__name__)

ERROR_STATUSES = range(400, 600)
# Errors that exist to choose a client's status, and where they keep it. Told by name, since they may be the real
# packages' or our stand-ins'; the errors of HTTP clients, which have such attributes too, are not meant for ours.
STATED = {
    "BaseInferenceToolkitError": "status_code",
    "UnsupportedFormatError": "status_code",
    "UnreadableBodyError": "status_code",
    "PredictionException": "error_code",
}


def import_script(script: Path, model_root: Path) -> ModuleType:
    """Import a file as a module named like it. It changes sys.path. Raises `HandlerError`."""
    for folder in (model_root, script.parent):
        if str(folder) not in sys.path[:2]:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise HandlerError(f"{script.name} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    # By its name helpers import it and pickles find its classes; a script called json.py hides no library's module.
    if script.stem not in sys.stdlib_module_names and _is_free(script.stem, script):
        sys.modules[script.stem] = module
    with user_code(f"Importing {script.name}"):
        spec.loader.exec_module(module)
    return module


def _is_free(name: str, script: Path) -> bool:
    there = sys.modules.get(name)
    return there is None or getattr(there, "__file__", None) == str(script)


def import_module(name: str, model_root: Path) -> ModuleType:
    """Import a module by its dotted name, from the model's folders first. Raises `HandlerError`."""
    for folder in (model_root, model_root / "code"):
        sys.path.insert(0, str(folder))
    with user_code(f"Importing {name}"):
        return importlib.import_module(name)


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn what the block raises into an error without the details, which go to the log.

    Errors that carry a status, as those of the earlier toolkits do, keep it and their message.
    """
    try:
        yield
    except (MooringError, MemoryError):
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # none of them may end the host
        if is_out_of_memory(error):
            raise MemoryError(f"{what} ran out of GPU memory.") from error
        logger.exception("%s failed.", what)
        chosen = _chosen(error)
        if chosen is not None:
            raise chosen from error
        raise HandlerError(f"{what} raised {type(error).__name__}; the server's log has the details.") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of a GPU's memory; told by name, so that torch need not be imported."""
    return type(error).__name__ == "OutOfMemoryError"


def _chosen(error: BaseException) -> HandlerStatusError | None:
    """Return the error by which a handler chose its client's status and message, None if it is any other."""
    places = (STATED[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in STATED)
    status = getattr(error, next(places, ""), None)
    if isinstance(status, int) and status in ERROR_STATUSES:
        return HandlerStatusError(int(status), str(getattr(error, "message", None) or error))
    return None
