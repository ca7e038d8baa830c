"""What a run needs of the machine beside Python."""

import shutil

TOOLS = {"wrk": "apt-get install wrk"}


def missing_tools() -> list[str]:
    """Return a sentence for each that is not on PATH."""
    return [f"There is no {tool} on PATH: {how}." for tool, how in TOOLS.items() if shutil.which(tool) is None]
