"""Batch transform: every input file sent to a model, record by record or in batches, and its answers in a file.

Answers keep the order of records. An output file appears whole or not at all, so that a job that was stopped goes on
with the files that have none.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from mooring.artifact.publish import publish_file
from mooring.contract.errors import MooringError

from .model_client import AnswerError, ModelClient
from .records import Payload, RecordError, Split, Strategy, payloads

SUFFIX = ".out"
EXECUTION_PARAMETERS = "/execution-parameters"
MEGABYTE = 1 << 20
STRATEGIES = {"MULTI_RECORD": Strategy.MULTI, "SINGLE_RECORD": Strategy.SINGLE}
# What an input file is when nobody says.
CONTENT_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".txt": "text/plain",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
OTHER_CONTENT = "application/octet-stream"
# Requests that are sent or answered ahead of the one whose answer is written next, per request under way.
AHEAD = 2


@dataclass(frozen=True)
class Pace:
    """How a server is sent requests."""

    concurrency: int = 1
    strategy: Strategy = Strategy.MULTI
    most_bytes: int = 6 * MEGABYTE


@dataclass(frozen=True)
class TransformTerms:
    """What a job was told beside its files."""

    content_type: str | None = None
    accept: str | None = None
    split: Split = Split.NONE
    ends_lines: bool = False  # whether each answer becomes at least one whole line
    retries: int = 3
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Task:
    """One input file and the file that its answers become."""

    source: Path
    target: Path
    name: str  # as in the input folder
    size: int


@dataclass
class Progress:
    """How far a job is."""

    files_total: int
    bytes_total: int
    files: int = 0
    bytes: int = 0
    requests: int = 0
    started: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)  # a sentence for each file

    @property
    def seconds(self) -> float:
        """How long it has been going."""
        return max(1e-6, time.monotonic() - self.started)

    @property
    def seconds_left(self) -> float | None:
        """How long it will go on if it keeps its pace, None where nothing tells."""
        return self.seconds / self.bytes * (self.bytes_total - self.bytes) if self.bytes else None


def find_tasks(source: Path, output: Path, *, overwrite: bool) -> tuple[list[Task], int]:
    """Return what is to be done for a file or a folder, and how many files are left out because they have an output.

    Files whose names begin with a dot are passed over, and so are outputs that lie among the inputs.
    """
    if source.is_dir():
        names = {path: str(path.relative_to(source)) for path in _inputs(source, output)}
    else:
        names = {source: source.name}
    tasks = [
        Task(path, output / f"{name}{SUFFIX}", name, path.stat().st_size)
        for path, name in names.items()
        if not any(part.startswith(".") for part in Path(name).parts)
    ]
    left = [task for task in tasks if overwrite or not task.target.exists()]
    return left, len(tasks) - len(left)


def _inputs(source: Path, output: Path) -> list[Path]:
    """Return the files of a folder but outputs: what lies in an output folder inside it, else the outputs of others."""
    found = sorted(path for path in source.rglob("*") if path.is_file())
    top, results = source.resolve(), output.resolve()
    if top in results.parents:
        return [path for path in found if results not in path.resolve().parents]
    outputs = {results / f"{path.relative_to(source)}{SUFFIX}" for path in found}
    return [path for path in found if top / path.relative_to(source) not in outputs]


def pace_of(client: ModelClient) -> Pace:
    """Return the pace that a server asks for, the platform's defaults where it does not.

    Raises `UnreachableServerError`.
    """
    answer = client.get(EXECUTION_PARAMETERS)
    try:
        given = json.loads(answer.body) if answer.is_good else {}
    except ValueError:
        given = {}
    if not isinstance(given, dict):
        given = {}
    concurrency, megabytes = given.get("MaxConcurrentTransforms"), given.get("MaxPayloadInMB")
    default = Pace()
    return Pace(
        concurrency if isinstance(concurrency, int) and concurrency > 0 else default.concurrency,
        STRATEGIES.get(str(given.get("BatchStrategy")), default.strategy),
        megabytes * MEGABYTE if isinstance(megabytes, int) and megabytes >= 0 else default.most_bytes,
    )


def transform(
    tasks: list[Task], client: ModelClient, terms: TransformTerms, report: Callable[[Progress], None]
) -> Progress:
    """Do tasks, and return what became of them; the failure of one file spoils no other's.

    Raises `UnreachableServerError` when nobody listens any more, `OSError` when an output cannot be written.
    """
    job = _Job(client, terms, Progress(len(tasks), sum(task.size for task in tasks)), report)
    with ThreadPoolExecutor(terms.pace.concurrency, "transform") as pool:
        try:
            job.run(tasks, pool)
        except BaseException:
            client.abort()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return job.progress


class _Item(NamedTuple):
    """A request under way; one without an answer says that a file has begun."""

    task: Task
    payload: Payload | None
    answer: Future[bytes] | None


class _Job:
    """One run over the tasks: requests go out ahead, answers are written in order."""

    def __init__(
        self, client: ModelClient, terms: TransformTerms, progress: Progress, report: Callable[[Progress], None]
    ) -> None:
        self.progress = progress
        self._client = client
        self._terms = terms
        self._report = report
        self._failed: set[Task] = set()

    def run(self, tasks: Iterable[Task], pool: ThreadPoolExecutor) -> None:
        for task, items in groupby(self._in_flight(tasks, pool), key=lambda item: item.task):
            self._write(task, items)

    def _in_flight(self, tasks: Iterable[Task], pool: ThreadPoolExecutor) -> Iterator[_Item]:
        """Yield requests in order, with some after them on their way already."""
        window: deque[_Item] = deque()
        for item in self._items(tasks, pool):
            window.append(item)
            if len(window) > AHEAD * self._terms.pace.concurrency:
                yield window.popleft()
        yield from window

    def _items(self, tasks: Iterable[Task], pool: ThreadPoolExecutor) -> Iterator[_Item]:
        pace = self._terms.pace
        for task in tasks:
            yield _Item(task, None, None)
            headers = self._headers(task)
            try:
                for payload in payloads(task.source, self._terms.split, pace.strategy, pace.most_bytes):
                    if task in self._failed:
                        break
                    ask = self._client.invoke
                    yield _Item(task, payload, pool.submit(ask, payload.body, headers, self._terms.retries))
            except (RecordError, OSError) as error:
                failed: Future[bytes] = Future()
                failed.set_exception(error if isinstance(error, RecordError) else _unreadable(error))
                yield _Item(task, None, failed)

    def _headers(self, task: Task) -> dict[str, str]:
        known = CONTENT_TYPES.get(task.source.suffix.lower(), OTHER_CONTENT)
        headers = {"Content-Type": self._terms.content_type or known}
        return headers | ({"Accept": self._terms.accept} if self._terms.accept else {})

    def _write(self, task: Task, items: Iterable[_Item]) -> None:
        """Write a file's answers as they come, and publish the file after the last."""
        before = self.progress.bytes
        place = ""
        try:
            with publish_file(task.target) as beside, beside.open("wb") as output:
                for item in items:
                    if item.answer is None:
                        continue
                    place = f", {item.payload}: " if item.payload else ", "
                    answer = item.answer.result()
                    output.write(answer)
                    if self._terms.ends_lines and not answer.endswith(b"\n"):
                        output.write(b"\n")
                    self.progress.requests += 1
                    self.progress.bytes += item.payload.input_bytes if item.payload else 0
                    self._report(self.progress)
        except (RecordError, AnswerError) as error:
            self._failed.add(task)
            self.progress.failures.append(f"{task.name}{place}{error}")
        self.progress.files += 1
        self.progress.bytes = before + task.size
        self._report(self.progress)


def _unreadable(error: OSError) -> MooringError:
    return AnswerError(f"it cannot be read: {error.strerror}")
