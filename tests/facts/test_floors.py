"""The house stands on its floors: who may import whom, and what importing costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mooring"

# Files of projects that people make of them.
TEMPLATES = PACKAGE / "workbench/templates"

FLOORS = {
    "contract": 0,
    "artifact": 1,
    "runner": 1,
    "handler": 2,
    "compat": 2,
    "training": 3,
    "serving": 3,
    "workbench": 3,
    "control": 3,
    "cli": 4,
}


def modules() -> list[tuple[str, Path]]:
    """Every module of the package as (part of the house, file)."""
    found = []
    for part in FLOORS:
        found += [(part, file) for file in sorted((PACKAGE / part).rglob("*.py")) if TEMPLATES not in file.parents]
    return found


def imported(file: Path) -> Iterator[str]:
    """The absolute names a module imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level


def part_of(name: str) -> str | None:
    """The part of the house a name like `mooring.contract.paths` belongs to."""
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "mooring" and len(pieces) > 1 and pieces[1] in FLOORS else None


@pytest.mark.parametrize(("part", "file"), modules(), ids=lambda value: str(value).removeprefix(str(PACKAGE)))
def test_module_imports_only_lower_floors(part: str, file: Path) -> None:
    for name in imported(file):
        other = part_of(name)
        if other is not None and other != part:
            assert FLOORS[other] < FLOORS[part], f"{part} (floor {FLOORS[part]}) imports {name} (floor {FLOORS[other]})"


@pytest.mark.parametrize(("part", "file"), modules(), ids=lambda value: str(value).removeprefix(str(PACKAGE)))
def test_module_never_imports_the_street_names(part: str, file: Path) -> None:
    for name in imported(file):
        assert name.split(".")[0] not in {"serving", "training"}


@pytest.mark.parametrize(
    ("part", "file"), [pair for pair in modules() if FLOORS[pair[0]] <= 1], ids=lambda value: str(value)
)
def test_low_floors_name_no_third_party_package_outside_a_function(part: str, file: Path) -> None:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            assert top == "mooring" or top in sys.stdlib_module_names


def run(code: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def test_low_floors_import_with_no_third_party_package_present() -> None:
    """`-S -I` leaves site-packages out; only the repository itself is put back."""
    names = [
        "mooring." + str(file.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for part, file in modules()
        if FLOORS[part] <= 1
    ]
    assert names
    imports = "; ".join(f"import {name}" for name in names)
    run(f"import sys; sys.path.insert(0, {str(ROOT)!r}); {imports}", "-I", "-S")


@pytest.mark.parametrize("package", ["mooring", "mooring.training", "mooring.serving", "mooring.handler"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}; print(sorted({{'torch', 'numpy', 'onnxruntime', 'fastapi'}} & set(sys.modules)))"
    assert run(code).strip() == "[]"


def test_importing_mooring_does_nothing() -> None:
    code = (
        "import sys, logging, threading; before = set(sys.modules); import mooring; "
        "print(sorted(set(sys.modules) - before), logging.root.handlers, threading.active_count())"
    )
    assert run(code).strip() == "['mooring'] [] 1"
