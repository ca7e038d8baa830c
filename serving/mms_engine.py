"""multi-model-server as the engine: its Java front end and its workers, with our handlers inside them.

It is for those who must stay on it, and what our own engine is compared with. The same folders and requests get the
same answers. These remain as it has them:

- `/ping` is 200 from the start, whatever becomes of the models; a request that comes while the one model loads waits.
- A model that does not load is answered with 500 "Failed to start workers", the reason is in the log. Out of memory
  is 507, after which the model counts as loaded, without a worker, until it is deleted.
- A path that must not be loaded is "not found", 404. Ports end at 32,766. Models are listed by name.
- A load may take no longer than a request: `response_seconds`. A request that takes longer is answered with 500.
- Nothing is unloaded to make room, nothing is loaded on demand: a repository's models all load at the start.
- Unloading and stopping do not wait for requests under way.
- One model per process, its code on the path before the standard library until our service has removed it.
- No streams: answers are joined. A form is taken apart and put together again: of two fields of one name the last
  is left.
- A model whose `MAR-INF/MANIFEST.json` names a handler runs that handler itself, without ours.
- Whoever reaches the port may load and unload; only below the models' folder here, and never from an address.
- Killed with SIGKILL, this process takes Java along, but the listening process of each model stays behind.
"""

import importlib.util
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mooring.contract.errors import MooringError, PlatformError, SettingError, UserCodeError
from mooring.handler.resolve import choose_handler
from mooring.runner.parentage import adopt_orphans, die_with, end_children

from .mms_config import UNPACKED, MmsPlan, for_one_model, jar, plan
from .repository import ARCHIVE_SUFFIXES, Repository, Unpacker, model_name
from .settings import SHUTDOWN_DRAIN_S, Mode, ServerSettings
from .socket_binding import bind

logger = logging.getLogger(__name__)

HOW_TO_INSTALL = "Install it with: pip install 'mooring[mms]'"
# It compares ports with the largest 16-bit number that has a sign.
LARGEST_PORT = 32766
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
# How often it is looked what has happened.
POLL_S = 0.2
# What is left of workers has nothing to finish.
WORKERS_END_S = 5.0
# How a Java virtual machine that was told to stop says so.
STOPPED = (0, 128 + signal.SIGTERM)


class MissingEngineError(PlatformError):
    """multi-model-server, or the Java that it runs on, is not installed."""

    def __init__(self, what: str, help_: str) -> None:
        self.what = what
        super().__init__(f"--engine mms needs {what}, which is not here. {help_}")


class EngineEndedError(PlatformError):
    """The Java server ended although nobody asked it to."""

    def __init__(self, code: int) -> None:
        self.code = code
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"multi-model-server {how}; what it printed above says why.")


class ModelNotServedError(UserCodeError):
    """The one model of a single-model server did not load."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"The model in '{path}' cannot be served: {reason}")


def serve(settings: ServerSettings, variables: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code 0.

    Raises `MissingEngineError`, `PortInUseError` and what is wrong with the model before anything is started;
    `ModelNotServedError` if the one model does not load, `EngineEndedError` if the Java server ends unasked.
    """
    java, home = find_java(variables), find_package()
    check_address(settings)
    bind(settings.host, settings.port).close()  # Java would say it after the models have loaded
    with tempfile.TemporaryDirectory(prefix="mooring-mms-", ignore_cleanup_errors=True) as folder:
        settings, models = _models(settings, variables, Unpacker(Path(folder) / UNPACKED))
        made = plan(settings, variables, models, java=java, home=home, folder=Path(folder))
        _write(made)
        logger.info("multi-model-server: %s", settings.described())
        return _Run(made, settings.root).until_stopped()


def find_java(variables: Mapping[str, str]) -> str:
    """Return the Java to run: that of JAVA_HOME, or the one on PATH. Raises `MissingEngineError`."""
    home = variables.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java") if home else shutil.which("java", path=variables.get("PATH"))
    if java is None:
        where = f"Java in JAVA_HOME, {home}" if home else "Java on PATH"
        raise MissingEngineError(where, "On Debian it is the package openjdk-17-jre-headless.")
    return java


def find_package() -> Path:
    """Return the folder that the package `mms` lies in. Raises `MissingEngineError`."""
    if importlib.util.find_spec("psutil") is None:
        raise MissingEngineError("the package psutil, which workers of multi-model-server import", HOW_TO_INSTALL)
    spec = importlib.util.find_spec("mms")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if jar(Path(place).parent).is_file():
            return Path(place).parent
    raise MissingEngineError("the package multi-model-server", HOW_TO_INSTALL)


