"""What can go wrong with a model in the server, each error with its facts. Status codes are the doors' business."""

import json
from collections.abc import Sequence
from typing import Self

from mooring.contract.errors import CallerError, MooringError, PlatformError, UserCodeError

GIB = 1 << 30
MIB = 1 << 20


def in_words(size: int) -> str:
    """Say a number of bytes in the unit a person would use."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"


class ModelNotFoundError(CallerError):
    """No model of that name is loaded, or nothing lies where it should be loaded from."""

    def __init__(self, name: str, where: str = "", reason: str = "") -> None:
        self.name = name
        self.where = where
        hint = f" Nothing lies at '{where}'." if where else " Load it first, or check the name."
        if reason:
            hint = f" It did not load: {reason}"
        super().__init__(f"Model not found: {name}.{hint}")


class ModelExistsError(CallerError):
    """A model of that name is loaded already."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"Model {name} is already registered. Unload it first to load another version.")


class ModelPathError(CallerError):
    """A model's path, or a link among its files, points outside the folder that models may be loaded from."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        super().__init__(
            f"Model '{name}' cannot be loaded from '{path}': models are loaded only from below the folder that was "
            "given for them, links included."
        )


class ModelFilesError(PlatformError):
    """A model's files cannot be read or unpacked: a full disk, most of the time."""

    def __init__(self, name: str, cause: OSError) -> None:
        self.name = name
        super().__init__(f"The files of model '{name}' cannot be read or unpacked: {cause.strerror or 'no access'}.")


class RequestError(CallerError):
    """The request itself cannot be understood."""


class ConsoleRefusedError(CallerError):
    """Somebody asks for the console whom it does not answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The console is not shown to you: {reason}. MOORING_CONSOLE=anywhere shows it to all who reach the port."
        )


class AdminTokenError(CallerError):
    """A request to load or unload from another machine does not bring the operator's token."""

    def __init__(self) -> None:
        super().__init__("Loading and unloading from another machine needs the header Authorization: Bearer TOKEN.")


class AdminRefusedError(CallerError):
    """A request to load or unload comes from another machine, and nobody said that it may."""

    def __init__(self) -> None:
        super().__init__(
            "Models are loaded and unloaded on the server's own machine only, unless MOORING_ADMIN_TOKEN is set there "
            "and sent along."
        )


class SessionError(CallerError):
    """A request names a session that is not there."""


class BodyTooLargeError(CallerError):
    """The request body is over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(
            f"The request body is larger than the limit of {limit_bytes:,} bytes. "
            "Send less, or raise the limit with SAGEMAKER_MAX_PAYLOAD_IN_MB."
        )


class SpoolError(PlatformError):
    """A body that is too large to keep in memory cannot be written to disk."""

    def __init__(self, size: int, problem: str) -> None:
        self.size = size
        super().__init__(f"A body of more than {in_words(size)} is kept in a temporary file, but: {problem}.")


class InsufficientMemoryError(PlatformError):
    """A model does not fit into the memory that is left, even after evicting what may be evicted.

    `may_pass` says that it would if models went that cannot now, because they are busy.
    """

    def __init__(self, name: str, needed: int, free: int, budget: int, in_use: int, *, may_pass: bool) -> None:
        self.name = name
        self.needed = needed
        self.free = free
        self.budget = budget
        self.may_pass = may_pass
        super().__init__(
            f"Model '{name}' needs {in_words(needed)} but {in_words(max(free, 0))} of {in_words(budget)} is free, with "
            f"{in_use} loaded that cannot make room. Unload one, retry later, or raise the budget."
        )


class OverloadedError(PlatformError):
    """A model's queue is full."""

    def __init__(self, name: str, waiting: int, status: int = 503) -> None:
        self.name = name
        self.waiting = waiting
        self.status = status
        super().__init__(f"Model '{name}' has {waiting} requests waiting, which is its limit. Retry later.")


class ModelNotReadyError(PlatformError):
    """The model is on its way in or out, or its load failed earlier."""

    def __init__(self, name: str, state: str, reason: str = "") -> None:
        self.name = name
        self.state = state
        super().__init__(f"Model '{name}' is {state}{': ' + reason if reason else ''}. Retry later.")


class ResponseTimeoutError(UserCodeError):
    """A model did not answer in time; the process it ran in is replaced."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        super().__init__(
            f"Model '{name}' did not answer within {seconds:g} s. "
            "Raise SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS if it needs longer."
        )


class LoadTimeoutError(UserCodeError):
    """A model did not load in time."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        super().__init__(f"Model '{name}' did not load within {seconds:g} s. Raise SAGEMAKER_STARTUP_TIMEOUT.")


class HostDiedError(UserCodeError):
    """The process that held a model died with the request inside, and died again when it was retried."""

    def __init__(self, name: str, how: str) -> None:
        self.name = name
        self.how = how
        super().__init__(f"The process that ran model '{name}' {how} while handling this request.")


class HostOutOfMemoryError(PlatformError):
    """The kernel killed the process that was loading or running a model."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"The process that ran model '{name}' was killed by the kernel: out of memory.")


class PortInUseError(PlatformError):
    """Another process listens where the server should."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"Port {port} on {host} is already in use. Stop what listens there, or choose another with --port or "
            "SAGEMAKER_BIND_TO_PORT."
        )


class RemoteError(MooringError):
    """An error that a host reported: its class names, most specific first, and its sentence."""

    def __init__(self, names: Sequence[str], message: str, status: int | None = None) -> None:
        self.names = tuple(names)
        self.status = status  # where the model's code chose one
        super().__init__(message)

    @classmethod
    def of_report(cls, report: bytes) -> Self:
        """Return the error that another process made a report of."""
        return cls(**json.loads(report))


def names_of(error: BaseException) -> Sequence[str]:
    """Return the names of an error's classes, most specific first, without those that say nothing."""
    if isinstance(error, RemoteError):
        return error.names
    named = [kind.__name__ for kind in type(error).__mro__ if kind not in (object, BaseException, Exception)]
    return named or [type(error).__name__]


def report(error: BaseException, message: str) -> bytes:
    """Return what another process is told of an error; the message is fit for a client."""
    status = getattr(error, "status", None)
    return json.dumps({"names": names_of(error), "message": message, "status": status}).encode()
