"""A model archive out of a model's folder, packed only if it could be served. Planned first, then performed."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mooring.artifact.archive import pack_files
from mooring.artifact.contents import Contents
from mooring.artifact.store import bucket_and_key, is_s3, send
from mooring.handler.resolve import HandlerChoice, choose_handler


@dataclass(frozen=True)
class PackagePlan:
    """What goes into an archive, how it would be served, and where the archive goes: a path or s3://bucket/key."""

    choice: HandlerChoice
    contents: Contents
    output: str


def plan_package(folder: Path, output: str, variables: Mapping[str, str]) -> PackagePlan:
    """Find out what a model's archive would hold.

    An outer folder is left away: all of the earlier servers look for a model at an archive's root. Raises
    `ModelFolderError` and `ModelConfigError` where it could not be served, `UnfitFilesError`, `StoreError`.
    """
    if is_s3(output):
        bucket_and_key(output)
    choice = choose_handler(folder, variables)
    contents = Contents.of(choice.root, but=None if is_s3(output) else Path(output))
    return PackagePlan(choice, contents, output)


def package(plan: PackagePlan, variables: Mapping[str, str], on_bytes: Callable[[int], None]) -> int:
    """Write the archive, whole or not at all, and return its size. Raises `StoreError`, `OSError`."""
    if not is_s3(plan.output):
        pack_files(plan.contents.files, Path(plan.output), on_bytes)
        return Path(plan.output).stat().st_size
    with tempfile.TemporaryDirectory(prefix="mooring-package-") as folder:
        archive = Path(folder) / "model.tar.gz"
        pack_files(plan.contents.files, archive, on_bytes)
        send(archive, plan.output, variables)
        return archive.stat().st_size
