"""Wheels of one module, as small as wheels can be."""

import zipfile
from collections.abc import Sequence
from pathlib import Path


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    pythons: str = ">=3.0",
    tag: str = "py3-none-any",
) -> None:
    """Write a wheel whose module says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Requires-Python: {pythons}"]
    metadata = "\n".join([*fields, *(f"Requires-Dist: {wish}" for wish in requires), ""])
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        wheel.writestr(f"{name}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")
