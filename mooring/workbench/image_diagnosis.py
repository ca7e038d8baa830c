"""What a platform would make of an image, by Docker's description of it and its files: nothing of it is run."""

import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mooring.runner.image import ImageFacts, exported

from .conformance.image import BIND_TO_PORT, MULTI_MODELS, init_of, is_promised, shell_of

COMMANDS = {"train": "training jobs", "serve": "endpoints"}
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of all that is installed, what decides how models run.
SHOWN = ("mooring", "torch", "transformers", "onnxruntime", "onnxruntime-gpu")
DISTRIBUTION = re.compile(r".*/(?P<name>[^/]+?)-(?P<version>[^/-]+)\.dist-info/METADATA")
# What the NVIDIA container runtime mounts. A copy in the image is of another version than the machine's module.
DRIVER = re.compile(r"usr/lib(?:64|/[^/]+)?/lib(?:cuda|nvidia-ml)\.so\.[\d.]+")
FOR_ALL = 0o005  # read and execute, for the user that a platform may choose


@dataclass
class Diagnosis:
    """What was found: where each command lies, versions by package, and files that are not to be there."""

    facts: ImageFacts
    commands: dict[str, str] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)  # commands that only some users may start
    versions: dict[str, str] = field(default_factory=dict)
    drivers: list[str] = field(default_factory=list)

    @property
    def problems(self) -> Iterator[str]:
        """What would fail on the platform, with what would help."""
        entrypoint = self.facts.entrypoint
        if not self.commands and not entrypoint:
            yield "neither `train` nor `serve` is on PATH, and there is no ENTRYPOINT: build FROM an image with them"
        if shell_of(entrypoint):
            yield "ENTRYPOINT is a shell, which passes no signals on and takes no `train`: write it as a list"
        if init := init_of(entrypoint):
            yield f"ENTRYPOINT is {init}, which takes the first word for itself: name the program itself"
        if {"onnxruntime", "onnxruntime-gpu"} <= self.versions.keys():
            yield "onnxruntime and onnxruntime-gpu are both there, and overwrite each other: uninstall onnxruntime"
        for path in self.drivers:
            yield f"/{path} is a part of NVIDIA's driver, which the platform mounts from its machine: leave it out"
        for path in self.closed:
            yield f"{path} may not be started by every user: chmod a+rx"

    @property
    def lines(self) -> Iterator[str]:
        """What it is, a fact a line."""
        facts = self.facts
        yield f"image       {facts.id}, {facts.system}/{facts.architecture}, {facts.size_bytes / 1e6:,.0f} MB"
        for name, purpose in COMMANDS.items():
            yield f"{name:12}{self.commands.get(name) or f'not there: no {purpose}'}"
        if facts.entrypoint:
            yield f"entrypoint  {' '.join(facts.entrypoint)}, which is given `train` or `serve`"
        yield f"many models {self._label(MULTI_MODELS)}"
        yield f"pipelines   {self._label(BIND_TO_PORT)}"
        found = (f"{name} {self.versions[name]}" for name in SHOWN if name in self.versions)
        yield f"packages    {', '.join(found) or 'none of ' + ', '.join(SHOWN)}"
        yield from (f"problem     {problem}" for problem in self.problems)

    def _label(self, name: str) -> str:
        if is_promised(self.facts.labels, name):
            return f"yes: it has the label {name}"
        return f"no: it lacks LABEL {name}=true"


def diagnose_image(facts: ImageFacts, on_bytes: Callable[[int], object] = lambda _: None) -> Diagnosis:
    """Look through an image's files; `on_bytes` hears of each one's size. Raises `DockerError`."""
    with exported(facts.name) as archive:
        return look_through(facts, archive, on_bytes)


def look_through(
    facts: ImageFacts, archive: tarfile.TarFile, on_bytes: Callable[[int], object] = lambda _: None
) -> Diagnosis:
    """Return what an image is, by an archive of its files that is read to its end."""
    found = Diagnosis(facts)
    places = _places(facts.search_path or DEFAULT_PATH)
    for member in archive:
        on_bytes(member.size)
        path = posixpath.normpath(f"/{member.name}")
        name = posixpath.basename(path)
        if member.isdir():
            continue
        if path in places and places[path] < places.get(found.commands.get(name, ""), len(places)):
            found.commands[name] = path
            # A link's own mode says nothing.
            if not member.issym() and member.mode & FOR_ALL != FOR_ALL:
                found.closed.append(path)
        elif DRIVER.fullmatch(path[1:]):
            found.drivers.append(path[1:])
        elif match := DISTRIBUTION.fullmatch(path):
            found.versions.setdefault(match["name"].lower().replace("_", "-"), match["version"])
    return found


def _places(search_path: str) -> Mapping[str, int]:
    """Return where commands may lie, and how early each place is looked at."""
    folders = [folder for folder in search_path.split(":") if folder.startswith("/")]
    paths = [posixpath.normpath(posixpath.join(folder, name)) for folder in folders for name in COMMANDS]
    return {path: order for order, path in reversed([*enumerate(paths)])}
