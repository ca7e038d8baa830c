"""Why a run failed, told root cause first: what the platform shows is the first 1,024 characters of one file."""

import json
import re
import signal
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mooring.contract.paths import ContainerPaths

from .stacks import places_text

# The platform shows no more: AlgorithmError in DescribeTrainingJob's FailureReason.
MAX_CHARACTERS = 1024
# Ranks that fail within this time of each other may be one failure and its echoes.
ECHO_S = 1.0
MAX_FRAMES = 6
# With a process group, torch puts the rank before each line of a traceback.
RANK_PREFIX = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)
TRACED_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)\n    (.+)$', re.MULTILINE)
# What gloo and NCCL say when another rank has gone.
PEER_GONE = re.compile(r"connection (?:closed|reset) by peer|remote process exited", re.IGNORECASE)
# What gloo, NCCL and the stores say when another rank does not come.
WAITED_TOO_LONG = re.compile(r"tim(?:ed|e)[ -]?out", re.IGNORECASE)


@dataclass(frozen=True)
class RankFailure:
    """How one rank ended. `error` is what its script raised, if it could still say so."""

    rank: int
    status: int  # a wait status
    at: float  # seconds since the epoch
    error: str | None
    tail: str  # the end of its stderr
    was_killed: bool = False  # by us, when it did not end as it was asked to

    @property
    def exit_code(self) -> int:
        """The rank's own exit code; 128 + n for death by signal n, as shells have it; 1 if its script raised."""
        return 1 if self.error is not None else exit_code(self.status)

    @property
    def signal(self) -> int:
        """The signal that killed it, 0 if none did.

        One that came after its script had raised is no cause: torch may abort while a process that had peers ends.
        """
        return 0 if self.error is not None else self.status & 0x7F

    @property
    def tells_of_a_peer(self) -> bool:
        """Whether what its script raised says that another rank has gone."""
        return self.error is not None and bool(PEER_GONE.search(self.error.partition("\n")[0]))


def exit_code(status: int) -> int:
    """Return the exit code that a wait status stands for.

    >>> exit_code(3 << 8), exit_code(9)
    (3, 137)
    """
    killed_by = status & 0x7F
    return 128 + killed_by if killed_by else status >> 8


def root_cause(failures: Sequence[RankFailure]) -> RankFailure:
    """Return the failure that the others follow from.

    A killed rank leaves no time of its own, only the time its death was seen, which may be a little after its peers
    noticed a broken connection; so among failures close together a death by signal comes first. One that raised may
    close its connections before it says so; what only tells of a connection that broke comes last among them.
    """
    earliest = min(failure.at for failure in failures)

    def order(failure: RankFailure) -> tuple[bool, bool, bool, float, int]:
        is_late = failure.at - earliest > ECHO_S
        return is_late, failure.signal == 0, failure.tells_of_a_peer, failure.at, failure.rank

    return min(failures, key=order)


def failure_text(
    failure: RankFailure, world_size: int, host: str, places: Mapping[int, str], *, out_of_memory: bool
) -> str:
    """Return the text of the failure file. `places` tells where ranks were that had not failed yet."""
    text = _cause_text(failure, world_size, host, out_of_memory=out_of_memory)
    if not places or not (failure.was_killed or WAITED_TOO_LONG.search(text)):
        return text
    # Whom the others waited for is the news; of the text that may have to make room for it, the end matters least.
    meanwhile = places_text(places)
    return clip(f"{clip(text, MAX_CHARACTERS - len(meanwhile) - 1)}\n{meanwhile}")


