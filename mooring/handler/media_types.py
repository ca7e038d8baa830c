"""Media types: what a body is, and which of the types we can write a client would like best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
NPZ = "application/x-npz"
IMAGE = "application/x-image"
OCTETS = "application/octet-stream"
TEXT = "text/plain"
MULTIPART = "multipart/form-data"
FORM = "application/x-www-form-urlencoded"
EVENT_STREAM = "text/event-stream"
# What the Open Inference Protocol sends, between the front door and hosts.
OPEN_INFERENCE = "application/vnd.mooring.open-inference+json"


@dataclass(frozen=True)
class MediaType:
    """A media type without its case: `text/csv; charset=UTF-8` is name `text/csv` and a parameter."""

    name: str
    parameters: Mapping[str, str]

    @property
    def charset(self) -> str:
        """The encoding of a text body."""
        return self.parameters.get("charset", "utf-8")

    @property
    def is_image(self) -> bool:
        """Whether the body is a picture in a file format."""
        return self.name == IMAGE or self.name.startswith("image/")


@lru_cache(maxsize=256)
def parse(text: str) -> MediaType:
    """Parse a Content-Type.

    >>> parse("Text/CSV; charset=UTF-8").name
    'text/csv'
    """
    name, *rest = text.split(";")
    parameters = {}
    for part in rest:
        key, _, value = part.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"')
    return MediaType(name.strip().lower(), parameters)


@lru_cache(maxsize=256)
def negotiate(accept: str, offered: Sequence[str]) -> str | None:
    """Return the offered type that an Accept header prefers, the first offered where it does not say, None if none.

    >>> negotiate("text/csv;q=0.5, application/*", ("application/json", "text/csv"))
    'application/json'
    """
    if not accept.strip():
        return offered[0]
    best, best_quality = None, 0.0
    for name in offered:
        quality = _quality(name, accept)
        if quality > best_quality:
            best, best_quality = name, quality
    return best


def _quality(name: str, accept: str) -> float:
    """Return the weight that the most specific matching range of an Accept header gives to a type."""
    matched = (-1, 0.0)
    for part in accept.split(","):
        wanted = parse(part)
        family = name.partition("/")[0]
        specificity = {"*/*": 0, f"{family}/*": 1, name: 2}.get(wanted.name, -1)
        if specificity > matched[0]:
            matched = (specificity, _weight(wanted))
    return matched[1] if matched[0] >= 0 else 0.0


def _weight(wanted: MediaType) -> float:
    try:
        return float(wanted.parameters.get("q", "1"))
    except ValueError:
        return 1.0
