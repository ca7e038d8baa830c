from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.serving.errors import MIB, InsufficientMemoryError, ModelExistsError
from mooring.serving.eviction import Eviction
from mooring.serving.lifecycle import State
from mooring.serving.residency import DEATHS_COUNT_FOR_S, ModelRecord, ResidencyTable

PLENTY = 1 << 40


def admit(table: ResidencyTable, name: str, size: int, now: float = 0.0, available: int = PLENTY) -> list[str]:
    record, victims = table.admit(
        name, url=name, path=Path(name), kind="onnx", artifact_bytes=size, available=available, now=now
    )
    record.enter(State.LOADING)
    record.enter(State.READY)
    table.measured(record, size)
    for victim in victims:
        victim.enter(State.DRAINING)
        table.remove(victim)
    return [victim.name for victim in victims]


def lru(budget: int) -> ResidencyTable:
    table = ResidencyTable(budget, Eviction.LRU)
    table.factors["onnx"] = 1.0
    return table


def test_model_loaded_twice_is_refused() -> None:
    table = lru(100 * MIB)
    admit(table, "a", 10 * MIB)
    with pytest.raises(ModelExistsError):
        admit(table, "a", 10 * MIB)


def test_least_recently_used_model_makes_room() -> None:
    table = lru(100 * MIB)
    for now, name in enumerate(["a", "b", "c"]):
        admit(table, name, 30 * MIB, now=now)
    table.records["a"].last_used = 10
    assert admit(table, "d", 30 * MIB, now=11) == ["b"]


def test_model_in_use_is_not_evicted() -> None:
    table = lru(100 * MIB)
    admit(table, "busy", 60 * MIB, now=0)
    table.records["busy"].leases = 1
    admit(table, "idle", 30 * MIB, now=1)
    assert admit(table, "new", 30 * MIB, now=2) == ["idle"]


def test_pinned_model_is_not_evicted() -> None:
    table = lru(100 * MIB)
    admit(table, "pinned", 90 * MIB)
    table.records["pinned"].is_pinned = True
    with pytest.raises(InsufficientMemoryError) as refusal:
        admit(table, "new", 30 * MIB)
    assert not refusal.value.may_pass


def test_refusal_tells_whether_busy_models_would_make_room() -> None:
    for eviction, may_pass in ((Eviction.LRU, True), (Eviction.REUSE, True), (Eviction.PLATFORM, False)):
        table = lru(100 * MIB)
        table.eviction = eviction
        admit(table, "busy", 90 * MIB)
        table.records["busy"].leases = 1
        with pytest.raises(InsufficientMemoryError) as refusal:
            admit(table, "new", 30 * MIB)
        assert refusal.value.may_pass is may_pass
        with pytest.raises(InsufficientMemoryError) as refusal:
            admit(table, "huge", 110 * MIB)
        assert not refusal.value.may_pass


def test_loads_at_the_same_time_send_each_other_no_more_models_away_than_each_needs() -> None:
    """A victim's bytes were held against the next load until they were back, so that it evicted for both."""
    table = lru(100 * MIB)
    for now, name in enumerate(["a", "b", "c", "d"]):
        admit(table, name, 25 * MIB, now=now)
    sent_away = []
    for name in ("new", "next", "third"):
        _, going = table.admit(name, url="", path=Path(), kind="onnx", artifact_bytes=25 * MIB, available=PLENTY, now=9)
        victims = [record for record in going if record.state is State.READY]
        sent_away.append([victim.name for victim in victims])
        for victim in victims:
            victim.enter(State.DRAINING)
    assert sent_away == [["a"], ["b"], ["c"]]


def test_load_waits_for_those_whose_memory_it_was_promised() -> None:
    table = lru(100 * MIB)
    admit(table, "large", 90 * MIB)
    table.records["large"].enter(State.DRAINING)
    _, going = table.admit("new", url="", path=Path(), kind="onnx", artifact_bytes=50 * MIB, available=PLENTY, now=1)
    assert [record.name for record in going] == ["large"]


def test_model_that_drains_requests_is_not_counted_on() -> None:
    """It may take minutes, and a platform that hears 507 unloads another."""
    table = ResidencyTable(100 * MIB)
    admit(table, "draining", 60 * MIB)
    table.records["draining"].leases = 1
    table.records["draining"].enter(State.DRAINING)
    with pytest.raises(InsufficientMemoryError):
        admit(table, "new", 60 * MIB)


def test_nothing_is_evicted_where_it_would_not_be_enough() -> None:
    table = lru(100 * MIB)
    admit(table, "a", 30 * MIB)
    with pytest.raises(InsufficientMemoryError):
        admit(table, "huge", 200 * MIB)
    assert list(table.records) == ["a"]


