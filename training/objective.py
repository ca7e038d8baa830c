"""The metric that a tuning job compares its jobs by: whether this job has reported it.

The container is given the metric's *name*, as the tuning job's metric definitions have it, but not the definitions; so
only the names that a script reports can be compared with it, not what an expression would find in the log.
"""

import difflib
from collections.abc import Iterable, Mapping

from mooring.contract.debugger_config import SWITCHES
from mooring.contract.errors import SettingError, UserCodeError
from mooring.contract.paths import ContainerPaths

from .json_lines import read_rows
from .metric_rows import metrics_file, metrics_of

REQUIRE_VARIABLE = "MOORING_REQUIRE_OBJECTIVE"


class ObjectiveMissingError(UserCodeError):
    """A job of a tuning job ended well, and never reported what it is compared by."""

    def __init__(self, objective: str, reported: Iterable[str]) -> None:
        self.objective = objective
        self.reported = tuple(sorted(reported))
        start = f"The tuning job compares its jobs by '{objective}', which this one never reported"
        if not self.reported:
            super().__init__(
                f"{start}, nor any other metric. Call report(…) with it, unless the script prints lines of its own "
                "that the metric definition matches."
            )
            return
        by_plain = {_plain(name): name for name in self.reported}
        close = difflib.get_close_matches(_plain(objective), by_plain, n=1, cutoff=0.5)
        hint = f"Did you mean '{by_plain[close[0]]}'? " if close else ""
        super().__init__(
            f"{start}; reported were {', '.join(repr(name) for name in self.reported)}. {hint}"
            "All is well if its definition matches the line of one of these; definitions are not in the container."
        )


def is_required(variables: Mapping[str, str]) -> bool:
    """Whether a job that does not report its objective has failed. Raises `SettingError`."""
    asked = variables.get(REQUIRE_VARIABLE) or "false"
    if asked.lower() not in SWITCHES:
        raise SettingError(REQUIRE_VARIABLE, asked, "true or false")
    return SWITCHES[asked.lower()]


def check_objective(paths: ContainerPaths, objective: str) -> None:
    """Compare the metrics that all attempts of a job reported with its objective. Raises `ObjectiveMissingError`."""
    try:
        reported = {name for row in read_rows(metrics_file(paths)) for name in metrics_of(row)}
    except OSError:
        reported = set()
    if not any(_plain(name) == _plain(objective) for name in reported):
        raise ObjectiveMissingError(objective, reported)


def _plain(name: str) -> str:
    """Return a name without what may differ between it and its definition's.

    >>> _plain("validation:accuracy") == _plain("Validation-accuracy") == _plain("validation_accuracy")
    True
    """
    return "".join(letter for letter in name.lower() if letter.isalnum())
