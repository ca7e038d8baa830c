"""Files that a process may not read, and a process that may not read them, whoever runs the tests.

Root may read everything. So for root the files are another user's, and the process is root's without that right:
another user's might not be able to run the interpreter. Who is not root takes his own right to a file away.
"""

import os
from pathlib import Path

IS_ROOT = os.geteuid() == 0
OWNER = 12345 if IS_ROOT else os.geteuid()
# What to put before a command.
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all") if IS_ROOT else ()


def deny(path: Path) -> None:
    """Keep a file or folder from being read, as its owner's private one."""
    if IS_ROOT:
        os.chown(path, OWNER, OWNER)
    path.chmod((0o700 if path.is_dir() else 0o600) if IS_ROOT else 0)
