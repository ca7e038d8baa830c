"""The texts of a channel, of files or a pipe, on one host or spread over several: all of them, on every rank alike."""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mooring.contract.channels import Channel, Distribution, InputMode, RecordWrapper, require_channel
from mooring.contract.errors import HyperparameterError
from mooring.handler.media_types import parse
from mooring.training.data.files import cut_files, data_files
from mooring.training.data.formats import RECORD_IO, Format, Records
from mooring.training.data.passes import PipePasses
from mooring.training.data.progress import Progress
from mooring.training.distributed import Group
from mooring.training.initial_weights import MODEL_CHANNEL

from .records import (
    LINES,
    PROBLEMS_SHOWN,
    TABLES,
    ColumnsInTurn,
    LabelledText,
    NamedColumns,
    TextDataError,
    line_format,
    texts_of,
)
from .settings import Settings

logger = logging.getLogger(__name__)

TRAIN, VALIDATION = "train", "validation"
PACKED = ".gz"
# Where a file's name does not tell, the channel's content type does.
CONTENT_TYPES = {
    "text/csv": ".csv", "text/tab-separated-values": ".tsv", "application/jsonlines": ".jsonl",
    "application/x-jsonlines": ".jsonl", "application/jsonl": ".jsonl", "application/json": ".jsonl",
}  # fmt: skip
EXPECTED = "expected CSV with a header line, JSON Lines, or a folder of .txt files for each label"


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


def _check(channel: Channel) -> None:
    """Refuse a pipe of which nothing tells how its bytes fall into texts."""
    if channel.mode is InputMode.PIPE and _kind_of(channel) is None and not _is_manifest(channel):
        known = ", ".join(CONTENT_TYPES)
        told = f'its content type is "{channel.content_type}"' if channel.content_type else "it has no content type"
        problem = f"Channel '{channel.name}' comes through a pipe, where no name of a file tells the format, and {told}"
        hint = f"or {RECORD_IO} with the RecordWrapperType RecordIO for an augmented manifest"
        raise TextDataError([f"{problem}; expected {known}, {hint}."])


def split(texts: Sequence[LabelledText], settings: Settings) -> tuple[list[LabelledText], list[LabelledText]]:
    """Return texts to train with and texts to validate with, drawn by the seed."""
    if settings.validation_split == 0:
        return list(texts), []
    held_out = max(1, round(len(texts) * settings.validation_split))
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    logger.info("%d of %d texts are held out to validate with (validation_split)", held_out, len(texts))
    return [texts[index] for index in sorted(order[held_out:])], [texts[index] for index in sorted(order[:held_out])]


def labelled_texts(channel: Channel, settings: Settings, group: Group) -> list[LabelledText]:
    """Return all texts of a channel, those of the first host first. Call it on all ranks.

    Where not every rank has all of them, those that have a part read it and give it to the others. Raises
    `TextDataError` naming every line that cannot be used, and a channel that holds no texts; for a pipe what reading
    one does.
    """
    is_sharded = channel.distribution is Distribution.SHARDED_BY_S3_KEY
    if channel.mode is not InputMode.PIPE and not is_sharded:
        texts = _read(channel, settings)
    else:
        reads = group.local_rank == 0 if is_sharded else group.rank == 0
        texts = _of_all_ranks(_read(channel, settings) if reads else [], group)
    if not texts:
        raise TextDataError([f"Channel '{channel.name}' holds no texts, but: {_held(channel)}; {EXPECTED}."])
    return texts


def _of_all_ranks(texts: list[LabelledText], group: Group) -> list[LabelledText]:
    if group.world_size == 1:
        return texts
    parts: list[Any] = [None] * group.world_size
    dist.all_gather_object(parts, texts)
    return [text for part in parts for text in part]


def _held(channel: Channel) -> str:
    if channel.mode is InputMode.PIPE:
        return "a pipe with nothing in it"
    files = data_files(channel.path)
    return ", ".join(str(file.relative_to(channel.path)) for file in files[:PROBLEMS_SHOWN]) or "nothing"


def _read(channel: Channel, settings: Settings) -> list[LabelledText]:
    """Return the texts that are here, in the order of files' names, or of the pipe. Raises `TextDataError`."""
    problems: list[str] = []
    read = _of_pipe if channel.mode is InputMode.PIPE else _of_files
    texts = [*read(channel, settings, problems)]
    if problems:
        raise TextDataError(problems)
    return texts


# --- files ------------------------------------------------------------------------------------------------------------


def _of_files(channel: Channel, settings: Settings, problems: list[str]) -> Iterator[LabelledText]:
    files = data_files(channel.path)
    progress = Progress(f"reading channel '{channel.name}'", sum(file.stat().st_size for file in files))
    for file, kind in _kinds(channel, files):
        if kind == ".txt":
            yield from _whole_file(file, problems)
        else:
            raws = cut_files([file], line_format(kind), progress.advance)
            yield from texts_of(raws, NamedColumns(kind, settings), problems)


def _kinds(channel: Channel, files: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the files that hold texts, each with the suffix of what it holds."""
    fallback = _kind_of(channel)
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


def _kind_of(channel: Channel) -> str | None:
    """Return the suffix that a channel's content type stands for, None if it stands for none."""
    return CONTENT_TYPES.get(parse(channel.content_type or "").name)


def _whole_file(file: Path, problems: list[str]) -> Iterator[LabelledText]:
    """Yield the text that a file is, labelled with its folder's name."""
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        problems.append(f"{file}: is not UTF-8 at byte {error.start}")
        return
    if text:
        yield LabelledText(text, None, file.parent.name, str(file), 1)
    else:
        problems.append(f"{file}: is empty")


# --- pipes ------------------------------------------------------------------------------------------------------------


def _of_pipe(channel: Channel, settings: Settings, problems: list[str]) -> Iterator[LabelledText]:
    """Yield the texts of the first pass: they are kept, so there is no other."""
    kind = _kind_of(channel)
    is_wrapped = channel.record_wrapper is RecordWrapper.RECORD_IO
    in_turn = ColumnsInTurn(settings)
    samples: Format = in_turn.format if kind is None else Records() if is_wrapped else line_format(kind)
    with closing(PipePasses(channel, channel.path, samples, tells_progress=True).samples(0)) as raws:
        if kind is None:
            yield from texts_of(raws, in_turn, problems)
        elif not is_wrapped:
            yield from texts_of(raws, NamedColumns(kind, settings), problems)
        else:  # each record is an object as it lies in S3
            for each in raws:
                lines = line_format(kind).cut(io.BytesIO(each.content), f"{each.file}, record {each.number}")
                yield from texts_of(lines, NamedColumns(kind, settings), problems)


def _is_manifest(channel: Channel) -> bool:
    is_wrapped = channel.record_wrapper is RecordWrapper.RECORD_IO
    return is_wrapped and parse(channel.content_type or RECORD_IO).name == RECORD_IO
