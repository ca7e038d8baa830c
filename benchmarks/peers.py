"""Environments of those we are compared with, each its own, made once and kept beside ours."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PEERS = Path(sys.prefix) / "peers"
# Says what a finished environment holds; one made for other requirements is made again.
READY = "ready"


def peer_environment(name: str, *requirements: str, with_torch: bool = True) -> Path:
    """Return the folder of an environment's commands. Its packages come from the index, torch is ours where wanted."""
    home = PEERS / name
    wanted = "\n".join((*requirements, f"torch of ours: {with_torch}")) + "\n"
    ready = home / READY
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        print(f"setting up {', '.join(requirements)} (once)…", flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin/python"), "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *requirements], check=True)
        if with_torch:
            _add_torch(home)
        ready.write_text(wanted, encoding="utf-8")
    return home / "bin"


def _add_torch(home: Path) -> None:
    """Let an environment find our packages, at the end of the path: what the peer brought along comes first."""
    found = subprocess.run(
        [str(home / "bin/python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    (Path(found.stdout.strip()) / "torch_of_ours.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    torchrun = home / "bin/torchrun"
    torchrun.write_text(f'#!/bin/sh\nexec {home}/bin/python -m torch.distributed.run "$@"\n', encoding="utf-8")
    torchrun.chmod(0o755)
