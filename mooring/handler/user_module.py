"""Importing the code that a model brings, in a process of its own, and telling what it raises from what we do."""

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


def import_script(script: Path, model_root: Path) -> ModuleType:
    """Import a file as a module named like it. It changes sys.path. Raises `HandlerError`."""
    for folder in (model_root, script.parent):
        if str(folder) not in sys.path[:2]:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise HandlerError(f"{script.name} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    with user_code(f"Importing {script.name}"):
        spec.loader.exec_module(module)
    return module


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
    except Exception as error:
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


def _chosen(error: Exception) -> HandlerStatusError | None:
    """Return the error that a handler chose for its client: BaseInferenceToolkitError or PredictionException."""
    status = getattr(error, "status_code", None) or getattr(error, "error_code", None)
    if isinstance(status, int) and status in ERROR_STATUSES:
        message = getattr(error, "message", None) or str(error)
        return HandlerStatusError(status, str(message))
    return None
