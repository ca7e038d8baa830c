"""Errors that scripts raise and catch."""

from typing import Any


class ClientError(Exception):
    """The user has to act."""


class ImportModuleError(ClientError):
    """A module cannot be imported."""


class ExecuteUserScriptError(ClientError):
    """A script failed."""

    def __init__(self, cmd: Any, return_code: int | None = None, output: str | bytes | None = None) -> None:
        self.cmd = cmd
        self.return_code = str(return_code)
        self.output = output
        shown = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
        super().__init__(f'ExitCode {return_code}\nErrorMessage "{shown}"\nCommand "{cmd}"')


class ChannelDoesNotExistError(Exception):
    """The job has no such channel."""

    def __init__(self, channel_name: str) -> None:
        super().__init__(f"Channel {channel_name} is not a valid channel")


class UnsupportedFormatError(Exception):
    """A content type is not supported."""

    def __init__(self, content_type: str, **_: Any) -> None:
        self.message = f"Content type {content_type} is not supported by this framework."
        super().__init__(self.message)
