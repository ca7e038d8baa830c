"""A front's end of its connection to the front door: whatever a client asks goes there, and the answers come back."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from . import relay
from .awaited import AwaitedInvocation
from .frames import Kind
from .invocation import Invocation
from .invocation_link import InvocationLink


class HomeLink(InvocationLink):
    """Sends requests of both lanes to the front door. `on_lost()` is called when that has ended."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__(os.getppid())
        self._on_lost = on_lost

    def tell(self, refused: bytes) -> None:
        """Say that connections may come, and how many requests were refused here since the last time."""
        self._tell(Kind.TALLY, 0, body=refused)

    def invoke(self, invocation: Invocation) -> None:
        """Send a request for a model. The front door names it."""
        invocation.is_named = True
        invocation.started = monotonic()
        invocation.meta = relay.express_meta(invocation.name, invocation.meta)
        self.infer(relay.EXPRESS, invocation)

    def relay(self, scope: Mapping[str, Any], content: bytes, file: Path | None) -> AwaitedInvocation:
        """Send any other request, whose content is in a file if one is given."""
        invocation = AwaitedInvocation("", b"", relay.ordinary_body(scope, content, file))
        invocation.started = monotonic()
        self.infer(relay.ORDINARY, invocation)
        return invocation

    def connection_lost(self, exc: Exception | None) -> None:
        """Without the front door there is nothing to serve."""
        self._on_lost()
