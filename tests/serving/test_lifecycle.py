import itertools

import pytest

from mooring.serving.lifecycle import LEGAL_MOVES, IllegalMoveError, State, move


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(State, State)))
def test_only_moves_in_the_table_are_made(current: State, wanted: State) -> None:
    if wanted in LEGAL_MOVES[current]:
        assert move("m", current, wanted) is wanted
    else:
        with pytest.raises(IllegalMoveError, match=f"'m' is {current.value} and cannot become {wanted.value}"):
            move("m", current, wanted)


def test_every_state_can_be_reached_from_absent() -> None:
    reached = {State.ABSENT}
    while True:
        further = set().union(*(LEGAL_MOVES[state] for state in reached)) - reached
        if not further:
            break
        reached |= further
    assert reached == set(State)
