"""Docker through its command line: what it is asked is a list of words, and this asks it.

A failure is an error that says what Docker said; a secret goes in by standard input, never among the words.
"""

import re
import subprocess
from collections.abc import Callable, Sequence

from mooring.contract.errors import PlatformError

DOCKER = "docker"
# What Docker says, and what would help; the first that fits.
HELP = (
    (
        r"cannot connect to the docker daemon|is the docker daemon running",
        "Start the Docker engine, or name it with DOCKER_HOST",
    ),
    (r"permission denied.*docker", "Let this user talk to the Docker engine (its group is called docker as a rule)"),
    (
        r"no such image|unable to find image|pull access denied",
        "Build the image first, or name another; `docker images` lists them",
    ),
    (r"port is already allocated|address already in use", "Stop what uses the port, or choose another with --port"),
    (r"immutable", "Tags of this repository cannot be moved; choose another with --tag"),
    (r"not authorized|denied|no basic auth", "The credentials need the right to push to this repository"),
    (r"no space left", "Free some room; `docker system df` tells what takes it"),
)


class DockerNotFoundError(PlatformError):
    """There is no docker command."""

    def __init__(self) -> None:
        super().__init__("There is no command 'docker' on PATH. Install Docker, or do without an image.")


class DockerError(PlatformError):
    """Docker did not do what it was asked."""

    def __init__(self, command: Sequence[str], code: int, said: str) -> None:
        self.command = tuple(command)
        self.code = code
        self.said = said
        what = " ".join(command[:2])
        super().__init__(f"`{what}` ended with {code}: {said or 'it did not say why'}{_help(said)}")


def ask(command: Sequence[str], on_line: Callable[[str], object] = lambda _: None, *, secret: str | None = None) -> str:
    """Run a docker command to its end, and return what it printed; each line is relayed as it comes.

    Raises `DockerNotFoundError`, `DockerError`.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if secret is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise DockerNotFoundError from error
    with process:
        if secret is not None:
            assert process.stdin is not None
            process.stdin.write(secret)
            process.stdin.close()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            on_line(line)
    if process.returncode:
        raise DockerError(command, process.returncode, last_words(lines))
    return "".join(lines)


def last_words(lines: Sequence[str]) -> str:
    """Return the last line that says something: the cause, where a program has failed."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _help(said: str) -> str:
    found = (help_ for pattern, help_ in HELP if re.search(pattern, said, re.IGNORECASE))
    return f". {advice}." if (advice := next(found, "")) else ""
