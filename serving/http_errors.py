"""Which status code and which body an error becomes. The one table of the HTTP doors; both lanes use it."""

import json

from mooring.contract.errors import MooringError

from .errors import OverloadedError, RemoteError, names_of

# Class name -> status code and the type string that clients of the earlier servers know. The most specific class wins.
STATUS: dict[str, tuple[int, str]] = {
    "ModelNotFoundError": (404, "ModelNotFoundException"),
    "ConsoleRefusedError": (403, "AccessDeniedException"),
    "ModelExistsError": (409, "ConflictStatusException"),
    "ModelPathError": (400, "BadRequestException"),
    "ModelFolderError": (400, "InvalidModelException"),
    "UnsafeArchiveError": (400, "InvalidModelException"),
    "DamagedArchiveError": (400, "InvalidModelException"),
    "AdminTokenError": (401, "UnauthorizedException"),
    "AdminRefusedError": (403, "AccessDeniedException"),
    "BodyTooLargeError": (413, "RequestEntityTooLargeException"),
    "UnsupportedContentTypeError": (415, "UnsupportedMediaTypeException"),
    "UnsupportedAcceptError": (406, "NotAcceptableException"),
    "InsufficientMemoryError": (507, "InsufficientMemoryException"),
    "HostOutOfMemoryError": (507, "InsufficientMemoryException"),
    "MemoryError": (507, "InsufficientMemoryException"),
    "ModelFilesError": (503, "ServiceUnavailableException"),
    "SpoolError": (503, "ServiceUnavailableException"),
    "LoadCancelledError": (409, "ConflictStatusException"),
    "OverloadedError": (503, "ServiceUnavailableException"),
    "ModelNotReadyError": (503, "ServiceUnavailableException"),
    "ResponseTimeoutError": (504, "ResponseTimeoutException"),
    "CallerError": (400, "BadRequestException"),
    "UserCodeError": (500, "InternalServerException"),
    "PlatformError": (500, "InternalServerException"),
}
UNEXPECTED = (500, "InternalServerException")
# Seconds after which a client may find a free place in the queue or a model reloaded.
RETRY_AFTER_S = 1

# The Open Inference Protocol, whose clients read errors in another form.
PROTOCOL_PREFIX = "/v2"

JSON_LINE = b"content-type: application/json\r\n"
RETRY_LINES = JSON_LINE + b"retry-after: %d\r\n" % RETRY_AFTER_S
TOKEN_LINES = JSON_LINE + b"www-authenticate: Bearer\r\n"
# Header lines of answers that say more than their type.
LINES = {401: TOKEN_LINES, 429: RETRY_LINES, 503: RETRY_LINES}


def classify(error: MooringError) -> tuple[int, str]:
    """Return the status code of an error, and its type as clients of the earlier servers know it."""
    status, kind = next((STATUS[name] for name in names_of(error) if name in STATUS), UNEXPECTED)
    if isinstance(error, (RemoteError, OverloadedError)) and error.status:
        status = error.status
    return status, kind


def to_response(error: MooringError) -> tuple[int, bytes, bytes]:
    """Return status code, header lines and body for an error."""
    status, kind = classify(error)
    return status, LINES.get(status, JSON_LINE), error_body(status, kind, str(error))


def protocol_error_body(error: MooringError) -> bytes:
    """Return an error as clients of the Open Inference Protocol read it."""
    return json.dumps({"error": str(error)}).encode()


def error_event(error: MooringError) -> bytes:
    """Return an error as a server-sent event, for a stream whose status is on the wire already."""
    return b"event: error\ndata: %b\n\n" % to_response(error)[2]


def error_body(status: int, kind: str, message: str) -> bytes:
    """Return the JSON body that the earlier servers sent, which clients parse."""
    return json.dumps({"code": status, "type": kind, "message": message}).encode()
