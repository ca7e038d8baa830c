"""A stand-in for the docker command, for machines without an engine: a program that a test puts on PATH.

It writes down what it was asked, and behaves as docker does for the few commands that we use. A container is a process
of this machine: what is mounted below /opt/ml lies, by links, in its SAGEMAKER_BASE_DIR; a published port is the one it
binds to.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = r'''
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).parent
WORDS = sys.argv[1:]
behaviour = json.loads((HERE / "behaviour.json").read_text())
# Options that stand alone; any other is followed by its value.
FLAGS = {"--rm", "--init", "--password-stdin", "--force", "-f", "--read-only"}


def options(words):
    """Split words into options, each a list of values, and what follows them."""
    found = {}
    while words and words[0].startswith("-"):
        name = words.pop(0)
        name, equals, value = name.partition("=")
        found.setdefault(name, []).append(value if equals else "" if name in FLAGS else words.pop(0))
    return found, words


def fail(said, code=1):
    print(said, file=sys.stderr)
    sys.exit(code)


def need_image(name, code=1):
    if name not in behaviour["images"]:
        fail(f"Error response from daemon: No such image: {name}", code)


def run(words):
    given, (image, *command) = options(words)
    need_image(image, 125)
    # An image of ours has this environment's commands; another has those of a folder, and what every machine has.
    own = behaviour["bins"].get(image)
    path = f"{own}:/usr/bin:/bin" if own else f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    if not own:
        environment["PYTHONUNBUFFERED"] = "1"
    for pair in given.get("--env", []):
        name, equals, value = pair.partition("=")
        environment[name] = value if equals else os.environ[name]
    name = given.get("--name", [f"unnamed-{os.getpid()}"])[0]
    base = HERE / name
    base.mkdir()
    environment["SAGEMAKER_BASE_DIR"] = str(base)
    for mount in given.get("--mount", []):
        fields = dict(field.partition("=")[::2] for field in mount.split(","))
        if not Path(fields["src"]).exists():
            fail(f"docker: invalid mount config: bind source path does not exist: {fields['src']}", 125)
        place = base / Path(fields["dst"]).relative_to("/opt/ml")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            place.rmdir()  # a folder that something is mounted on is empty here, by our own doing
        place.symlink_to(fields["src"])
    for port in given.get("--publish", []):
        environment["SAGEMAKER_BIND_TO_PORT"] = port.split(":")[-2]
    command = given.get("--entrypoint", []) + command
    command[0] = shutil.which(command[0], path=path) or command[0]
    try:
        container = subprocess.Popen(command, env=environment, start_new_session=True)
    except FileNotFoundError:
        fail(f"docker: exec: {command[0]}: executable file not found in $PATH", 127)
    partial = HERE / f".{name}"
    partial.write_text(str(container.pid))
    partial.rename(HERE / f"{name}.pid")
    code = container.wait()
    sys.exit(128 - code if code < 0 else code)


def pid_of(name):
    file = HERE / f"{name}.pid"
    if not file.exists():
        fail(f"Error response from daemon: No such container: {name}")
    return int(file.read_text())


def send(pid, number, group=False):
    try:
        os.killpg(pid, number) if group else os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def stop(words):
    given, (name,) = options(words)
    pid = pid_of(name)
    send(pid, signal.SIGTERM)
    limit = time.monotonic() + float(given["--time"][0])
    while send(pid, 0) and time.monotonic() < limit:
        time.sleep(0.01)
    send(pid, signal.SIGKILL, group=True)


def create(words):
    """A container that is not started yet: its name, and the archive of its image's files."""
    given, (image, *_) = options(words)
    need_image(image)
    (HERE / f"{given['--name'][0]}.created").write_text(str(HERE / f"{image.replace('/', '_')}.tar"))


def export(name):
    created = HERE / f"{name}.created"
    if not created.exists():
        fail(f"Error response from daemon: No such container: {name}")
    sys.stdout.buffer.write(Path(created.read_text()).read_bytes())


said = behaviour["failures"].get(WORDS[0])
secret = sys.stdin.read() if WORDS[0] == "login" else None
with (HERE / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({"words": WORDS, "secret": secret}) + "\n")
if said:
    fail(said)
if WORDS[0] == "run":
    run(WORDS[1:])
elif WORDS[0] == "stop":
    stop(WORDS[1:])
elif WORDS[0] == "create":
    create(WORDS[1:])
elif WORDS[0] == "export":
    export(WORDS[1])
elif WORDS[0] == "rm" and (HERE / f"{WORDS[-1]}.created").exists():
    (HERE / f"{WORDS[-1]}.created").unlink()
elif WORDS[0] == "rm":
    send(pid_of(WORDS[-1]), signal.SIGKILL, group=True)
elif WORDS[:2] == ["image", "inspect"] or WORDS[0] in ("tag", "pull"):
    image = WORDS[1] if WORDS[0] == "tag" else WORDS[-1]
    need_image(image)
    if WORDS[0] == "image":
        print("WARNING: Error loading config file", file=sys.stderr)
        print(json.dumps(behaviour["described"].get(image, {"Id": "sha256:0", "Config": {}, "Size": 1 << 20})))
elif WORDS[0] == "push":
    print("The push refers to repository [somewhere]")
elif WORDS[0] not in ("login", "build", "network"):
    fail(f"docker: '{WORDS[0]}' is not a docker command.")
'''


@dataclass
class DockerDouble:
    """The stand-in as its test sees it."""

    folder: Path

    def set(self, *images: str, **failures: str) -> None:
        """Say which images there are, and what a command fails with."""
        self._write({"images": list(images), "failures": failures, "described": {}, "bins": {}})

    def describe(self, image: str, config: Mapping[str, Any], commands: Path | None = None) -> None:
        """Say what an image, one more or known, is found to be, and where its commands lie if it is not one of ours."""
        self._describe(image, {"Id": "sha256:0", "Config": config, "Size": 1 << 20}, commands)

    def _describe(self, image: str, facts: Mapping[str, Any], commands: Path | None = None) -> None:
        behaviour = json.loads((self.folder / "behaviour.json").read_text(encoding="utf-8"))
        behaviour["images"].append(image)
        behaviour["described"][image] = facts
        if commands is not None:
            behaviour["bins"][image] = str(commands)
        self._write(behaviour)

    def _write(self, behaviour: Mapping[str, Any]) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")

    def hold(self, image: str, facts: dict[str, Any], archive: bytes) -> None:
        """Say what is known of an image, and what files it has."""
        self._describe(image, facts)
        (self.folder / f"{image.replace('/', '_')}.tar").write_bytes(archive)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What it was asked: words, and for a login the secret."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    @property
    def words(self) -> list[list[str]]:
        """What it was asked, in words."""
        return [call["words"] for call in self.calls]


def install(folder: Path) -> DockerDouble:
    """Write the program into a folder that is to be first on PATH, with one image called `flowers:3`."""
    folder.mkdir()
    (folder / "docker").write_text(f"#!{sys.executable} -ES\n{PROGRAM}", encoding="utf-8")
    (folder / "docker").chmod(0o755)
    double = DockerDouble(folder)
    double.set("flowers:3")
    return double
