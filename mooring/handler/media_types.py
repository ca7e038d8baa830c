"""Media types: what a body is, and which of the types we can write a client would like best.

What a client sends is never an error here: what is malformed is passed over, as a header's reader should.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import cached_property, lru_cache
from itertools import islice

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
# The same as clients of SageMaker's Triton images send it: the platform drops the header that gives the JSON's length.
TRITON_BINARY = "application/vnd.sagemaker-triton.binary+json"

# Other spellings of the same types.
SYNONYMS = {
    "application/x-ndjson": JSON_LINES,
    "application/ndjson": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/jsonl": JSON_LINES,
    "application/x-jsonl": JSON_LINES,
    "application/csv": CSV,
}
UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# Character sets of the world. Others that Python knows are none: some take quadratic time, some make text that is none.
CHARACTER_SETS = frozenset(
    name for pair in (*aliases.items(), ("utf_8_sig", "")) if pair[1] != "utf_7" for name in pair if name
)
# More ranges than this are no wish but an attack.
MOST_RANGES = 64
# Neither can take more than linear time: their inner repeats give nothing back.
PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+("(?:[^"\\]++|\\.)*+"|[^;"]*+)', re.DOTALL)
RANGE = re.compile(r'(?:[^,"]++|"(?:[^"\\]++|\\.)*+"?+)++', re.DOTALL)
ESCAPED = re.compile(r'\\(["\\])')


@dataclass(frozen=True)
class MediaType:
    """A media type without its case: `text/csv; charset=UTF-8` is name `text/csv` and a parameter."""

    name: str
    parameters: Mapping[str, str]

    @property
    def charset(self) -> str:
        """The encoding of a text body."""
        return self.parameters.get("charset") or "utf-8"

    @cached_property
    def is_utf8(self) -> bool:
        """Whether a text body is UTF-8, as nearly all are."""
        return self.charset.lower() in UTF8

    def text(self, body: bytes) -> str:
        """Return a text body as text, without its byte order mark. Raises `ValueError` naming the encoding."""
        if self.is_utf8:
            return body.decode().removeprefix("\ufeff")
        if normalize_encoding(self.charset).lower() not in CHARACTER_SETS:
            raise ValueError(f"there is no character set '{self.charset}' that is known here")
        try:
            return body.decode(self.charset).removeprefix("\ufeff")
        except LookupError as error:  # compressions and the like have names of the same kind
            raise ValueError(str(error)) from error

    @cached_property
    def is_image(self) -> bool:
        """Whether the body is a picture in a file format."""
        return self.name == IMAGE or self.name.startswith("image/")


@lru_cache(maxsize=256)
def parse(text: str) -> MediaType:
    """Parse a Content-Type. Other spellings of a type become the one known here.

    >>> parse("Application/X-NDJSON; charset=UTF-8")
    MediaType(name='application/jsonlines', parameters={'charset': 'UTF-8'})
    """
    name, semicolon, rest = text.partition(";")
    name = name.strip().lower()
    parameters = {key.lower(): _unquoted(value) for key, value in PARAMETER.findall(semicolon + rest)}
    return MediaType(SYNONYMS.get(name, name), parameters)


def _unquoted(value: str) -> str:
    return ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value.strip()


@lru_cache(maxsize=256)
def negotiate(accept: str, offered: Sequence[str]) -> str | None:
    """Return the offered type that an Accept header prefers, the first offered where it does not say, None if none.

    Among types that weigh the same, the one whose range stands first wins.

    >>> negotiate("text/csv;q=0.5, application/*", ("application/json", "text/csv"))
    'application/json'
    """
    ranges = list(_ranges(accept))
    if not ranges:
        return offered[0]
    weighed = [(*_weight_of(name, ranges), name) for name in offered]
    # `max` keeps the first of equals: what we offer first.
    weight, _, best = max(weighed, key=lambda each: (each[0], -each[1]))
    return best if weight > 0 else None


def spelling(accept: str, name: str) -> str:
    """Return how an Accept header spells a type, for clients that compare the answer's type with what they asked."""
    asked = (part.partition(";")[0].strip().lower() for part in RANGE.findall(accept))
    return next((given for given in asked if SYNONYMS.get(given) == name), name)


def _ranges(accept: str) -> Iterator[MediaType]:
    for part in islice(RANGE.findall(accept), MOST_RANGES):
        wanted = parse(part)
        if wanted.name == "*":  # as Java's own client sends it
            yield MediaType("*/*", wanted.parameters)
        elif "/" in wanted.name:
            yield wanted


def _weight_of(name: str, ranges: Sequence[MediaType]) -> tuple[float, int]:
    """Return the weight that the most specific matching range gives to a type, and where that range stands."""
    specificities = {"*/*": 0, f"{name.partition('/')[0]}/*": 1, name: 2}
    specificity, weight, place = -1, 0.0, 0
    for index, wanted in enumerate(ranges):
        if specificities.get(wanted.name, -1) > specificity:
            specificity, weight, place = specificities[wanted.name], _weight(wanted), index
    return weight, place


def _weight(wanted: MediaType) -> float:
    try:
        weight = float(wanted.parameters.get("q", "1"))
    except ValueError:
        return 1.0
    return weight if 0 <= weight <= 1 else 1.0
