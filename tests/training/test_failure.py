"""The failure file: root cause first, in what the platform shows of it."""

import signal
from pathlib import Path

import pytest

from mooring.contract.paths import ContainerPaths
from mooring.training.failure import (
    MAX_CHARACTERS,
    RankFailure,
    failure_text,
    read_error,
    root_cause,
    write_error,
    write_failure,
)


def failure(
    rank: int = 0, status: int = 1 << 8, at: float = 0.0, error: str | None = None, tail: str = ""
) -> RankFailure:
    return RankFailure(rank, status, at, error, tail)


def test_earliest_failure_is_the_cause() -> None:
    assert root_cause([failure(0, at=20.0), failure(1, at=10.0)]).rank == 1


def test_killed_rank_is_the_cause_though_its_peers_noticed_first() -> None:
    peer = failure(0, at=10.0, error="RuntimeError: Connection closed by peer")
    assert root_cause([peer, failure(1, status=signal.SIGKILL, at=10.2)]).rank == 1


def test_rank_that_raised_and_aborts_as_it_ends_failed_for_what_it_raised() -> None:
    """torch: "terminate called without an active exception", of the rank that raised, or of the peer that noticed."""
    raised = failure(1, status=signal.SIGABRT, at=10.0, error="ValueError: x")
    assert (raised.exit_code, raised.signal) == (1, 0)
    peer = failure(0, status=signal.SIGABRT, at=10.1, error="RuntimeError: Connection closed by peer")
    assert root_cause([peer, raised]) is raised
    assert root_cause([peer, failure(1, at=10.0, error="ValueError: x")]).rank == 1


def test_rank_that_raised_is_the_cause_though_a_peer_noticed_before_it_could_say_so() -> None:
    peer = failure(0, at=10.0, error="RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]")
    raised = failure(1, at=10.2, error="PipeError: the writer ended\nat train.py:3")
    assert root_cause([peer, raised]) is raised
    assert root_cause([peer, failure(1, at=12.0, error="ValueError: x")]) is peer
    assert root_cause([peer, failure(1, at=10.1, error="RuntimeError: Connection reset by peer")]) is peer


def test_abort_long_after_an_exception_is_not_the_cause() -> None:
    assert (
        root_cause([failure(0, at=10.0, error="ValueError: x"), failure(1, status=signal.SIGABRT, at=600.0)]).rank == 0
    )


@pytest.mark.parametrize(
    ("given", "out_of_memory", "begins"),
    [
        (
            failure(1, error="ValueError: no\nat train.py:3"),
            False,
            "ValueError: no (rank 1 of 2 on algo-1, exit code 1)\nat",
        ),
        (
            failure(0, 3 << 8, tail="a\nb\n"),
            False,
            "The training program ended with exit code 3 (rank 0 of 2 on algo-1).\na\nb",
        ),
        (failure(0, signal.SIGSEGV), False, "The training program was killed by SIGSEGV (rank 0"),
        (failure(0, signal.SIGKILL), True, "The training program was killed by the kernel: out of memory (rank 0"),
        (failure(0, signal.SIGKILL), False, "The training program was killed by SIGKILL; if nobody sent it"),
    ],
    ids=["raised", "exited", "crashed", "out of memory", "killed"],
)
def test_text_begins_with_the_cause(given: RankFailure, out_of_memory: bool, begins: str) -> None:
    assert failure_text(given, 2, "algo-1", {}, out_of_memory=out_of_memory).startswith(begins)


def test_text_fits_what_the_platform_shows() -> None:
    text = failure_text(failure(error="ValueError: " + "x" * 5000), 1, "algo-1", {}, out_of_memory=False)
    assert len(text) == MAX_CHARACTERS
    text = failure_text(failure(tail="x" * 100 + "\n" + "y\n" * 4000), 1, "algo-1", {}, out_of_memory=False)
    assert len(text) <= MAX_CHARACTERS
    assert text.endswith("y")


def test_traceback_on_stderr_is_told_like_an_error_of_ours() -> None:
    tail = (
        "starting\nTraceback (most recent call last):\n"
        '  File "/code/a.py", line 9, in <module>\n    main()\n    ~~~~^^\n'
        '  File "/code/a.py", line 4, in main\n    raise KeyError("no such column")\n'
        "KeyError: 'no such column'\nleaked semaphores\n"
    )
    lines = failure_text(failure(0, 1 << 8, tail=tail), 1, "algo-1", {}, out_of_memory=False).splitlines()
    assert lines == [
        "KeyError: 'no such column' (algo-1, exit code 1)",
        'at /code/a.py:4 in main: raise KeyError("no such column")',
        "at /code/a.py:9 in <module>: main()",
    ]


def test_who_kept_the_others_waiting_has_room_in_the_text() -> None:
    places = {1: "train.py:12 in load", 2: "train.py:20 in step", 3: "train.py:20 in step"}
    waited = failure(0, error="DistBackendError: wait timed out " + "x" * 5000)
    text = failure_text(waited, 4, "algo-1", places, out_of_memory=False)
    assert len(text) <= MAX_CHARACTERS
    assert text.endswith("Meanwhile rank 1 was at train.py:12 in load; ranks 2, 3 were at train.py:20 in step.")
    raised = failure(0, error="ValueError: no")
    assert "Meanwhile" not in failure_text(raised, 4, "algo-1", places, out_of_memory=False)


def test_error_of_a_rank_is_read_back(tmp_path: Path) -> None:
    def users_code() -> None:
        raise ValueError("two\nlines")

    with pytest.raises(ValueError, match="two") as raised:
        users_code()
    write_error(tmp_path / "error", raised.value, 7.0, skip=Path("/nowhere"))
    read = read_error(tmp_path / "error")
    assert read is not None
    at, text = read
    assert at == 7.0
    assert text.splitlines()[0] == "ValueError: two; lines"
    assert "in users_code: raise ValueError" in text.splitlines()[1]


@pytest.mark.parametrize("content", [None, "", "{", '{"at": 1}'])
def test_half_an_error_file_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "error"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert read_error(file) is None


def test_scripts_own_failure_file_stands(tmp_path: Path) -> None:
    paths = ContainerPaths(tmp_path)
    write_failure(paths, "ours")
    write_failure(paths, "later")
    assert paths.failure.read_text(encoding="utf-8") == "ours"
