"""Sentences from the documentation inside Python's own library, labelled with the package that they describe."""

import ast
import csv
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PACKAGES = {"asyncio": "asyncio", "decimal": "_pydecimal.py", "email": "email", "unittest": "unittest"}
PER_PACKAGE = 380
HELD_OUT = 60  # of each package
WORDS = range(5, 41)
# Between paragraphs, and after a full stop.
BOUNDARY = re.compile(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])")
EXAMPLE = ">>>"

Sentence = tuple[str, str]


def write_channels(train: Path, validation: Path) -> None:
    """Write both channels: CSV files with the columns `text` and `label`."""
    sentences = {label: list(_sentences(label)) for label in PACKAGES}
    chance = random.Random(0)
    for folder, part in ((train, slice(HELD_OUT, PER_PACKAGE)), (validation, slice(HELD_OUT))):
        rows = [(text, label) for label, texts in sentences.items() for text in texts[part]]
        chance.shuffle(rows)
        with (folder / "sentences.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])


def read_channel(folder: Path) -> list[Sentence]:
    """Return a channel's sentences with their labels."""
    with (folder / "sentences.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def _sentences(label: str) -> Iterator[str]:
    """Yield sentences of a package in an order of chance, each once."""
    path = Path(sysconfig.get_path("stdlib")) / PACKAGES[label]
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    found = [sentence for file in files for text in _docstrings(file) for sentence in _parts(text)]
    distinct = sorted(set(found))
    random.Random(1).shuffle(distinct)
    yield from distinct


def _docstrings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def _parts(text: str) -> Iterator[str]:
    for part in BOUNDARY.split(text):
        words = part.split()
        if len(words) in WORDS and EXAMPLE not in words:
            yield " ".join(words)
