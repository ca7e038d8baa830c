"""Small functions that handlers borrow from the toolkit."""

import re
from collections.abc import Mapping
from pathlib import Path

CONTENT_TYPE_REGEX = re.compile("^[Cc]ontent-?[Tt]ype")


def read_file(path: str, mode: str = "r") -> str | bytes:
    """Return what a file holds."""
    file = Path(path)
    return file.read_bytes() if "b" in mode else file.read_text(encoding="utf-8")


def write_file(path: str, data: str | bytes, mode: str = "w") -> None:
    """Write a file, or add to it with mode "a"."""
    with Path(path).open(mode, encoding=None if "b" in mode else "utf-8") as file:
        file.write(data)


def retrieve_content_type_header(request_property: Mapping[str, str]) -> str | None:
    """Return the content type, however the header is spelled; None where there is none."""
    return next((value for key, value in request_property.items() if CONTENT_TYPE_REGEX.match(key)), None)


def parse_accept(accept: str) -> list[str]:
    """Return the types that an Accept header lists, in its order."""
    return accept.replace(" ", "").split(",")


def remove_crlf(illegal_string: str) -> str:
    """Return text on one line."""
    return illegal_string.replace("\r", " ").replace("\n", " ")
