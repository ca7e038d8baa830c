"""Where ranks are, asked from outside: the supervisor sends a signal, and a rank's interpreter writes its stack down.

This works while a rank waits inside a collective or a system call, where a handler written in Python would not run.
"""

import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

# A real-time signal, which is nobody's; the first of them are the C library's.
ASK = signal.SIGRTMIN + 9
ANSWER_S = 0.5
POLL_S = 0.02
FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
LIBRARIES = (Path(sys.prefix), Path(sys.base_prefix))
OURS = Path(__file__).parent


def stack_file(folder: Path, rank: int) -> Path:
    """Return where a rank writes its stack."""
    return folder / f"rank-{rank}-stack.txt"


def offer_stack(file: Path) -> None:
    """Answer from now on, in this process, with the main thread's stack."""
    faulthandler.register(ASK, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), all_threads=False)


def ask_places(folder: Path, pids: Mapping[int, int]) -> dict[int, str]:
    """Return where ranks are, as `file:line in function`, given their process ids. Who does not answer is left out.

    Takes as long as the slowest answer, half a second at most.
    """
    files = {rank: stack_file(folder, rank) for rank, pid in pids.items() if _ask(pid)}
    limit = time.monotonic() + ANSWER_S
    sizes: dict[int, int] = {}
    while time.monotonic() < limit:
        time.sleep(POLL_S)
        before, sizes = sizes, {rank: file.stat().st_size for rank, file in files.items()}
        if sizes == before and all(sizes.values()):
            break
    places = {rank: _place(file.read_text(encoding="utf-8", errors="replace")) for rank, file in files.items()}
    return {rank: place for rank, place in places.items() if place is not None}


def _ask(pid: int) -> bool:
    """Ask a process, if it would answer: others would die of the signal."""
    with suppress(OSError):
        caught = next(
            line for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines() if "SigCgt" in line
        )
        if int(caught.split()[1], 16) >> (ASK - 1) & 1:
            os.kill(pid, ASK)
            return True
    return False


def _place(stack: str) -> str | None:
    """Return the innermost frame of the script's own, or of a library's if it has none."""
    found = [(Path(name), line, function) for name, line, function in FRAME.findall(stack)]
    frames = [frame for frame in found if frame[0].parent != OURS and not frame[0].name.startswith("<")]
    users = [frame for frame in frames if not any(folder in frame[0].parents for folder in LIBRARIES)]
    for path, line, function in (users or frames)[:1]:
        return f"{path}:{line} in {function}"
    return None


def places_text(places: Mapping[int, str]) -> str:
    """Return a sentence about where ranks were, those at one place together.

    >>> places_text({0: "train.py:20 in step", 1: "train.py:12 in load", 2: "train.py:20 in step"})
    'Meanwhile rank 1 was at train.py:12 in load; ranks 0, 2 were at train.py:20 in step.'
    """
    by_place: dict[str, list[int]] = {}
    for rank, place in places.items():
        by_place.setdefault(place, []).append(rank)
    # Where the fewest are comes first: the others may be waiting for them.
    ordered = sorted(by_place.items(), key=lambda entry: (len(entry[1]), entry[1]))
    return f"Meanwhile {'; '.join(f'{_named(ranks)} at {place}' for place, ranks in ordered)}." if ordered else ""


def _named(ranks: Iterable[int]) -> str:
    named = [str(rank) for rank in ranks]
    return f"rank {named[0]} was" if len(named) == 1 else f"ranks {', '.join(named)} were"
