"""What a run is to measure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Rounds, their length, and whom they concern."""

    rounds: int = 5
    seconds: float = 3.0
    clients: tuple[int, ...] = (1, 16, 64)
    only: tuple[str, ...] = ()  # keys of contestants; none: all
    is_quick: bool = False
    is_resumed: bool = False

    def takes(self, name: str) -> bool:
        """Whether somebody takes part."""
        return not self.only or key_of(name) in self.only

    def settings(self) -> dict[str, object]:
        """Return what decides whether results can be put together."""
        return {
            "rounds": self.rounds,
            "seconds": self.seconds,
            "clients": list(self.clients),
            "is_quick": self.is_quick,
        }


def key_of(name: str) -> str:
    """Return the name as it is typed.

    >>> key_of("raw loop")
    'raw-loop'
    """
    return name.lower().replace(" ", "-").replace(",", "")


def unknown(only: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return those of `only` that nobody has for a name."""
    known = {key_of(name) for name in names}
    return [name for name in only if name not in known]
