"""Installing what code requires: into the environment for a job, into a folder of its own for a model.

A model's packages lie before the image's, and hold only what the image lacks or has in another version.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from mooring.contract.errors import SettingError, UserCodeError

from .publish import publish_folder

logger = logging.getLogger(__name__)

REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"
# What an image was built around: no requirement of a script or model may replace it.
PINNED = ("torch", "torchvision", "torchaudio", "mooring")
REPOSITORY_VARIABLE = "CA_REPOSITORY_ARN"
CACHE_VARIABLE = "MOORING_SITE_CACHE"
TAIL_LINES = 8


class InstallError(UserCodeError):
    """What the code requires cannot be installed."""

    def __init__(self, command: str, output: str) -> None:
        self.output = output
        tail = "\n".join(output.strip().splitlines()[-TAIL_LINES:])
        super().__init__(
            f"{command} failed. Without network, put the wheels into a folder '{WHEELS}' beside {REQUIREMENTS}.\n{tail}"
        )


def install(wanted: Sequence[str], wheels: Path, variables: Mapping[str, str]) -> None:
    """Install into this environment, with uv if it is there, else with pip. Raises `InstallError`."""
    uv = shutil.which("uv")
    start = [uv, "pip", "install", "--python", sys.executable] if uv else [*_pip(), "install"]
    shown = f"{'uv ' if uv else ''}pip install {' '.join(wanted)}"
    logger.info("%s", shown)
    with _options(wheels, variables) as options:
        process = subprocess.Popen(
            [*start, *options, *wanted], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            sys.stderr.write(line)
            lines.append(line)
        if process.wait() != 0:
            raise InstallError(shown, "".join(lines))


def site_folder(requirements: Path, variables: Mapping[str, str]) -> Path:
    """Return a folder with what a model requires, to come first in `sys.path`; installed once per content.

    Raises `InstallError`.
    """
    wheels = requirements.parent / WHEELS
    cache = _cache(variables)
    target = cache / _content(requirements, wheels)
    # Several workers of a model start at once; one installs.
    with (cache / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _install_into(target, requirements, wheels, variables)
    return target


def _install_into(target: Path, requirements: Path, wheels: Path, variables: Mapping[str, str]) -> None:
    with _options(wheels, variables) as options, tempfile.TemporaryDirectory(prefix="mooring-pip-") as folder:
        # Asked first what is missing beside what the image has, since `--target` would install all of it again.
        report = Path(folder) / "report.json"
        asked = ["install", "--dry-run", "--quiet", "--report", str(report), *options, "-r", str(requirements)]
        _run_pip(asked, f"pip install -r {requirements.name}")
        missing = [
            f"{item['metadata']['name']}=={item['metadata']['version']}"
            for item in json.loads(report.read_text(encoding="utf-8"))["install"]
        ]
        with publish_folder(target) as beside:
            if missing:
                wanted = ["install", "--no-deps", "--target", str(beside), *options, *missing]
                _run_pip(wanted, f"pip install {' '.join(missing)}")
        logger.info("%s is installed: %s.", requirements.name, ", ".join(missing) or "nothing was missing")


def _run_pip(arguments: Sequence[str], shown: str) -> None:
    done = subprocess.run(
        [*_pip(), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise InstallError(shown, done.stdout)


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def _cache(variables: Mapping[str, str]) -> Path:
    """Return the cache's folder, made for this user alone: what lies in it is imported."""
    given = variables.get(CACHE_VARIABLE)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"mooring-site-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise SettingError(CACHE_VARIABLE, str(folder), "a folder that belongs to this user and only they may write")
    return folder


def _content(requirements: Path, wheels: Path) -> str:
    """Return a name for what would be installed: the same text, wheels and interpreter give the same name."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}\n".encode())
    digest.update(requirements.read_bytes())
    for wheel in sorted(wheels.glob("*")) if wheels.is_dir() else ():
        digest.update(f"{wheel.name}:{wheel.stat().st_size}\n".encode())
    return digest.hexdigest()[:32]


@contextmanager
def _options(wheels: Path, variables: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield pip's options: where packages come from, and what may not be replaced."""
    with tempfile.TemporaryDirectory(prefix="mooring-pip-") as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(_installed_pins()), encoding="utf-8")
        options = ["-c", str(constraints)]
        if wheels.is_dir():
            options += ["--no-index", "--find-links", str(wheels)]
        elif REPOSITORY_VARIABLE in variables:
            options += ["--index-url", _code_artifact(variables[REPOSITORY_VARIABLE])]
        yield options


def _installed_pins() -> list[str]:
    pins = []
    for name in PINNED:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}\n")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def _code_artifact(arn: str) -> str:
    """Return the index address of an AWS CodeArtifact repository, with a token that is good for some hours."""
    # arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/REPOSITORY
    parts = arn.split(":")
    names = parts[-1].split("/")
    if len(parts) != 6 or len(names) != 3:
        raise SettingError(REPOSITORY_VARIABLE, arn, "arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/NAME")
    import boto3

    region, account, (_, domain, repository) = parts[3], parts[4], names
    client = boto3.client("codeartifact", region_name=region)
    token = client.get_authorization_token(domain=domain, domainOwner=account)["authorizationToken"]
    endpoint = client.get_repository_endpoint(domain=domain, domainOwner=account, repository=repository, format="pypi")[
        "repositoryEndpoint"
    ]
    return f"https://aws:{quote(token)}@{endpoint.removeprefix('https://')}simple/"
