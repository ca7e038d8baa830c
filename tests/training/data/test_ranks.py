"""Ranks and hosts that divide a channel: real processes, gloo, and shares of different sizes."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from jobs import write_config
from ranks import Ranks

from mooring.artifact.recordio import frame
from mooring.contract.channels import Distribution
from mooring.training.data.shares import BatchSizeError, Place, share_of_files, share_of_pipe

REPLICATED, SHARDED = Distribution.FULLY_REPLICATED, Distribution.SHARDED_BY_S3_KEY

# What each rank runs: a loop that reduces something in every step, as DDP does, and prints what it has read.
LOOP = """
import json, os
import torch, torch.distributed as dist
from mooring.training import DataPosition, Lines, Records, StopRequest, channel, data_loader, process_group
settings = json.loads(os.environ["SETTINGS"])
formats = {"lines": Lines(), "records": None}
read, epochs = [], []
with process_group() as group, StopRequest() as stop:
    position = DataPosition(settings.get("epoch", 0), settings.get("consumed", 0))
    size = settings["batch_size"]
    try:
        train = channel("train")
        if settings.get("rows"):
            rows = train.rows(Lines())
            end = train.sampler(rows, size, position, seed=1)
            batches = data_loader(rows, end)
        else:
            options = {name: settings[name] for name in ("shuffle", "by_file", "num_workers") if name in settings}
            batches = end = train.batches(size, position, formats[settings.get("format", "lines")], **options)
    except Exception as error:
        print(error, flush=True)
        dist.barrier()  # the others are to say what they have to say
        raise
    print("listening", flush=True)
    while position.epoch < settings["epochs"] and not stop.agreed():
        steps = 0
        for batch in batches:
            dist.all_reduce(torch.ones(1))
            read += [item.decode() if isinstance(item, bytes) else item for item in batch]
            position.consumed += size
            steps += 1
            if stop.agreed() or steps == settings.get("steps"):
                break
        epochs.append(steps)
        if not end.is_exhausted:
            break
        position.epoch, position.consumed = position.epoch + 1, 0
    print(json.dumps([read, epochs, position.epoch, position.consumed]), flush=True)
"""


def host(base: Path, files: Mapping[str, int | str], **fields: object) -> Path:
    """A host's folder; a file's content is so many lines that begin with its name."""
    fields = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"} | fields
    write_config(base, "inputdataconfig.json", {"train": fields})
    folder = base / "input/data/train"
    folder.mkdir(parents=True)
    for name, count in files.items():
        (folder / name).write_text("".join(f"{name}{number}\n" for number in range(int(count))), encoding="utf-8")
    return base


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_two_ranks_divide_every_batch_and_another_number_goes_on_where_they_were(tmp_path: Path) -> None:
    base = host(tmp_path, {"a": 30, "b": 34})
    settings = {"batch_size": 8, "epochs": 1, "shuffle": 20, "num_workers": 1}
    first = Ranks(LOOP, [base], 2, settings | {"steps": 3}).results()
    assert [result[1:] for result in first] == [[[3], 0, 24]] * 2
    (alone,) = Ranks(LOOP, [base], 1, settings | {"consumed": 24}).results()
    read = [*first[0][0], *first[1][0], *alone[0]]
    assert Counter(read) == Counter(names("a", 30) + names("b", 34))
    assert alone[2] == 1


@pytest.mark.parametrize("rows", [False, True])
def test_hosts_with_unequal_shards_take_equally_many_steps(tmp_path: Path, rows: bool) -> None:
    bases = [
        host(tmp_path / "1", {"a": 25}, S3DistributionType="ShardedByS3Key"),
        host(tmp_path / "2", {"b": 9}, S3DistributionType="ShardedByS3Key"),
    ]
    results = Ranks(LOOP, bases, 1, {"batch_size": 4, "epochs": 2, "rows": rows}).results()
    assert [result[1] for result in results] == [[4, 4], [4, 4]]
    for (read, *_), name, count in zip(results, "ab", (25, 9), strict=True):
        assert len(set(read[:8])) == 8
        assert set(read) <= set(names(name, count))
    if not rows:
        assert results[0][0][:8] == names("a", 8)


def test_ranks_with_files_of_their_own_take_equally_many_steps(tmp_path: Path) -> None:
    base = host(tmp_path, {"a": 10, "b": 3, "c": 2}, TrainingInputMode="FastFile")
    results = Ranks(LOOP, [base], 2, {"batch_size": 2, "epochs": 1}).results()
    assert [result[1] for result in results] == [[3], [3]]
    assert [result[0] for result in results] == [names("a", 3), names("b", 3)]


def test_host_without_files_is_an_error_on_all_ranks(tmp_path: Path) -> None:
    bases = [
        host(tmp_path / "1", {"a": 25}, S3DistributionType="ShardedByS3Key"),
        host(tmp_path / "2", {}, S3DistributionType="ShardedByS3Key"),
    ]
    for problem in Ranks(LOOP, bases, 1, {"batch_size": 4, "epochs": 1}).problems():
        assert "Channel 'train' has no files in" in problem
        assert "on algo-2. A channel that is ShardedByS3Key needs at least as many objects" in problem


def write_pipe(fifo: Path, content: bytes, *, then_wait: threading.Event | None = None) -> None:
    """Write to a FIFO from a thread, as the platform's agent would."""
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as stream:
            stream.write(content)
            if then_wait is not None:
                then_wait.wait(60)

    threading.Thread(target=write, daemon=True).start()


