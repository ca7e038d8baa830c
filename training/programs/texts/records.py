"""Lines of CSV or JSON as texts with labels. What cannot be used is named by file, line and column, all at once."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mooring.contract.errors import UserCodeError
from mooring.training.data.files import PackedDataError
from mooring.training.data.formats import Csv, Format, JsonLines, text_of
from mooring.training.data.manifests import REFERENCE, Augmented
from mooring.training.data.samples import Raw, SampleError

from .settings import Settings

TEXT_COLUMNS, LABEL_COLUMNS = ("text", "sentence"), ("label", "labels")
TABLES = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".jsonlines", ".ndjson", ".json")
# So many problems show what is wrong with a file; the rest would be more of them.
PROBLEMS_SHOWN = 20


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
    file: str
    line: int

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file}, line {self.line}"


class _LineError(Exception):
    """What is wrong with a line."""


def line_format(kind: str) -> Format:
    """Return how a file with a suffix of `TABLES` or `LINES` falls into lines."""
    return Csv(delimiter=TABLES[kind], as_text=True) if kind in TABLES else JsonLines()


def texts_of(raws: Iterable[Raw], columns: "Columns", problems: list[str]) -> Iterator[LabelledText]:
    """Yield the texts of lines; what is wrong with others is added to the problems."""
    try:
        for raw in raws:
            try:
                text = columns.text(raw)
            except SampleError as error:
                problems.append(str(error))
            except _LineError as error:
                problems.append(f"{raw.file}, line {raw.number}: {error}")
            else:
                if text is not None:
                    yield text
    except (SampleError, PackedDataError) as error:  # what follows in the file cannot be trusted
        problems.append(str(error))


class Columns(Protocol):
    """Finds text and label in a line."""

    def text(self, raw: Raw) -> LabelledText | None:
        """Return the text; None for a line that only names columns. Raises `SampleError`, `_LineError`."""


class NamedColumns:
    """Columns by the names that the lines have: each of JSON its own, those of CSV the first one's."""

    def __init__(self, kind: str, settings: Settings) -> None:
        self._settings = settings
        self._format = line_format(kind)
        self._is_table = kind in TABLES
        # A number counts columns, in a file that has no line of names.
        self._has_names = self._is_table and not (settings.label_column or "").isdecimal()
        self._names: list[str] | None = None

    def text(self, raw: Raw) -> LabelledText | None:
        """Return the text; None for the line of names, wherever it comes: a stream may be of several files."""
        content = self._format.parse(raw)
        if not self._is_table:
            if not isinstance(content, dict):
                raise _LineError(f"holds {_shown(content)}; expected an object in each line")
            return _labelled(content, raw, self._settings)
        if self._names is None:
            self._names = [field.strip() for field in content] if self._has_names else [*map(str, range(len(content)))]
        if self._has_names and [field.strip() for field in content] == self._names:
            return None
        if len(content) != len(self._names):
            there = len(self._names)
            problem = f"has {len(content)} fields where the first line has {there}; texts with commas need quotes"
            raise _LineError(problem)
        return _labelled(dict(zip(self._names, content, strict=True)), raw, self._settings)


class ColumnsInTurn:
    """Texts and their label in turn, as the platform sends an augmented manifest, whose names it does not tell."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        pair = () if settings.text_pair_column is None else (settings.text_pair_column,)
        texts = (settings.text_column or TEXT_COLUMNS[0], *pair)
        self._names = (*texts, settings.label_column or LABEL_COLUMNS[0])
        # A text is taken as it is, whether it was an object's content or stood in the manifest.
        self.format = Augmented(*(name + REFERENCE for name in texts), LABEL_COLUMNS[0])

    def text(self, raw: Raw) -> LabelledText | None:
        """Return the text."""
        *texts, label = self.format.parse(raw).values()
        values = [*(text_of(raw._replace(content=text)) for text in texts), label]
        return _labelled(dict(zip(self._names, values, strict=True)), raw, self._settings)


def _labelled(columns: Mapping[str, Any], raw: Raw, settings: Settings) -> LabelledText:
    """Return a line's text and label. Raises `_LineError` naming the column."""
    text = _text(columns, _column(columns, settings.text_column, TEXT_COLUMNS, "text_column"))
    pair = None
    if settings.text_pair_column is not None:
        pair = _text(columns, _column(columns, settings.text_pair_column, (), "text_pair_column"))
    column = _column(columns, settings.label_column, LABEL_COLUMNS, "label_column")
    label = columns[column]
    if isinstance(label, str):
        label = label.strip()
    if label in (None, "") or isinstance(label, dict):
        raise _LineError(f"column '{column}' is {_shown(label)}; expected a label")
    return LabelledText(text, pair, label, raw.file, raw.number)


def _column(columns: Mapping[str, Any], named: str | None, usual: Sequence[str], hyperparameter: str) -> str:
    """Return the column that is meant. Raises `_LineError` naming those there are."""
    wanted = usual if named is None else (named,)
    for name in wanted:
        if name in columns:
            return name
    there = ", ".join(f"'{name}'" for name in columns) or "none"
    expected = " or ".join(f"'{name}'" for name in wanted)
    problem = f"there is no column {expected}; its columns are {there}. Name another with the hyperparameter"
    raise _LineError(f"{problem} '{hyperparameter}'")


def _text(columns: Mapping[str, Any], column: str) -> str:
    text = columns[column]
    if not isinstance(text, str) or not text.strip():
        raise _LineError(f"column '{column}' is {_shown(text)}; expected a text")
    return text


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
