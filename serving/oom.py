"""Whom the kernel takes when memory runs out: a host, never the front door."""

import contextlib
from pathlib import Path

HOST_SCORE = 500


def prefer_this_process() -> None:
    """Mark this process as the one to kill first. Raising one's own score needs no privilege."""
    with contextlib.suppress(OSError):  # a /proc that is not Linux's, or mounted read-only
        Path("/proc/self/oom_score_adj").write_text(str(HOST_SCORE), encoding="ascii")
