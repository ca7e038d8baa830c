"""A selector whose waits can be looked at."""

import selectors


class NotingSelector(selectors.DefaultSelector):
    """A selector that notes for how long it was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.waits.append(timeout)
        return super().select(timeout)

    def sleeps(self) -> list[float | None]:
        """Return the waits since the last call that were not just looks."""
        waits, self.waits = self.waits, []
        return [seconds for seconds in waits if seconds != 0]
