"""Which idle model goes, by each policy."""

from dataclasses import dataclass

import pytest

from benchmarks.eviction import hit_rate
from mooring.serving.eviction import Eviction, History, victims


@dataclass
class Idle:
    name: str
    last_used: float
    bytes: int = 10


def used(**times: list[float]) -> History:
    history = History()
    for now, name in sorted((now, name) for name, uses in times.items() for now in uses):
        history.used(name, now)
    return history


def test_model_wanted_again_last_goes_although_another_was_used_longer_ago() -> None:
    history = used(daily=[0, 100, 200], often=[180, 185, 190, 195])
    idle = [Idle("daily", 200), Idle("often", 195)]
    assert [record.name for record in victims(Eviction.REUSE, idle, 5, history, 201)] == ["daily"]
    assert [record.name for record in victims(Eviction.LRU, idle, 5, history, 201)] == ["often"]


def test_model_seen_once_goes_before_any_that_came_back() -> None:
    history = used(rarely=[0, 1000], once=[1500])
    idle = [Idle("rarely", 1000), Idle("once", 1500)]
    assert [record.name for record in victims(Eviction.REUSE, idle, 5, history, 1501)] == ["once"]


def test_no_more_go_than_are_needed() -> None:
    idle = [Idle(str(number), number) for number in range(5)]
    assert len(victims(Eviction.LRU, idle, 21, History(), 9)) == 3
    assert victims(Eviction.LRU, idle, 0, History(), 9) == []
    assert victims(Eviction.PLATFORM, idle, 21, History(), 9) == []


@pytest.mark.parametrize("factor", [1.25, 2])
def test_models_asked_in_turn_do_not_thrash_to_a_standstill(factor: float) -> None:
    models = int(100 * factor)
    requests = [index % models for index in range(models * 12)]
    assert hit_rate(Eviction.LRU, requests) == 0
    assert hit_rate(Eviction.REUSE, requests) > 0.8 * (100 / models - 0.2)
