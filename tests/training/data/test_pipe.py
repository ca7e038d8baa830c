"""Pipe mode with real FIFOs and the processes that write to them, whatever those do."""

import gzip
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import write_config

from mooring.artifact.recordio import frame
from mooring.training import Augmented, Csv, DataPosition, Lines, channel
from mooring.training.data import passes
from mooring.training.data.channel import InputChannel, InputModeError
from mooring.training.data.pipe import PipeError, PipeTimeoutError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's folder, as a container has it that has just started."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(passes, "_next_numbers", {})
    (tmp_path / "input/data").mkdir(parents=True)
    return tmp_path


def pipe_channel(base: Path, **fields: object) -> InputChannel:
    description = {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"} | fields
    write_config(base, "inputdataconfig.json", {"train": description})
    return channel("train")


class Writers:
    """Processes that write FIFOs, as the platform's agent does beside a container."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "input/data"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, number: int, content: bytes, how: str = "fifo.write(content)", name: str = "train") -> Path:
        """Make the FIFO of a pass, and a process that writes to it."""
        fifo = self.folder / f"{name}_{number}"
        os.mkfifo(fifo)
        source = self.folder.parent / f"content-{name}-{number}"
        source.write_bytes(content)
        code = f"import os, sys, time\ncontent = open({str(source)!r}, 'rb').read()\n"
        code += f"fifo = open({str(fifo)!r}, 'wb', buffering=0)\n{how}\n"
        self.processes.append(subprocess.Popen([sys.executable, "-S", "-c", code], stderr=subprocess.DEVNULL))
        return fifo


@pytest.fixture
def writers(base: Path) -> Iterator[Writers]:
    started = Writers(base)
    yield started
    for process in started.processes:
        process.kill()
        process.wait()


def records(count: int, first: int = 0) -> list[bytes]:
    return [b"%d:" % number + bytes(number % 7) for number in range(first, first + count)]


def framed(contents: list[bytes]) -> bytes:
    return b"".join(map(frame, contents))


def flat(batches: Iterable[Any]) -> list[Any]:
    return [record for batch in batches for record in batch]


def read_until_error(batches: Iterable[Any], kind: type[Exception], message: str) -> list[Any]:
    """Return what came before an error of that kind and message."""
    read: list[Any] = []
    with pytest.raises(kind, match=message):  # noqa: PT012 - what came before it counts
        for batch in batches:
            read += batch
    return read


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.01)


def test_epochs_are_read_from_one_fifo_after_the_other(base: Path, writers: Writers) -> None:
    position = DataPosition()
    batches = pipe_channel(base).batches(4, position)
    writers.start(0, framed(records(8)))
    writers.start(1, framed(records(8, first=100)))
    assert flat(batches) == records(8)
    assert batches.is_exhausted
    position.epoch = 1
    assert flat(batches) == records(8, first=100)


def test_new_iteration_opens_the_next_fifo_for_another_object_too(base: Path, writers: Writers) -> None:
    """Validation makes its batches anew in every epoch; the platform counts on."""
    train = pipe_channel(base)
    writers.start(0, framed(records(3)))
    writers.start(1, framed(records(5)))
    assert len(flat(train.batches(2, drop_last=False))) == 3
    assert len(flat(train.batches(2, drop_last=False))) == 5


def test_last_samples_that_fill_no_batch_are_left_out_unless_asked_for(base: Path, writers: Writers) -> None:
    train = pipe_channel(base)
    writers.start(0, framed(records(7)))
    writers.start(1, framed(records(7)))
    assert [len(batch) for batch in train.batches(3)] == [3, 3]
    assert [len(batch) for batch in train.batches(3, drop_last=False)] == [3, 3, 1]


def test_fifo_that_comes_late_is_waited_for_and_told(
    base: Path, writers: Writers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(flat(pipe_channel(base).batches(1))))
    reader.start()
    wait_until(lambda: "train_0: it is not there" in caplog.text)
    writers.start(0, framed(records(3)))
    reader.join(timeout=30)
    assert read == records(3)


def test_fifo_that_never_comes_is_named_with_those_there_are(base: Path) -> None:
    os.mkfifo(base / "input/data/train_1")
    with pytest.raises(PipeTimeoutError, match=r"train_0: it is not there after 0 s; beside it there are: train_1\."):
        list(pipe_channel(base).batches(1, wait_s=0.2))


def test_fifo_that_nobody_writes_to_is_told_apart(base: Path) -> None:
    os.mkfifo(base / "input/data/train_0")
    with pytest.raises(PipeTimeoutError, match="nobody has opened it to write"):
        list(pipe_channel(base).batches(1, wait_s=0.2))


def test_writer_that_falls_silent_is_told_after_what_it_sent(base: Path, writers: Writers) -> None:
    writers.start(0, framed(records(2)), how="fifo.write(content); time.sleep(600)")
    batches = pipe_channel(base).batches(1, wait_s=0.3)
    assert read_until_error(batches, PipeTimeoutError, "its writer sends nothing") == records(2)


def test_what_is_no_fifo_is_not_read(base: Path) -> None:
    (base / "input/data/train_0").mkdir()
    with pytest.raises(PipeError, match="is no FIFO, though the channel's input mode is Pipe"):
        list(pipe_channel(base).batches(1))


def test_empty_epoch_has_no_batches(base: Path, writers: Writers) -> None:
    batches = pipe_channel(base).batches(1)
    writers.start(0, b"")
    writers.start(1, framed(records(2)))
    assert flat(batches) == []
    assert batches.is_exhausted
    assert flat(batches) == records(2)


def test_bytes_that_dribble_make_the_same_records(base: Path, writers: Writers) -> None:
    slowly = "for at in range(len(content)):\n    fifo.write(content[at : at + 1])\n    time.sleep(0.001)"
    writers.start(0, framed(records(12)), how=slowly)
    assert flat(pipe_channel(base).batches(4)) == records(12)


def test_sample_is_given_as_soon_as_it_is_there(base: Path, writers: Writers) -> None:
    """A writer that waits does not keep back what it has sent."""
    done = base / "done"
    until = f"fifo.write(content)\nwhile not os.path.exists({str(done)!r}): time.sleep(0.01)\nfifo.write(content)"
    writers.start(0, framed(records(2)), how=until)
    batches = iter(pipe_channel(base).batches(2))
    assert next(batches) == records(2)
    done.touch()
    assert next(batches) == records(2)


@pytest.mark.parametrize("cut", [1, 5, 9, 30])
def test_writer_that_dies_within_a_record_is_told_by_record_and_byte(base: Path, writers: Writers, cut: int) -> None:
    whole = framed(records(3))
    writers.start(0, whole + frame(b"x" * 24)[:cut], how="fifo.write(content); os.kill(os.getpid(), 9)")
    expected = rf"train_0: channel 'train': the writer ended within record 4, which begins at byte {len(whole)}"
    assert read_until_error(pipe_channel(base).batches(1), PipeError, expected) == records(3)


def test_garbage_is_told_by_record_and_byte(base: Path, writers: Writers) -> None:
    writers.start(0, framed(records(2)) + b"garbage garbage")
    with pytest.raises(Exception, match=r"train_0, record 3 at byte 24: it begins with 67617262") as caught:
        list(pipe_channel(base).batches(1))
    assert "MooringError" in {kind.__name__ for kind in type(caught.value).__mro__}


def test_lines_are_read_from_a_pipe_whose_content_type_says_so(base: Path, writers: Writers) -> None:
    writers.start(0, b"1,2.5\n\n0,3\r\n1,4")
    train = pipe_channel(base, RecordWrapperType="None", ContentType="text/csv;label_size=1")
    read = [(features.tolist(), labels.tolist()) for features, labels in train.batches(1)]
    assert read == [([[2.5]], [1.0]), ([[3.0]], [0.0]), ([[4.0]], [1.0])]


@pytest.mark.parametrize("compression", ["Gzip", "None"])
def test_compressed_pipe_is_unpacked_even_if_it_dribbles(base: Path, writers: Writers, compression: str) -> None:
    packed = gzip.compress(b"one\ntwo\n") + gzip.compress(b"three\n")
    writers.start(0, packed, how="for at in range(len(content)):\n    fifo.write(content[at : at + 1])")
    train = pipe_channel(base, RecordWrapperType="None", CompressionType=compression)
    assert flat(train.batches(3, sample_format=Lines())) == ["one", "two", "three"]


def test_compressed_pipe_that_ends_early_is_told(base: Path, writers: Writers) -> None:
    writers.start(0, gzip.compress(os.urandom(5000))[:-100])
    train = pipe_channel(base, RecordWrapperType="None", CompressionType="Gzip")
    with pytest.raises(Exception, match="train_0: its gzip ends before it does"):
        list(train.batches(1, sample_format=Lines()))


def test_attributes_of_an_augmented_manifest_come_in_turn(base: Path, writers: Writers) -> None:
    content = framed([b"\xff\xd8image", b"1", b"cat", b"\xff\xd8other", b'{"a": [2]}', b'"dog"'])
    writers.start(0, content)
    batches = pipe_channel(base).batches(1, None, Augmented("source-ref", "class", "name"), collate=lambda items: items)
    assert flat(batches) == [
        {"source-ref": b"\xff\xd8image", "class": 1, "name": "cat"},
        {"source-ref": b"\xff\xd8other", "class": {"a": [2]}, "name": "dog"},
    ]


def test_sample_without_its_last_attributes_is_told(base: Path, writers: Writers) -> None:
    writers.start(0, framed([b"image", b"1", b"other"]))
    with pytest.raises(Exception, match=r"sample 2: ends after 1 of its 2 attributes \(source-ref, class\)"):
        list(pipe_channel(base).batches(1, None, Augmented("source-ref", "class")))


def test_early_end_closes_the_fifo_and_the_writer_learns_of_it(base: Path, writers: Writers) -> None:
    until_broken = "try:\n    while True: fifo.write(content)\nexcept BrokenPipeError:\n    sys.exit(32)"
    writers.start(0, framed(records(50)), how=until_broken)
    writers.start(1, framed(records(2)))
    batches = pipe_channel(base).batches(2)
    for batch in batches:
        assert batch == records(2)
        break
    assert writers.processes[0].wait(timeout=30) == 32
    assert flat(batches) == records(2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_fifo_that_was_read_to_its_end_is_closed_before_the_loop_is_done_with_it(base: Path, writers: Writers) -> None:
    fifo = writers.start(0, framed(records(4)))
    batches = iter(pipe_channel(base).batches(2))
    next(batches)
    wait_until(lambda: str(fifo) not in open_files())


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found


def test_what_is_read_ahead_is_bounded(base: Path, writers: Writers) -> None:
    written = base / "written"
    until_held_up = f"""
import select
os.set_blocking(fifo.fileno(), False)
room = select.poll()
room.register(fifo, select.POLLOUT)
written, rest = 0, content
while written < 200_000_000 and room.poll(1500):
    size = fifo.write(rest) or 0
    written, rest = written + size, rest[size:] or content
open({str(written)!r} + ".part", "w").write(str(written))
os.rename({str(written)!r} + ".part", {str(written)!r})
time.sleep(600)
"""
    writers.start(0, frame(bytes(100_000)) * 10, how=until_held_up)
    batches = iter(pipe_channel(base).batches(1))
    next(batches)
    wait_until(written.exists)
    assert int(written.read_text()) < 20_000_000


def test_second_reader_of_a_fifo_is_refused(base: Path, writers: Writers) -> None:
    """What one of two readers gets, the other never sees."""
    writers.start(0, framed(records(2)), how="fifo.write(content); time.sleep(600)")
    train = pipe_channel(base)
    first = iter(train.batches(1))
    next(first)
    passes._next_numbers.clear()
    with pytest.raises(PipeError, match="another process reads it; a FIFO has one reader"):
        list(train.batches(1))


def test_workers_are_refused_with_the_reason(base: Path) -> None:
    with pytest.raises(InputModeError, match="has input mode Pipe: one process can read it"):
        pipe_channel(base).batches(1, num_workers=2)


def test_files_and_rows_of_a_pipe_are_refused(base: Path) -> None:
    train = pipe_channel(base)
    for wrong in (train.files, train.rows):
        with pytest.raises(InputModeError, match=r"read it with batches\(\)"):
            wrong()


def test_resumed_run_reads_each_sample_once(base: Path, writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new container begins at FIFO 0 whatever the epoch; what was consumed is passed over."""
    position = DataPosition(epoch=3)
    train = pipe_channel(base)
    fifo = writers.start(0, framed(records(12)))
    read = []
    for batch in train.batches(2, position, shuffle=5, seed=4):
        read += batch
        position.consumed += 2
        if position.consumed == 6:
            break
    monkeypatch.setattr(passes, "_next_numbers", {})  # the next container
    fifo.unlink()
    writers.start(0, framed(records(12)))
    for batch in train.batches(2, position, shuffle=5, seed=4):
        read += batch
    assert sorted(read) == sorted(records(12))
    assert read != records(12)


def test_resumed_run_says_that_the_platform_shuffles_otherwise(
    base: Path, writers: Writers, caplog: pytest.LogCaptureFixture
) -> None:
    writers.start(0, framed(records(4)))
    train = pipe_channel(base, ShuffleConfig={"Seed": 7})
    list(train.batches(2, DataPosition(epoch=3, consumed=2)))
    assert "the platform shuffles by the number of the FIFO" in caplog.text


def test_ranks_that_are_started_again_go_on_at_the_newest_fifo(
    base: Path, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container is the same, and so its pipes are where they were."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    os.mkfifo(base / "input/data/train_0")
    os.mkfifo(base / "input/data/train_9")
    writers.start(10, framed(records(2)))
    assert flat(pipe_channel(base).batches(1)) == records(2)


# A loop as docs/data.md shows it; prints what it has read, and its position when it stops.
LOOP = """
import sys
from mooring.training import DataPosition, StopRequest, channel, process_group
with process_group(), StopRequest() as stop:
    position = DataPosition()
    batches = channel("train").batches(1, position)
    print("listening", flush=True)
    while not stop.agreed():
        for batch in batches:
            position.consumed += 1
            print("read", batch[0].decode(), flush=True)
            if stop.agreed():
                break
        if batches.is_exhausted:
            position.epoch, position.consumed = position.epoch + 1, 0
    print("stopped at", position.epoch, position.consumed, flush=True)
"""


@pytest.mark.parametrize("sent", [None, 0, 2], ids=["no-fifo", "no-writer", "silent-writer"])
def test_stop_ends_a_wait_at_once_and_the_loop_can_save(base: Path, writers: Writers, sent: int | None) -> None:
    write_config(
        base, "inputdataconfig.json", {"train": {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}}
    )
    if sent == 0:
        os.mkfifo(base / "input/data/train_0")
    elif sent:
        writers.start(0, framed([b"a", b"b"]) + frame(b"never whole")[:-3], how="fifo.write(content); time.sleep(600)")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SAGEMAKER_BASE_DIR": str(base)}
    process = subprocess.Popen([sys.executable, "-c", LOOP], env=environment, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        for expected in ("listening\n", *(["read a\n", "read b\n"] if sent else [])):
            assert process.stdout.readline() == expected
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == f"stopped at 0 {sent or 0}\n"
        assert process.wait(timeout=30) == 0
    if sent:
        assert writers.processes[0].poll() is None
        assert not re.search("train_0", str(open_files()))


def test_csv_of_the_wrong_kind_is_told_by_line_and_column(base: Path, writers: Writers) -> None:
    writers.start(0, b"1,2\n3,four\n")
    train = pipe_channel(base, RecordWrapperType="None")
    with pytest.raises(Exception, match=r'train_0, line 2, column 2: "four" is not a number$'):
        list(train.batches(1, None, Csv()))