def check_address(settings: ServerSettings) -> None:
    """Raise `SettingError` for an address that multi-model-server would refuse once all models are loaded."""
    if ":" in settings.host:
        raise SettingError("--host", settings.host, "an IPv4 address or a name: multi-model-server knows no others")
    if settings.port > LARGEST_PORT:
        raise SettingError("--port", str(settings.port), f"{LARGEST_PORT} or less: multi-model-server takes no others")


# --- what is served ---------------------------------------------------------------------------------------------------


def _models(
    settings: ServerSettings, variables: Mapping[str, str], unpacker: Unpacker
) -> tuple[ServerSettings, dict[str, Path]]:
    """Return the models to load at the start, and the settings as the one model's configuration changes them."""
    if settings.mode is Mode.MULTI:
        return settings, {}
    if settings.mode is Mode.REPOSITORY:
        return settings, _all_below(settings.root, variables, unpacker)
    folder = Path(os.path.realpath(unpacker.folder(settings.root)))
    if "," in str(folder):
        raise SettingError("--model", str(folder), "a path without commas, at which multi-model-server divides a list")
    config = choose_handler(folder, variables).config
    return replace(settings, limits=for_one_model(settings.limits, config)), {settings.limits.model_name: folder}


def _all_below(root: Path, variables: Mapping[str, str], unpacker: Unpacker) -> dict[str, Path]:
    """Return what can be served of a repository; what cannot is logged with its reason, and left out."""
    found = {}
    repository = Repository(root)
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.name.endswith(ARCHIVE_SUFFIXES)):
            continue
        try:
            folder = unpacker.folder(repository.resolve(model_name(path), str(path)))
            choose_handler(folder, variables)
        except (MooringError, OSError) as error:
            logger.warning("'%s' is left out: %s", path.name, error)
            continue
        name = model_name(path)
        if "," in f"{name}{folder}" or "=" in name:
            logger.warning("'%s' is left out: multi-model-server cannot read its name in a list.", path)
        else:
            found[name] = folder
    return found


def _write(made: MmsPlan) -> None:
    for file, text in made.files.items():
        file.write_text(text, encoding="utf-8")
    # The shortest first: what lies below another's end can be reached by it already.
    for link, target in sorted(made.links.items(), key=lambda pair: len(str(pair[0]))):
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


# --- running ----------------------------------------------------------------------------------------------------------


class _Run:
    """The Java server while it runs. Signals wait until they are asked for, so that none comes between two steps."""

    def __init__(self, made: MmsPlan, root: Path) -> None:
        self._plan = made
        self._root = root
        self._java = 0

    def until_stopped(self) -> int:
        # Workers whose own parent was killed become ours to reap, as they do where this is a container's first process.
        adopt_orphans()
        # Never let through again: a second SIGTERM must not change the exit code while this process is on its way out.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            self._java = _start(self._plan, before)
            return self._watch()
        finally:
            end_children(WORKERS_END_S)

    def _watch(self) -> int:
        while True:
            # Not sigtimedwait: where its time is over while the process stands still, it returns what lay in memory.
            time.sleep(POLL_S)
            heard = {signal.sigwait({number}) for number in signal.sigpending() & set(HEARD)}
            code = self._reap()
            for number in heard - {signal.SIGCHLD}:
                logger.info("%s received: stopping multi-model-server.", signal.Signals(number).name)
                self._stop(code)
                return 0
            if code is not None:
                raise EngineEndedError(code)
            self._look_at_first_load()

    def _look_at_first_load(self) -> None:
        # It would be tried again for ever, with requests waiting for it.
        if self._plan.first_load.is_file() and (reason := self._plan.first_load.read_text(encoding="utf-8")):
            self._stop(None)
            raise ModelNotServedError(self._root, reason)

    def _stop(self, code: int | None) -> None:
        """End the Java server; what does not end when told to is killed."""
        if code is None:
            os.kill(self._java, signal.SIGTERM)
            code = _wait(self._reap, SHUTDOWN_DRAIN_S)
        if code not in STOPPED:
            logger.warning("multi-model-server ended with %s.", code)

    def _reap(self) -> int | None:
        """Take the exit status of all that has ended, and return the Java server's, None while it runs."""
        code = None
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._java:
                    code = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            pass
        return code


def _start(made: MmsPlan, mask: Iterable[int]) -> int:
    """Start the Java server in a session of its own, so that a terminal's Ctrl-C reaches us alone."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with(parent)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execve(made.command[0], made.command, made.variables)  # noqa: S606 - no shell is what is wanted
    finally:
        os._exit(127)


def _wait(ended: Callable[[], int | None], seconds: float) -> int | None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        code = ended()
        if code is not None:
            return code
        signal.sigtimedwait([signal.SIGCHLD], POLL_S)  # whatever it returns
    return None
