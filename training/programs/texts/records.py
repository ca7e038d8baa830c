"""Labelled texts of a channel: CSV with a header line, JSON Lines, or a folder of .txt files for each label.

Whatever cannot be used is named by file, line and column, all of it at once.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mooring.contract.channels import Channel, Distribution, InputMode, require_channel
from mooring.contract.errors import HyperparameterError, UserCodeError
from mooring.training.data.files import PackedDataError, cut_files, data_files
from mooring.training.data.formats import Csv, Format, JsonLines
from mooring.training.data.progress import Progress
from mooring.training.data.samples import SampleError
from mooring.training.initial_weights import MODEL_CHANNEL

from .settings import Settings

logger = logging.getLogger(__name__)

TRAIN, VALIDATION = "train", "validation"
TEXT_COLUMNS, LABEL_COLUMNS = ("text", "sentence"), ("label", "labels")
TABLES = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".jsonlines", ".ndjson", ".json")
PACKED = ".gz"
# Where a file's name does not tell, the channel's content type does.
CONTENT_TYPES = {
    "text/csv": ".csv", "text/tab-separated-values": ".tsv", "application/jsonlines": ".jsonl",
    "application/x-jsonlines": ".jsonl", "application/jsonl": ".jsonl", "application/json": ".jsonl",
}  # fmt: skip
# So many problems show what is wrong with a file; the rest would be more of them.
PROBLEMS_SHOWN = 20
EXPECTED = "expected CSV with a header line, JSON Lines, or a folder of .txt files for each label"


class TextDataError(UserCodeError):
    """Texts that cannot be used; each problem names its file and line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        hidden = len(problems) - PROBLEMS_SHOWN
        more = [f"and {hidden} more like these"] if hidden > 0 else []
        super().__init__("\n".join([*problems[:PROBLEMS_SHOWN], *more]))


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, with its label as it was given, and where it was found."""

    text: str
    pair: str | None
    label: Any
    file: Path
    line: int

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True, slots=True)
class _Row:
    """The columns of one line."""

    columns: dict[str, Any]
    line: int


class _LineError(Exception):
    """A line that cannot be used."""

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(problem)


def check_channels(channels: Mapping[str, Channel], settings: Settings) -> None:
    """See to it that there is what the program reads, and say what it does not read, before any of it is read.

    Raises `MissingChannelError`, `TextDataError`, `HyperparameterError`.
    """
    _check(require_channel(channels, TRAIN))
    if VALIDATION in channels:
        _check(channels[VALIDATION])
    elif settings.validation_split == 0 and settings.early_stopping_patience is not None:
        problem = f"without a channel '{VALIDATION}' or a validation_split nothing tells when to stop"
        raise HyperparameterError(
            [f"Hyperparameter 'early_stopping_patience' is {settings.early_stopping_patience}; {problem}."]
        )
    for name in channels.keys() - {TRAIN, VALIDATION, MODEL_CHANNEL}:
        logger.warning("channel '%s' is not read; channels are %s, %s and %s", name, TRAIN, VALIDATION, MODEL_CHANNEL)


def split(texts: Sequence[LabelledText], settings: Settings) -> tuple[list[LabelledText], list[LabelledText]]:
    """Return texts to train with and texts to validate with, drawn by the seed."""
    if settings.validation_split == 0:
        return list(texts), []
    held_out = max(1, round(len(texts) * settings.validation_split))
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    logger.info("%d of %d texts are held out to validate with (validation_split)", held_out, len(texts))
    return [texts[index] for index in sorted(order[held_out:])], [texts[index] for index in sorted(order[:held_out])]


def labelled_texts(channel: Channel, settings: Settings) -> list[LabelledText]:
    """Return all texts of a channel, in the order of its files' names.

    Raises `TextDataError` naming every line that cannot be used, and a channel that holds no texts.
    """
    files = data_files(channel.path)
    progress = Progress(f"reading channel '{channel.name}'", sum(file.stat().st_size for file in files))
    problems: list[str] = []
    texts: list[LabelledText] = []
    for file, kind in _kinds(channel, files):
        texts += _of_file(file, kind, settings, problems, progress)
    if problems:
        raise TextDataError(problems)
    if not texts:
        held = ", ".join(str(file.relative_to(channel.path)) for file in files[:PROBLEMS_SHOWN])
        raise TextDataError([f"Channel '{channel.name}' holds no texts, but: {held or 'nothing'}; {EXPECTED}."])
    return texts


def _check(channel: Channel) -> None:
    """Refuse ways of giving a channel under which ranks would not all see all of it."""
    if channel.mode is InputMode.PIPE:
        raise TextDataError(
            [f"Channel '{channel.name}' comes through a pipe; the input mode has to be File or FastFile for texts."]
        )
    if channel.distribution is Distribution.SHARDED_BY_S3_KEY:
        raise TextDataError(
            [f"Channel '{channel.name}' is ShardedByS3Key; every host needs all texts: choose FullyReplicated."]
        )


def _kinds(channel: Channel, files: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the files that hold texts, each with the suffix of what it holds."""
    fallback = CONTENT_TYPES.get((channel.content_type or "").partition(";")[0].strip().lower())
    suffixes = {file: Path(file.name.removesuffix(PACKED)).suffix.lower() for file in files}
    has_rows = any(suffix in TABLES or suffix in LINES for suffix in suffixes.values())
    for file, suffix in suffixes.items():
        is_in_labels_folder = suffix == ".txt" and file.parent != channel.path and not has_rows
        if suffix in TABLES or suffix in LINES or is_in_labels_folder:
            yield file, suffix
        elif fallback and not has_rows:
            yield file, fallback
        else:
            logger.warning("%s is left out: its name tells no format; %s", file, EXPECTED)


