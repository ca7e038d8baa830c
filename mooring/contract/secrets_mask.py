"""Which names are those of secrets, and how their values look in logs."""

import re
from collections.abc import Mapping
from typing import Any

# Words of a key that name a secret, wherever they stand between other words.
SECRET_WORDS = frozenset(
    {"secret", "password", "passwd", "token", "key", "apikey", "credential", "credentials", "creds", "private"}
)
MASK = "******"
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def is_secret(key: str) -> bool:
    """Whether a name is that of a secret: one of its words says so, which `tokenizer` does not.

    >>> is_secret("HF_TOKEN"), is_secret("tokenizer"), is_secret("api-key")
    (True, False, True)
    """
    return not SECRET_WORDS.isdisjoint(word.lower() for word in WORD.findall(key))


def mask_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy for logs, in which the values of secrets are stars."""
    return {key: MASK if is_secret(key) else value for key, value in values.items()}
