"""The root of every error Mooring raises, in three kinds by who must act.

Errors take facts and build their own sentence: what happened, to which name, and what would help. They know
nothing of HTTP or exit codes; each door translates them with one table.
"""

from collections.abc import Sequence
from pathlib import Path


class MooringError(Exception):
    """Something went wrong that Mooring understands; `str()` of it is fit to show to a user."""


class CallerError(MooringError):
    """The client who sent the request must act."""


class UserCodeError(MooringError):
    """The author of the training script, handler or model must act."""


class PlatformError(MooringError):
    """Whoever runs the container must act: its files, memory, ports or settings."""


class ConfigurationFileError(PlatformError):
    """A file that the platform writes is missing or damaged."""

    def __init__(self, path: Path, field: str | None, problem: str) -> None:
        self.path = path
        self.field = field
        self.problem = problem
        place = f"{path}, field '{field}'" if field else str(path)
        super().__init__(f"{place}: {problem}")


class SettingError(PlatformError):
    """An environment variable or command-line setting has a value that cannot be used."""

    def __init__(self, name: str, given: str, expected: str) -> None:
        self.name = name
        self.given = given
        self.expected = expected
        super().__init__(f'{name} is "{given}"; expected {expected}.')


class HyperparameterError(UserCodeError):
    """One or more hyperparameters are missing, unknown or of the wrong type; all are named at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingChannelError(UserCodeError):
    """A channel that the program reads was not given to the job."""

    def __init__(self, name: str, available: Sequence[str]) -> None:
        self.name = name
        self.available = tuple(available)
        given = ", ".join(f"'{channel}'" for channel in self.available) or "none"
        super().__init__(
            f"Channel '{name}' was not given to this job; the channels given are: {given}. Add it to the job's inputs."
        )