def test_under_the_platform_nothing_is_evicted() -> None:
    table = ResidencyTable(100 * MIB)
    admit(table, "a", 60 * MIB)
    with pytest.raises(InsufficientMemoryError, match=r"needs 60\.0 MiB but 40\.0 MiB of 100\.0 MiB is free"):
        admit(table, "b", 60 * MIB)


def test_machine_without_memory_refuses_although_the_budget_would_allow() -> None:
    with pytest.raises(InsufficientMemoryError):
        admit(lru(PLENTY), "a", 10 * MIB, available=5 * MIB)


def test_estimate_follows_what_models_of_the_kind_needed() -> None:
    table = ResidencyTable(PLENTY)
    for index in range(20):
        record, _ = table.admit(
            f"m{index}", url="", path=Path(), kind="onnx", artifact_bytes=10 * MIB, available=PLENTY, now=0
        )
        table.measured(record, 30 * MIB)
    assert 29 * MIB < table.estimate("onnx", 10 * MIB) <= 30 * MIB


def test_small_models_teach_nothing() -> None:
    table = ResidencyTable(PLENTY)
    record, _ = table.admit("tiny", url="", path=Path(), kind="onnx", artifact_bytes=100, available=PLENTY, now=0)
    table.measured(record, 10 * MIB)
    assert table.factors == {}


def test_one_noisy_measurement_does_not_shut_the_others_out() -> None:
    table = ResidencyTable(14 * MIB)
    record, _ = table.admit("a", url="", path=Path(), kind="onnx", artifact_bytes=4 * MIB, available=PLENTY, now=0)
    table.measured(record, 60 * MIB)
    table.remove(record)
    assert table.estimate("onnx", 4 * MIB) <= table.budget


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 120), st.booleans()), max_size=60))
def test_the_budget_holds_whatever_is_asked(asked: list[tuple[str, int, bool]]) -> None:
    """Random loads with random leases: used bytes never pass the budget, leased models never leave."""
    table = lru(200 * MIB)
    for now, (name, size, is_leased) in enumerate(asked):
        leased = {record.name for record in table.records.values() if record.leases}
        try:
            admit(table, name, size * MIB, now=now)
        except InsufficientMemoryError:
            continue
        except ModelExistsError:
            table.records[name].leases = int(is_leased)
            continue
        assert leased <= set(table.records)
        assert table.used <= table.budget


def test_record_is_idle_only_when_ready_and_unleased() -> None:
    record = ModelRecord(1, "m", "", Path(), "onnx", 1, 1)
    assert not record.is_idle
    record.enter(State.LOADING)
    record.enter(State.READY)
    assert record.is_idle
    record.leases = 1
    assert not record.is_idle


def test_deaths_count_until_the_last_of_them_is_long_past() -> None:
    record = ModelRecord(1, "m", "", Path(), "onnx", 1, 1)
    for now in (0.0, DEATHS_COUNT_FOR_S, 2 * DEATHS_COUNT_FOR_S):
        record.died(now)
    assert record.recent_deaths(3 * DEATHS_COUNT_FOR_S) == 3
    assert record.recent_deaths(3 * DEATHS_COUNT_FOR_S + 1) == 0
    record.died(4 * DEATHS_COUNT_FOR_S)
    assert (record.recent_deaths(4 * DEATHS_COUNT_FOR_S), record.deaths) == (1, 4)


def test_weights_that_models_share_count_once() -> None:
    table = ResidencyTable(100 * MIB)
    for name in ("a", "b"):
        record, _ = table.admit(name, url="", path=Path(), kind="onnx", artifact_bytes=100, available=PLENTY, now=0)
        table.measured(record, MIB)
        table.maps(record, {"same": 30 * MIB, name: 5 * MIB})
    assert table.used == (1 + 1 + 30 + 5 + 5) * MIB
    table.remove(table.records["a"])
    assert table.used == (1 + 30 + 5) * MIB
    table.maps(table.records["b"], {})
    assert table.used == MIB
    table.remove(table.records["b"])
    assert (table.used, table.contents) == (0, {})


def test_loads_under_way_are_held_against_what_the_machine_has_left() -> None:
    table = ResidencyTable(PLENTY)
    for name in ("a", "b"):
        table.admit(name, url="", path=Path(), kind="onnx", artifact_bytes=20 * MIB, available=64 * MIB, now=0)
    with pytest.raises(InsufficientMemoryError):
        table.admit("c", url="", path=Path(), kind="onnx", artifact_bytes=20 * MIB, available=64 * MIB, now=0)
