"""Counters that never fall, whatever models do: against a count of everything that was ever counted."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mooring.serving.ledger import MOST_NAMES, OTHERS, Ledger
from mooring.serving.residency import ModelRecord

MOST = 2


def model(number: int, name: str) -> ModelRecord:
    return ModelRecord(number, name, "", Path(), "onnx", 0, 0)


def ledger(most: int = MOST) -> Ledger:
    return Ledger(most, lambda record: {"": [record.hits]})


def told(books: Ledger, records: list[ModelRecord]) -> dict[str, float]:
    busiest = sorted(records, key=lambda record: -record.hits)
    return {name: counts[""][0] for name, counts in books.told(busiest) if counts}


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["ask", "go", "scrape"])), max_size=80))
def test_no_count_falls_and_none_is_lost_or_told_twice(steps: list[tuple[int, str]]) -> None:
    books = ledger()
    here: dict[str, ModelRecord] = {}
    seen: dict[str, float] = {}
    asked = 0

    def scrape() -> None:
        now = told(books, [*here.values()])
        assert all(value >= seen.get(name, 0) for name, value in now.items())
        seen.update(now)

    for index, (number, step) in enumerate(steps):
        name = f"m{number}"
        if step == "ask":
            here.setdefault(name, model(index, name)).hits += 1
            asked += 1
        elif step == "go" and name in here:
            books.close(here.pop(name))
        elif step == "scrape":
            scrape()
    scrape()
    assert sum(seen.values()) == asked


def test_name_of_its_own_begins_where_the_others_count_ends() -> None:
    books = ledger(most=1)
    first, second = model(1, "first"), model(2, "second")
    first.hits, second.hits = 10, 5
    assert told(books, [first, second]) == {"first": 10, OTHERS: 5}
    second.hits = 12
    assert told(books, [first, second]) == {"second": 7, OTHERS: 5}
    first.hits = 13
    assert told(books, [first, second]) == {"first": 10 + 3, OTHERS: 5}


def test_names_that_are_remembered_are_bounded() -> None:
    books = ledger()
    for number in range(2 * MOST_NAMES):
        record = model(number, f"m{number}")
        record.hits = 1
        told(books, [record])
        books.close(record)
    assert len(books._named) == MOST_NAMES
    assert len(books._booked) == 0