def _cause_text(failure: RankFailure, world_size: int, host: str, *, out_of_memory: bool) -> str:
    who = f"rank {failure.rank} of {world_size} on {host}" if world_size > 1 else host
    error = failure.error or (None if failure.signal else _error_in(failure.tail))
    if error is not None:
        first, _, frames = error.partition("\n")
        return clip(f"{first} ({who}, exit code {failure.exit_code})\n{frames}")
    if failure.was_killed:
        cause = "The training program did not end when it was asked to, and was killed"
    elif failure.signal:
        cause = _killed_by(failure.signal, out_of_memory=out_of_memory)
    else:
        cause = f"The training program ended with exit code {failure.exit_code}"
    return clip(f"{cause} ({who}).\n{_last_lines(failure.tail)}")


def _killed_by(number: int, *, out_of_memory: bool) -> str:
    if out_of_memory:
        return "The training program was killed by the kernel: out of memory"
    name = signal.Signals(number).name
    hint = "; if nobody sent it, the machine was probably out of memory" if number == signal.SIGKILL else ""
    return f"The training program was killed by {name}{hint}"


def _error_in(tail: str) -> str | None:
    """Return the last traceback of a stream as `error_text` has it, for what no rank of ours could catch itself."""
    _, header, trace = RANK_PREFIX.sub("", tail).rpartition("Traceback (most recent call last):\n")
    frames = [f"at {file}:{line} in {name}: {code}" for file, line, name, code in TRACED_FRAME.findall(trace)]
    last = next((line for line in trace.splitlines() if not line.startswith(" ")), None)
    return "\n".join([last, *frames[-MAX_FRAMES:][::-1]]) if header and last else None


def _last_lines(tail: str) -> str:
    """Return the end of a stream, its last lines whole."""
    room = MAX_CHARACTERS * 2 // 3
    return tail.strip()[-room:].partition("\n")[2] if len(tail.strip()) > room else tail.strip()


def clip(text: str, room: int = MAX_CHARACTERS) -> str:
    """Return the text in so many characters, and say so where something is missing."""
    text = text.strip()
    return text if len(text) <= room else text[: max(0, room - 2)] + " …"


def error_text(error: BaseException, skip: Path) -> str:
    """Return type and message, then where it happened: the innermost frames first, those below `skip` left out."""
    first = f"{type(error).__name__}: {error}".replace("\n", "; ")
    frames = [
        f"at {frame.filename}:{frame.lineno} in {frame.name}: {(frame.line or '').strip()}"
        for frame in _frames(error.__traceback__)
        if skip not in Path(frame.filename).parents and not frame.filename.startswith("<frozen")
    ]
    return "\n".join([first, *frames[-MAX_FRAMES:][::-1]])


def _frames(trace: TracebackType | None) -> traceback.StackSummary:
    return traceback.extract_tb(trace)


def error_file(folder: Path, rank: int, attempt: int) -> Path:
    """Return where a rank leaves what its script raised. Each attempt has its own: what came first must not be lost."""
    return folder / f"rank-{rank}-attempt-{attempt}.json"


def write_error(file: Path, error: BaseException, at: float, skip: Path) -> None:
    """Leave what a rank's script raised for the supervisor to find."""
    file.write_text(json.dumps({"at": at, "error": error_text(error, skip)}), encoding="utf-8")


def read_error(file: Path) -> tuple[float, str] | None:
    """Return when a rank's script raised, and what; None if it left nothing whole."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return float(content["at"]), str(content["error"])
    except (OSError, ValueError, KeyError):
        return None


def forget_outcome(paths: ContainerPaths) -> None:
    """Remove the files of an earlier run below the same folder."""
    paths.failure.unlink(missing_ok=True)
    paths.success.unlink(missing_ok=True)


def write_failure(paths: ContainerPaths, text: str) -> None:
    """Write the failure file, unless the script has written its own."""
    paths.output.mkdir(parents=True, exist_ok=True)
    if not paths.failure.exists():
        paths.failure.write_text(clip(text), encoding="utf-8")


def write_success(paths: ContainerPaths) -> None:
    """Leave the empty marker that users of the earlier toolkit look for."""
    paths.output.mkdir(parents=True, exist_ok=True)
    paths.success.touch()
