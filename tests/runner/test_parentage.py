"""What processes arrange with their children."""

import subprocess
import sys

FORKS = """
import os, threading
from mooring.runner.parentage import fork_beside_threads
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
child = fork_beside_threads()
if child == 0:
    os._exit(7)
done.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_process_with_threads_forks_without_a_warning() -> None:
    """A line on standard error that is no JSON would be among the logs."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKS], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("7\n", "")
