"""The words that turn a variable, a setting or a hyperparameter on or off, in one place."""

from collections.abc import Mapping

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})


def is_on(variables: Mapping[str, str], name: str) -> bool:
    """Whether a variable says yes; one that says anything else, or is not there, does not.

    >>> is_on({"MOORING_STRICT": "True"}, "MOORING_STRICT")
    True
    """
    return variables.get(name, "").strip().lower() in TRUE_WORDS
