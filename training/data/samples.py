"""A sample before it is parsed: its bytes, and where they came from."""

from pathlib import Path
from typing import NamedTuple

from mooring.contract.errors import UserCodeError


class Raw(NamedTuple):
    """A sample as it was read. `number` counts lines or records of its file, from 1."""

    content: bytes
    file: str
    number: int


class SampleError(UserCodeError):
    """A sample that cannot be read. `number` is that of its line or record; `column` may be unknown."""

    def __init__(self, file: Path | str, unit: str, number: int, problem: str, column: int | None = None) -> None:
        self.file = str(file)
        self.number = number
        self.column = column
        self.problem = problem
        place = f"{unit} {number}" if column is None else f"{unit} {number}, column {column}"
        super().__init__(f"{file}, {place}: {problem}")
