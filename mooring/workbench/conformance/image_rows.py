"""Rows about the image itself: what it is started with, what is in it, and under what conditions it starts."""

from functools import partial

from .bench import Bench
from .finding import Finding, NotApplicableError, Outcome, judged
from .image import BIND_TO_PORT, COMMANDS, MULTI_MODELS, init_of, shell_of
from .row import Part, row
from .samples import SHOWS_WHAT_IT_SEES
from .server import NotHealthyError
from .servers import Conditions

_row = partial(row, Part.IMAGE)

GIGABYTE = 1 << 30
MEGABYTE = 1 << 20
SERVERLESS_BYTES = 10 * GIGABYTE
OTHER_USER = "12345"
# What SDK v3's own driver scripts call.
SDK_COMMANDS = ("bash", "chmod", "pip")
PYTHONS = ("python3", "python")


@_row(
    "1.1",
    "an ENTRYPOINT, if any, is a program in exec form",
    "ENTRYPOINT is in exec form and no tini, so that the program gets signals and the word `train` or `serve`.",
)
def entrypoint(bench: Bench) -> Finding:
    """An image without ENTRYPOINT runs `train` and `serve` from PATH."""
    words = bench.subject.facts.entrypoint
    if not words:
        return judged(True, "There is no ENTRYPOINT: `train` and `serve` are found on PATH.")
    shell, init = shell_of(words), init_of(words)
    return judged(
        not shell and not init,
        f"ENTRYPOINT is {list(words)}.",
        "A shell passes no signals on, and takes no `train` or `serve`: write ENTRYPOINT as a list."
        if shell
        else f"Name the program itself in ENTRYPOINT, without {init}.",
    )


@_row(
    "1.1",
    "`train` or `serve` can be started",
    "A job is started as `docker run IMAGE train`, a server as `docker run IMAGE serve`.",
)
def commands(bench: Bench) -> Finding:
    """One of the two is enough."""
    facts = bench.subject.facts
    if not facts.has_shell:
        raise NotApplicableError("There is no shell in the image, so its commands are not to be seen.")
    found = [name for name in ("train", "serve") if name in facts.commands]
    on_path = f"On PATH: {', '.join(found) or 'neither train nor serve'}."
    if facts.entrypoint:
        return judged(True, f"{on_path} ENTRYPOINT gets the word.")
    return judged(bool(found), on_path, "Put an executable file of that name on PATH, or name a program in ENTRYPOINT.")


@_row(
    "1.15",
    "SDK v3 finds what its driver scripts call",
    "SDK v3 starts /bin/bash in place of `train`; its scripts call chmod, python and pip.",
)
def sdk_commands(bench: Bench) -> Finding:
    """torchrun is called for distributed jobs only, so it is told of and not asked for."""
    if why_not := bench.subject.why_not(Part.TRAINING):
        raise NotApplicableError(why_not)
    found = bench.subject.facts.commands
    missing = [name for name in SDK_COMMANDS if name not in found]
    if not found.intersection(PYTHONS):
        missing.append("python3")
    more = "" if "torchrun" in found else " There is no torchrun, which distributed jobs of SDK v3 are started with."
    if missing:
        return judged(False, f"Not on PATH: {', '.join(missing)}.", "Install them; a job of SDK v3 cannot start.")
    return judged(True, f"On PATH: {', '.join(name for name in COMMANDS if name in found)}.{more}")


@_row(
    "3.1", "labels tell what it is able to", "Labels say whether it holds many models and binds to a port it is told."
)
def labels(bench: Bench) -> Finding:
    """A label that is there has to say true; one that is not there is a choice."""
    known = {name: value for name, value in bench.subject.facts.labels.items() if name in (MULTI_MODELS, BIND_TO_PORT)}
    if not known:
        raise NotApplicableError("It has none, so it gets one model, and no part in a pipeline.")
    shown = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in sorted(known.items()))
    return judged(all(value == "true" for value in known.values()), f"{shown}.", "The platform looks for `true`.")


@_row("1.1", "it brings no NVIDIA driver", "The driver is the host's, and must not be in the image.")
def no_driver(bench: Bench) -> Finding:
    """CUDA's libraries may be there; the driver's are put in by the container runtime."""
    if not bench.subject.facts.has_shell:
        raise NotApplicableError("There is no shell in the image, so its files are not to be seen.")
    found = bench.subject.facts.drivers
    seen = f"Found {', '.join(found)}." if found else "No libcuda or libnvidia-ml of a driver is in it."
    return judged(not found, seen, "Leave out NVIDIA's driver packages; the CUDA libraries are enough.")


@_row("2.9", "its size", "An image for serverless endpoints has at most 10 GB.")
def size(bench: Bench) -> Finding:
    """Elsewhere no size is too large, so a larger image has not failed."""
    size_bytes = bench.subject.facts.size_bytes
    if size_bytes > SERVERLESS_BYTES:
        raise NotApplicableError(
            f"{size_bytes / GIGABYTE:,.1f} GB: too much for a serverless endpoint, and only there."
        )
    return judged(True, f"{size_bytes / MEGABYTE:,.0f} MB.")


@_row("2.9", "it runs as another user", "Files in the image are readable for all, so that it runs without root.")
def other_user(bench: Bench) -> Finding:
    """A user that the image knows nothing of."""
    return _runs(bench, f"as user {OTHER_USER}", "--user", OTHER_USER)


@_row("2.9", "it runs with a read-only root", "What is written, is written below /tmp or where the platform mounts.")
def read_only_root(bench: Bench) -> Finding:
    """With a /tmp of its own, as a server without a disk has it."""
    return _runs(bench, "with a read-only root and a /tmp in memory", "--read-only", "--tmpfs", "/tmp")  # noqa: S108


def _runs(bench: Bench, how: str, *options: str) -> Finding:
    """Find out whether it serves, or trains where it does not serve, with some options of Docker."""
    if not bench.subject.why_not(Part.SERVING):
        bench.servers.shared()  # one that is not healthy in any case has not failed here
        try:
            with bench.servers.own(Conditions(options)) as server:
                return judged(True, f"It serves {how}, healthy after {server.start_seconds:.1f} s.")
        except NotHealthyError as error:
            return Finding(Outcome.FAILED, f"It does not serve {how}. {error}")
    if why_not := bench.subject.why_not(Part.TRAINING):
        raise NotApplicableError(why_not)
    script = None if bench.subject.given.has_job else SHOWS_WHAT_IT_SEES
    job = bench.jobs.run(script, options, is_open=True)
    return judged(job.code == 0, f"It was to train {how}. {job}")


ROWS = (entrypoint, commands, sdk_commands, labels, no_driver, size, other_user, read_only_root)
