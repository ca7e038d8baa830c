"""What can go wrong between a request and a model, by who must act."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mooring.contract.errors import CallerError, PlatformError, UserCodeError


class UnsupportedContentTypeError(CallerError):
    """The body is of a type that the model's handler cannot read."""

    def __init__(self, content_type: str, accepted: Sequence[str]) -> None:
        self.content_type = content_type
        self.accepted = tuple(accepted)
        named = f"Content type {content_type or '(none)'} is not supported by this framework."
        super().__init__(f"{named} Accepted are: {', '.join(self.accepted)}.")


class UnsupportedAcceptError(CallerError):
    """The client accepts no type that the handler can write."""

    def __init__(self, accept: str, offered: Sequence[str]) -> None:
        self.accept = accept
        self.offered = tuple(offered)
        super().__init__(f'Accept is "{accept}", but answers can only be: {", ".join(self.offered)}.')


class BodyDecodeError(CallerError):
    """The body is not what its content type says."""

    def __init__(self, content_type: str, problem: str) -> None:
        self.content_type = content_type
        self.problem = problem
        super().__init__(f"The body cannot be read as {content_type}: {problem}")


class PredictionInputError(CallerError):
    """The body was read, but does not fit the model's inputs."""

    def __init__(self, problem: str, inputs: Sequence[str]) -> None:
        self.problem = problem
        self.inputs = tuple(inputs)
        super().__init__(f"{problem} The model takes: {'; '.join(self.inputs)}.")


class PredictionError(UserCodeError):
    """The model failed on an input that looked right."""


class ModelFolderError(UserCodeError):
    """Nothing in a model's folder can be served, or more than one thing could."""

    def __init__(self, problem: str, looked_for: Sequence[str], found: Sequence[str]) -> None:
        self.problem = problem
        self.looked_for = tuple(looked_for)
        self.found = tuple(found)
        shown = ", ".join(self.found[:20]) + (", …" if len(self.found) > 20 else "")
        looked = f" Looked for: {', '.join(self.looked_for)}." if self.looked_for else ""
        super().__init__(f"{problem}{looked} Found: {shown or 'nothing'}.")


class ModelLoadError(UserCodeError):
    """A model's file was found but cannot be loaded."""

    def __init__(self, file: Path, problem: str) -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file.name} cannot be loaded: {problem}")


class UnreadableModelError(PlatformError):
    """Files of a model are there, but this process may not read them. Paths below the model's folder are shown."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        shown = ", ".join(_with_owner(root, file) for file in self.files[:5])
        more = f" and {len(self.files) - 5} more" if len(self.files) > 5 else ""
        super().__init__(
            f"The model cannot be loaded: this process runs as uid {os.geteuid()} and may not read {shown}{more}. Let "
            "everybody read the model (chmod -R a+rX), give it to that user (chown -R), or run as its owner."
        )


def _with_owner(root: Path, file: Path) -> str:
    name = file.name if file == root else file.relative_to(root)
    facts = file.stat()
    return f"{name} (mode {stat.S_IMODE(facts.st_mode):04o}, owner uid {facts.st_uid})"


class HandlerError(UserCodeError):
    """A function of the user's handler failed, is missing, or has a signature that cannot be called."""


class ModelConfigError(UserCodeError):
    """A model's mooring.toml cannot be used; every problem is named."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"mooring.toml: {'; '.join(self.problems)}.")


class WarmUpError(UserCodeError):
    """A model failed on a sample of its own."""

    def __init__(self, sample: str, problem: str) -> None:
        self.sample = sample
        self.problem = problem
        super().__init__(f"Warm-up sample {sample} failed: {problem}")


class CancelledRequestError(CallerError):
    """The client left before its request was begun; nobody reads this."""

    def __init__(self) -> None:
        super().__init__("The client left before the request was begun.")


class LoadCancelledError(CallerError):
    """A model was unloaded while it was still loading."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        super().__init__(f"Model '{name}' was unloaded while it was loading.")


class HandlerStatusError(UserCodeError):
    """A handler chose the status and the message that its client gets."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)
