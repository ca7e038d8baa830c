"""The states a model passes through and the moves between them. A table, and one function that applies a move."""

from enum import Enum

from mooring.contract.errors import MooringError


class State(Enum):
    """Where a model stands between not being here and answering."""

    ABSENT = "absent"
    QUEUED = "queued"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


LEGAL_MOVES: dict[State, frozenset[State]] = {
    State.ABSENT: frozenset({State.QUEUED}),
    # Straight to absent: unloaded before its load began, or while it went on.
    State.QUEUED: frozenset({State.LOADING, State.FAILED, State.ABSENT}),
    State.LOADING: frozenset({State.WARMING, State.READY, State.FAILED, State.ABSENT, State.QUEUED}),
    State.WARMING: frozenset({State.READY, State.FAILED, State.ABSENT, State.QUEUED}),
    # Ready to queued: its host died and it is loaded again elsewhere.
    State.READY: frozenset({State.DRAINING, State.QUEUED, State.FAILED}),
    State.DRAINING: frozenset({State.ABSENT}),
    State.FAILED: frozenset({State.ABSENT, State.QUEUED}),
}


class IllegalMoveError(MooringError):
    """A model was told to enter a state that its present one does not lead to."""

    def __init__(self, name: str, current: State, wanted: State) -> None:
        self.name = name
        self.current = current
        self.wanted = wanted
        allowed = ", ".join(sorted(state.value for state in LEGAL_MOVES[current]))
        super().__init__(
            f"Model '{name}' is {current.value} and cannot become {wanted.value}; it may become: {allowed}."
        )


def move(name: str, current: State, wanted: State) -> State:
    """Return `wanted` if the table allows it. Raises `IllegalMoveError`, which names both states."""
    if wanted not in LEGAL_MOVES[current]:
        raise IllegalMoveError(name, current, wanted)
    return wanted