def _of_file(
    file: Path, kind: str, settings: Settings, problems: list[str], progress: Progress
) -> Iterator[LabelledText]:
    """Yield a file's texts; what is wrong with others is added to the problems."""
    if kind == ".txt":
        yield from _whole_file(file, problems)
        return
    # A number counts columns, in a file that has no header line.
    has_header = not (settings.label_column or "").isdecimal()
    for row in _rows(file, kind, has_header=has_header, problems=problems, progress=progress):
        try:
            yield _labelled(row, file, settings)
        except _LineError as error:
            problems.append(f"{file}, line {error.line}: {error.problem}")


def _whole_file(file: Path, problems: list[str]) -> Iterator[LabelledText]:
    """Yield the text that a file is, labelled with its folder's name."""
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        problems.append(f"{file}: is not UTF-8 at byte {error.start}")
        return
    if text:
        yield LabelledText(text, None, file.parent.name, file, 1)
    else:
        problems.append(f"{file}: is empty")


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(file: Path, kind: str, *, has_header: bool, problems: list[str], progress: Progress) -> Iterator[_Row]:
    """Yield the columns of each line; what is wrong with others is added to the problems."""
    chosen: Format = Csv(delimiter=TABLES[kind], as_text=True) if kind in TABLES else JsonLines()
    names: list[str] | None = None
    try:
        for raw in cut_files([file], chosen, progress.advance):
            try:
                content = chosen.parse(raw)
                if kind in TABLES and names is None:
                    names = [name.strip() for name in content] if has_header else list(map(str, range(len(content))))
                    if has_header:
                        continue
                yield _Row(_by_name(names, content, raw.number), raw.number)
            except SampleError as error:
                problems.append(str(error))
            except _LineError as error:
                problems.append(f"{file}, line {error.line}: {error.problem}")
    except (SampleError, PackedDataError) as error:  # what follows in the file cannot be trusted
        problems.append(str(error))


def _by_name(names: Sequence[str] | None, content: Any, line: int) -> dict[str, Any]:
    """Return a line's columns by name; JSON brings its names along. Raises `_LineError`."""
    if names is None:
        if not isinstance(content, dict):
            raise _LineError(line, f"holds {_shown(content)}; expected an object in each line")
        return content
    if len(content) != len(names):
        problem = f"has {len(content)} fields where the first line has {len(names)}; texts with commas need quotes"
        raise _LineError(line, problem)
    return dict(zip(names, content, strict=True))


def _labelled(row: _Row, file: Path, settings: Settings) -> LabelledText:
    """Return a row's text and label. Raises `_LineError` naming the column."""
    text = _text(row, _column(row, settings.text_column, TEXT_COLUMNS, "text_column"))
    pair = None
    if settings.text_pair_column is not None:
        pair = _text(row, _column(row, settings.text_pair_column, (), "text_pair_column"))
    column = _column(row, settings.label_column, LABEL_COLUMNS, "label_column")
    label = row.columns[column]
    if isinstance(label, str):
        label = label.strip()
    if label in (None, "") or isinstance(label, dict):
        raise _LineError(row.line, f"column '{column}' is {_shown(label)}; expected a label")
    return LabelledText(text, pair, label, file, row.line)


def _column(row: _Row, named: str | None, usual: Sequence[str], hyperparameter: str) -> str:
    """Return the column that is meant. Raises `_LineError` naming those there are."""
    wanted = usual if named is None else (named,)
    for name in wanted:
        if name in row.columns:
            return name
    there = ", ".join(f"'{name}'" for name in row.columns) or "none"
    expected = " or ".join(f"'{name}'" for name in wanted)
    problem = f"there is no column {expected}; its columns are {there}. Name another with the hyperparameter"
    raise _LineError(row.line, f"{problem} '{hyperparameter}'")


def _text(row: _Row, column: str) -> str:
    text = row.columns[column]
    if not isinstance(text, str) or not text.strip():
        raise _LineError(row.line, f"column '{column}' is {_shown(text)}; expected a text")
    return text


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
