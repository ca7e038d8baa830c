"""`make lock`: which files the images install, with hashes, for linux on amd64 and arm64.

Versions come from requirements/constraints.txt, names from the extras of pyproject.toml. uv resolves; what it finds is
divided into the layers of the Dockerfiles:

  base         pip
  build        what makes our own wheel
  torch        torch alone. Its hashes are those of every index's files: PyPI's (CUDA) and PyTorch's own (CPU, CUDA)
  cuda         what torch's CUDA build needs; not installed beside the CPU build
  inference-*  what serves without torch
  training-*   what trains, and serves everything
  mms          multi-model-server
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docker/requirements"
CONSTRAINTS = FOLDER / "constraints.txt"
# The SageMaker Python SDK, which tests run with our image; of v3 what trains and deploys in Local Mode.
SDK_FOLDER = ROOT / "tests/images/sdk"
SDKS = {
    "v2": ["sagemaker[local]==2.257.0"],
    "v3": ["sagemaker-core==2.27.0", "sagemaker-train==1.27.0", "docker"],
}
COMMAND = "make lock"
PYTHON = "3.11"
UV = f"uv pip compile --quiet --python-version={PYTHON} --no-header --no-annotate --no-config --system-certs".split()
# Kept apart by device: both provide the same import name.
RUNTIME, GPU_RUNTIME = "onnxruntime", "onnxruntime-gpu"
INFERENCE = ("serving", "audio")
TRAINING = ("training", "transformers", *INFERENCE)
# What else it asks for is for Python 2, for packing and for MXNet.
MMS = ("multi-model-server", "psutil")
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
TORCH = "torch"
# PyTorch's own indexes, by what they hold. Each lists its files with their hashes.
TORCH_INDEXES = ("cpu", "cu130")
TORCH_INDEX_URL = "https://download.pytorch.org/whl/{}/torch/"
TAGS = re.compile(r"-cp311-cp311-[^-]*(x86_64|aarch64)\.whl$")
TIMEOUT_S = 30.0
MACHINES = ("x86_64", "aarch64")

Entries = dict[str, str]  # a package's name -> its lines in a lock


def main() -> None:
    """Write all locks."""
    given = _arguments()
    training = {device: resolve(TRAINING, device) for device in ("cpu", "gpu")}
    torch = training["gpu"].pop(TORCH)
    training["cpu"].pop(TORCH)
    locks = {
        "base": resolve_names(["pip"]),
        "build": resolve_names(["setuptools"]),
        "torch": {TORCH: with_hashes(torch, torch_hashes(torch, given.wheels))},
        "cuda": {name: lines for name, lines in training["gpu"].items() if CUDA.match(name)},
        "mms": {name: lines for name, lines in resolve_names(["multi-model-server"]).items() if name in MMS},
    }
    for device, entries in training.items():
        locks[f"training-{device}"] = {name: lines for name, lines in entries.items() if not CUDA.match(name)}
        locks[f"inference-{device}"] = resolve(INFERENCE, device)
    for name, found in locks.items():
        _write(FOLDER / f"{name}.txt", found)
    for version, names in SDKS.items():
        _write(SDK_FOLDER / f"requirements-{version}.txt", resolve_names(names, constraints=None))


def _write(file: Path, found: Entries) -> None:
    text = "".join(found[name] for name in sorted(found))
    file.write_text(f"# Made by `{COMMAND}`.\n{text}", encoding="utf-8")
    print(f"{file.relative_to(ROOT)}: {len(found)} packages")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR", help="a folder of wheels; torch's are added to its hashes"
    )
    return parser.parse_args()


def resolve(extras: Sequence[str], device: str) -> Entries:
    """Return what our extras need on a device."""
    options = [str(ROOT / "pyproject.toml"), *(f"--extra={extra}" for extra in extras)]
    if device == "cpu":
        return compiled(options)
    # Nothing can be both absent and required, so the one is required nowhere.
    return compiled([*options, "--extra=gpu"], override=f"{RUNTIME} ; sys_platform == 'nowhere'\n")


def resolve_names(names: Iterable[str], constraints: Path | None = CONSTRAINTS) -> Entries:
    """Return what packages need."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(names))
        wanted.flush()
        return compiled([wanted.name], constraints=constraints)


def compiled(options: Sequence[str], override: str = "", constraints: Path | None = CONSTRAINTS) -> Entries:
    """Return what uv resolves for linux, by options of `uv pip compile`. Raises `CalledProcessError`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write(override)
        overrides.flush()
        command = [*UV, "--universal", "--generate-hashes", *options]
        command += [f"--override={overrides.name}", *([f"--constraint={constraints}"] if constraints else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {name: lines for name, lines in entries(done.stdout).items() if is_for_linux(lines)}


def is_for_linux(lines: str) -> bool:
    """Whether an entry is for one of our platforms; a lock for all platforms is what uv makes."""
    marker = Requirement(lines.splitlines()[0].removesuffix("\\")).marker
    places = ({"sys_platform": "linux", "platform_machine": machine} for machine in MACHINES)
    return marker is None or any(marker.evaluate(place) for place in places)


def entries(lock: str) -> Entries:
    """Return a lock's entries by name.

    >>> entries("a==1 \\\\\\n    --hash=sha256:00\\nb==2\\n")
    {'a': 'a==1 \\\\\\n    --hash=sha256:00\\n', 'b': 'b==2\\n'}
    """
    found: Entries = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if line[0].isalnum():
            name = line.partition("==")[0]
        if name and line.strip() and not line.startswith("#"):
            found[name] = found.get(name, "") + line
    return found


def torch_hashes(found: str, wheels: Path | None) -> set[str]:
    """Return the hashes of torch's files: those resolved, of PyTorch's indexes, of local wheels, and known ones."""
    hashes = set(re.findall(r"sha256:[0-9a-f]{64}", found))
    known = FOLDER / "torch.txt"
    version = found.partition("==")[2].split()[0]
    if known.exists() and f"{TORCH}=={version} " in (text := known.read_text(encoding="utf-8")):
        hashes |= set(re.findall(r"sha256:[0-9a-f]{64}", text))
    for index in TORCH_INDEXES:
        hashes |= _listed(TORCH_INDEX_URL.format(index), version)
    for wheel in sorted((wheels or Path("/nowhere")).glob(f"{TORCH}-{version}*.whl")):
        hashes.add(f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    return hashes


def _listed(url: str, version: str) -> set[str]:
    """Return the hashes that an index lists for a version; none, and a word about it, if it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - a constant above
            page = answer.read().decode()
    except OSError as error:
        print(f"{url} does not answer ({error}); the hashes that are known of its files are kept", file=sys.stderr)
        return set()
    names = re.findall(r'href="[^"]*/([^"/]+)#(sha256)=([0-9a-f]{64})"', page)
    ours = (name for name in names if re.match(rf"{TORCH}-{re.escape(version)}(%2B|\+|-)", name[0]))
    return {f"{kind}:{digest}" for name, kind, digest in ours if TAGS.search(name)}


def with_hashes(lines: str, hashes: Iterable[str]) -> str:
    """Return an entry of a lock with these hashes in place of its own."""
    first = lines.splitlines()[0].removesuffix("\\").rstrip()
    return " \\\n".join([first, *(f"    --hash={digest}" for digest in sorted(hashes))]) + "\n"


if __name__ == "__main__":
    main()
