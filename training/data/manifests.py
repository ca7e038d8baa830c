"""Manifests: which objects a channel is made of, and for augmented ones what is known about each."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from mooring.artifact.recordio import frame, read_records
from mooring.contract.errors import UserCodeError

from .formats import JsonLines, Lines
from .samples import Raw, SampleError

# Attributes whose names end so are references to objects.
REFERENCE = "-ref"


class ManifestError(UserCodeError):
    """A manifest that is missing or cannot be used."""

    def __init__(self, file: Path, problem: str) -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file}: {problem}.")


def manifest_of(folder: Path) -> Path:
    """Return the manifest of the channel with this folder: beside it, or the only one in it. Raises `ManifestError`."""
    beside = folder.with_name(f"{folder.name}-manifest")
    if beside.is_file():
        return beside
    inside = sorted(folder.glob("*.manifest"))
    if len(inside) == 1:
        return inside[0]
    found = f"{len(inside)} files called *.manifest" if inside else "no file called *.manifest"
    raise ManifestError(beside, f"is not there, and in {folder.name} there is {found}")


def listed_files(folder: Path) -> list[Path]:
    """Return the files that a channel's manifest lists, in its order. Raises `ManifestError`.

    Such a manifest is a list of names, the first of them an object that holds the prefix of the others.
    """
    manifest = manifest_of(folder)
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(manifest, f"is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict) or "prefix" not in entries[0]:
        raise ManifestError(manifest, 'is no manifest; expected [{"prefix": "s3://…"}, "name", …]')
    prefix, names = entries[0]["prefix"], entries[1:]
    if not all(isinstance(name, str) for name in names):
        raise ManifestError(manifest, "lists something that is not a name")
    files = {name: local_file(folder, prefix + name) for name in names}
    if missing := [name for name, file in files.items() if file is None]:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ManifestError(manifest, f"lists objects that are not in {folder}: {some}")
    return [file for file in files.values() if file is not None]


def local_file(folder: Path, reference: str) -> Path | None:
    """Return the file that an object became: the one whose name has most of the object's key. None if there is none."""
    split = urlsplit(reference)
    parts = [part for part in unquote(split.netloc + split.path).split("/") if part]
    if ".." in parts:
        return None
    candidates = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class Augmented(Lines):
    """Samples of an augmented manifest: a dictionary of the attributes named, in the order of the job's AttributeNames.

    An attribute called `…-ref` is the bytes of its object, any other the value in the manifest. In Pipe mode every
    attribute is a record of its own, in turn; in the other modes the manifest is read, and objects are files.
    """

    attributes: tuple[str, ...]
    folder: Path | None = None

    def __init__(self, *attributes: str, folder: Path | None = None) -> None:
        object.__setattr__(self, "attributes", attributes)
        object.__setattr__(self, "folder", folder)

    def of_files(self, folder: Path) -> "Augmented":
        """Return the format of a channel whose objects are files in a folder."""
        return Augmented(*self.attributes, folder=folder)

    def cut(self, stream: BinaryIO, name: str) -> Iterator[Raw]:
        """Yield lines of the manifest, or as many records as there are attributes."""
        if self.folder is not None:
            yield from super().cut(stream, name)
            return
        number = 0
        parts: list[bytes] = []
        for record in read_records(stream, name):
            parts.append(frame(record))
            if len(parts) == len(self.attributes):
                number += 1
                yield Raw(b"".join(parts), name, number)
                parts = []
        if parts:
            problem = f"ends after {len(parts)} of its {len(self.attributes)} attributes ({', '.join(self.attributes)})"
            raise SampleError(name, "sample", number + 1, problem)

    def parse(self, raw: Raw) -> Any:
        """Return the attributes."""
        return self._of_records(raw) if self.folder is None else self._of_line(raw, self.folder)

    def _of_records(self, raw: Raw) -> dict[str, Any]:
        records = read_records(io.BytesIO(raw.content), raw.file)
        return {
            name: record if name.endswith(REFERENCE) else _value(raw, name, record)
            for name, record in zip(self.attributes, records, strict=True)
        }

    def _of_line(self, raw: Raw, folder: Path) -> dict[str, Any]:
        fields = JsonLines().parse(raw)
        if not isinstance(fields, dict):
            raise SampleError(raw.file, "line", raw.number, "is not an object")
        if missing := [name for name in self.attributes if name not in fields]:
            known = ", ".join(f"'{name}'" for name in fields)
            problem = f"has no attribute {', '.join(missing)}; it has {known}"
            raise SampleError(raw.file, "line", raw.number, problem)
        return {
            name: _content(raw, name, fields[name], folder) if name.endswith(REFERENCE) else fields[name]
            for name in self.attributes
        }


def _value(raw: Raw, name: str, record: bytes) -> Any:
    try:
        return json.loads(record)
    except ValueError:
        pass
    try:
        return record.decode()  # a string comes without quotes
    except UnicodeDecodeError as error:
        raise SampleError(raw.file, "sample", raw.number, f"attribute '{name}' is no text") from error


def _content(raw: Raw, name: str, reference: Any, folder: Path) -> bytes:
    file = local_file(folder, reference) if isinstance(reference, str) else None
    if file is None:
        problem = f"attribute '{name}' is {json.dumps(reference)}, which is no file below {folder}"
        raise SampleError(raw.file, "line", raw.number, problem)
    return file.read_bytes()
