"""Errors that handlers raise and catch. Each carries the status that its client gets."""

from http import HTTPStatus
from typing import Any


class UnsupportedFormatError(Exception):
    """The body's type cannot be read, or the type that is accepted cannot be written."""

    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value  # the toolkit answered 500

    def __init__(self, content_type: str | None, **_: Any) -> None:
        self.message = (
            f"Content type {content_type} is not supported by this framework. Please implement input_fn to "
            "deserialize the request data or an output_fn to serialize the response."
        )
        self.phrase = "Unsupported Media Type"
        super().__init__(self.message)


class UnreadableBodyError(ValueError):
    """The body is not what its content type says; the toolkit let the decoder's own ValueError through."""

    status_code = HTTPStatus.BAD_REQUEST.value

    def __init__(self, content_type: str, problem: str) -> None:
        self.message = f"The body cannot be read as {content_type}: {problem}"
        self.phrase = "Bad Request"
        super().__init__(self.message)


class BaseInferenceToolkitError(Exception):
    """What a handler raises to choose its client's status and message."""

    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        self.status_code = status_code
        self.message = message
        self.phrase = phrase
        super().__init__(status_code, message, phrase)


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    """The same, with a message where none is given."""

    def __init__(self, status_code: int, message: str | None = None, phrase: str | None = None) -> None:
        message = message or "Invalid Request"
        super().__init__(status_code, message, phrase or message)
