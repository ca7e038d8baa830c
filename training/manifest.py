"""Manifests: what makes a checkpoint exist. A reader believes only what they prove.

The platform syncs the folder file by file in no promised order, and hosts share no disk. So files have final names from
the start; each host lists its own with size and checksum, and last of all a manifest of these manifests is written.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mooring.artifact.publish import publish_file
from mooring.contract.errors import MooringError

MANIFEST = "manifest.json"
CHUNK = 1 << 20
Entries = dict[str, dict[str, Any]]


class DamagedCheckpointError(MooringError):
    """A checkpoint that is not what its manifests say, or has none."""

    def __init__(self, file: Path, problem: str) -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file} {problem}")


def host_manifest_name(host: str) -> str:
    """Return the name of a host's manifest."""
    return f"host-{host}.json"


def entries_of(files: Iterable[Path]) -> Entries:
    """Return the entries of files: by name, size in bytes and checksum."""
    return {file.name: {"bytes": file.stat().st_size, "crc32": _checksum(file)} for file in files}


def write_manifest(file: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest so that it is there whole or not at all."""
    with publish_file(file) as beside:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint's manifest says, unverified. Raises `DamagedCheckpointError`."""
    return _read(folder / MANIFEST)


def verify(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose every file of every host is present and right.

    Raises `DamagedCheckpointError` naming the first file that is not.
    """
    manifest = read_manifest(folder)
    _verify_entries(folder, manifest.get("hosts"), folder / MANIFEST)
    for name in manifest["hosts"]:
        _verify_entries(folder, _read(folder / name).get("files"), folder / name)
    return manifest


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedCheckpointError(file, "is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(file, f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DamagedCheckpointError(file, "is not a manifest")
    return content


def _verify_entries(folder: Path, entries: Any, listed_in: Path) -> None:
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DamagedCheckpointError(listed_in, "is not a manifest")
    for name, entry in entries.items():
        file = folder / name
        if Path(name).name != name:
            raise DamagedCheckpointError(listed_in, f"names '{name}', which lies elsewhere")
        try:
            size = file.stat().st_size
            if size != entry.get("bytes"):
                raise DamagedCheckpointError(file, f"has {size:,} bytes; {entry.get('bytes')} were written")
            if _checksum(file) != entry.get("crc32"):
                raise DamagedCheckpointError(file, "is not what was written: its checksum differs")
        except FileNotFoundError as error:
            raise DamagedCheckpointError(file, "is missing") from error
        except OSError as error:
            raise DamagedCheckpointError(file, f"cannot be read: {error}") from error


def _checksum(file: Path) -> str:
    """Return a file's CRC-32, which finds what disks and syncs do to files, and costs a tenth of what SHA-256 does."""
    checksum = 0
    with file.open("rb", buffering=0) as content:
        while chunk := content.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return f"{checksum:08x}"