def pipes(base: Path, contents: list[list[str]], *, then_wait: threading.Event | None = None) -> Path:
    """A host's folder with a pipe for each rank."""
    fields = {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}
    channels = {f"train_{rank}": fields for rank in range(len(contents))}
    write_config(base, "inputdataconfig.json", channels)
    (base / "input/data").mkdir(parents=True)
    for rank, records in enumerate(contents):
        framed = b"".join(frame(record.encode()) for record in records)
        write_pipe(base / f"input/data/train_{rank}_0", framed, then_wait=then_wait)
    return base


def test_ranks_with_pipes_of_unequal_length_end_together(tmp_path: Path) -> None:
    base = pipes(tmp_path, [names("a", 7), names("b", 4)])
    results = Ranks(LOOP, [base], 2, {"batch_size": 2, "epochs": 1, "format": "records"}).results()
    assert [result[0] for result in results] == [names("a", 4), names("b", 4)]
    assert [result[1:] for result in results] == [[[4], 1, 0]] * 2


@pytest.fixture
def writers_wait() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("asked", [[1], [0, 1]])
def test_stop_while_one_rank_waits_for_data_ends_all_ranks_after_the_same_step(
    tmp_path: Path, writers_wait: threading.Event, asked: list[int]
) -> None:
    """Rank 1's pipe falls silent after two samples; rank 0 has more, and waits for rank 1."""
    base = pipes(tmp_path, [names("a", 9), names("b", 2)], then_wait=writers_wait)
    ranks = Ranks(LOOP, [base], 2, {"batch_size": 2, "epochs": 1, "format": "records"})
    ranks.wait_until_listening()
    for rank in asked:
        ranks.processes[rank].signal(signal.SIGTERM)
    results = ranks.results()
    assert results[0][1:] == results[1][1:]
    consumed = results[0][3]
    assert consumed <= 4
    assert [len(result[0]) for result in results] == [consumed // 2] * 2


def test_one_pipe_for_several_ranks_is_refused_on_all(tmp_path: Path) -> None:
    write_config(tmp_path, "inputdataconfig.json", {"train": {"TrainingInputMode": "Pipe"}})
    for problem in Ranks(LOOP, [tmp_path], 2, {"batch_size": 2, "epochs": 1}).problems():
        assert "2 ranks of this host cannot read one FIFO" in problem
        assert "train_0, train_1 (missing: train_0, train_1)" in problem


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def places(hosts: int, per_host: int) -> list[Place]:
    return [Place(rank, hosts * per_host, rank % per_host, per_host) for rank in range(hosts * per_host)]


@pytest.mark.parametrize(("hosts", "per_host"), [(1, 1), (1, 4), (3, 2)])
@pytest.mark.parametrize("is_by_file", [False, True])
def test_shares_of_files_cover_everything_once(hosts: int, per_host: int, is_by_file: bool) -> None:
    """On each host of a sharded channel, whose files are its own; on all hosts together otherwise."""
    samples = [(file, number) for file in range(8) for number in range(12)]
    for distribution in Distribution:
        taken: Counter[tuple[int, int, int]] = Counter()
        for place in places(hosts, per_host):
            share = share_of_files(place, distribution, is_by_file=is_by_file)
            first, step = share.files
            mine = [sample for sample in samples if sample[0] % step == first][share.index :: share.count]
            data = place.host if distribution is SHARDED else 0
            taken.update((data, *sample) for sample in mine)
        assert set(taken.values()) == {1}
        assert len(taken) == len(samples) * (hosts if distribution is SHARDED else 1)


def test_pipes_are_divided_among_hosts_that_get_the_same() -> None:
    shares = [share_of_pipe(place, REPLICATED) for place in places(3, 2)]
    assert [(share.index, share.count) for share in shares] == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3)]
    assert {share_of_pipe(place, SHARDED).count for place in places(3, 2)} == {1}


def test_batch_that_cannot_be_divided_is_refused_with_what_would_fit() -> None:
    share = share_of_pipe(places(2, 3)[0], REPLICATED)
    assert share.of(6) == 2
    with pytest.raises(BatchSizeError, match="The batch size is 8, over all ranks; expected a multiple of 3"):
        share.of(8)
