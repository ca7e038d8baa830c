"""The user's code: fetched to where the platform expects it, with what it requires installed. Run before any rank."""

import importlib.metadata
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from mooring.artifact.archive import extract
from mooring.artifact.store import fetch, is_s3
from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import UserCodeError

from .entry_point import EntryPointError, is_package

logger = logging.getLogger(__name__)

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"
# What an image was built around: no requirement of a script may replace it.
PINNED = ("torch", "torchvision", "torchaudio", "mooring")
REPOSITORY_VARIABLE = "CA_REPOSITORY_ARN"
TAIL_LINES = 8


class InstallError(UserCodeError):
    """What the code requires cannot be installed."""

    def __init__(self, command: str, output: str) -> None:
        self.output = output
        tail = "\n".join(output.strip().splitlines()[-TAIL_LINES:])
        super().__init__(
            f"{command} failed. Without network, put the wheels into a folder '{WHEELS}' beside {REQUIREMENTS}.\n{tail}"
        )


def needs_preparation(environment: TrainingEnvironment) -> bool:
    """Whether there is anything to fetch or to install."""
    code = environment.paths.code
    is_elsewhere = environment.submit_directory not in (None, str(code))
    return environment.program is not None and (
        is_elsewhere or (code / REQUIREMENTS).is_file() or is_package(environment.program, code)
    )


def prepare_code(environment: TrainingEnvironment) -> None:
    """Fetch the code and install what it requires.

    Raises `EntryPointError`, `StoreError`, `UnsafeArchiveError`, `DamagedArchiveError`, `InstallError`.
    """
    assert environment.program is not None
    code = environment.paths.code
    if environment.submit_directory is not None:
        fetch_code(environment.submit_directory, code, environment.variables)
    install(environment.program, code, environment.variables)


def fetch_code(given: str, code: Path, variables: Mapping[str, str]) -> None:
    """Put code into a folder: from an archive in S3 or here, from a folder, or a single file.

    Code that an image brings along is left alone, as by the earlier toolkit, but that is said.
    """
    if Path(given) == code:
        return
    if code.is_dir() and any(code.iterdir()):
        logger.warning("%s holds code already, so the submit directory %s is not fetched", code, given)
        return
    with tempfile.TemporaryDirectory(prefix="mooring-code-") as folder:
        source = Path(given)
        if is_s3(given):
            source = Path(folder) / given.rsplit("/", 1)[-1]
            fetch(given, source, variables)
        _place(source, code)
    found = sorted(str(path.relative_to(code)) for path in code.rglob("*") if path.is_file())
    logger.info("code from %s: %d file(s), %s", given, len(found), ", ".join(found[:10]))


def _place(source: Path, code: Path) -> None:
    code.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, code, dirs_exist_ok=True)
    elif source.is_file() and source.name.endswith(ARCHIVES):
        _unpack(source, code)
    elif source.is_file():
        shutil.copy(source, code)
    else:
        raise EntryPointError(f"The submit directory {source} does not exist.")


def _unpack(archive: Path, code: Path) -> None:
    """Unpack into a folder that may be a mount point, onto which nothing can be renamed."""
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=code) as beside:
        folder = Path(beside) / "code"
        extract(archive, folder)
        for entry in folder.iterdir():
            entry.replace(code / entry.name)


# --- installing -------------------------------------------------------------------------------------------------------


def install(program: str, code: Path, variables: Mapping[str, str]) -> None:
    """Install the code if it is a package, and what its requirements.txt names. Raises `InstallError`."""
    wanted = [str(code)] if is_package(program, code) else []
    if (code / REQUIREMENTS).is_file():
        wanted += ["-r", str(code / REQUIREMENTS)]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(prefix="mooring-pip-") as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(_installed_pins()), encoding="utf-8")
        options = ["-c", str(constraints)]
        wheels = code / WHEELS
        if wheels.is_dir():
            options += ["--no-index", "--find-links", str(wheels)]
        elif REPOSITORY_VARIABLE in variables:
            options += ["--index-url", _code_artifact(variables[REPOSITORY_VARIABLE])]
        _run(wanted, options)


def _run(wanted: list[str], options: list[str]) -> None:
    """Install with uv if it is there, else with pip. What it prints is passed on, and kept for the error."""
    uv = shutil.which("uv")
    start = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    shown = f"{'uv ' if uv else ''}pip install {' '.join(wanted)}"
    logger.info("%s", shown)
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
        raise EntryPointError(
            f'{REPOSITORY_VARIABLE} is "{arn}"; expected arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/NAME.'
        )
    import boto3

    region, account, (_, domain, repository) = parts[3], parts[4], names
    client = boto3.client("codeartifact", region_name=region)
    token = client.get_authorization_token(domain=domain, domainOwner=account)["authorizationToken"]
    endpoint = client.get_repository_endpoint(domain=domain, domainOwner=account, repository=repository, format="pypi")[
        "repositoryEndpoint"
    ]
    return f"https://aws:{quote(token)}@{endpoint.removeprefix('https://')}simple/"
