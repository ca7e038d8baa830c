"""What came of trying one row: pass, fail or not applicable, and why. The reason says what was seen."""

from dataclasses import dataclass
from enum import Enum

from mooring.contract.errors import MooringError


class Outcome(Enum):
    """How an image stands to a line of the contract."""

    PASSED = "pass"
    FAILED = "fail"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Finding:
    """An outcome and its reason."""

    outcome: Outcome
    reason: str


class NotApplicableError(MooringError):
    """A row cannot be asked of this image, or not with what was given."""


def judged(is_fine: bool, seen: str, advice: str = "") -> Finding:
    """Return a pass, or a fail whose reason goes on with what would help.

    >>> judged(False, "It is red.", "Paint it.").reason
    'It is red. Paint it.'
    """
    if is_fine:
        return Finding(Outcome.PASSED, seen)
    return Finding(Outcome.FAILED, f"{seen} {advice}".rstrip())


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "model"), counted(2, "model"), counted(2, "reply", "replies")
    ('1 model', '2 models', '2 replies')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
