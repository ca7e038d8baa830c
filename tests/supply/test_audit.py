"""The audit of what is pinned: real pip-audit against a service of this machine that speaks OSV's interface."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / "docker/audit.py"
VULNERABLE = ("urllib3", "1.24.1")


def vulnerability(name: str, package: str, fixed: str) -> dict[str, Any]:
    return {
        "id": name,
        "aliases": [f"CVE-of-{name}"],
        "summary": f"what is wrong with {package}",
        "published": "2026-01-01T00:00:00Z",
        "affected": [
            {
                "package": {"name": package, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
            }
        ],
    }


@dataclass
class Service:
    """A service of known vulnerabilities, and what it was asked."""

    url: str = ""
    known: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    breaks_at: str = ""


@pytest.fixture
def service() -> Iterator[Service]:
    double = Service(known={VULNERABLE: vulnerability("GHSA-1", "urllib3", "1.24.2")})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            release = (query["package"]["name"], query["version"])
            double.asked.append(release)
            if release[0] == double.breaks_at:
                self.send_error(500)
                return
            body = json.dumps({"vulns": [double.known[release]]} if release in double.known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        double.url = f"http://127.0.0.1:{server.server_port}/v1/query"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield double
        server.shutdown()
        thread.join()


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    folder = tmp_path / "requirements"
    folder.mkdir()
    (folder / "base.txt").write_text(
        "# written by a tool\n--index-url https://index.example/simple\n"
        "Pillow==13.0.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n    # via mooring\n"
        'uvloop==0.23.0 ; sys_platform == "linux" \\\n    --hash=sha256:02\n'
    )
    (folder / "torch.txt").write_text("torch==2.13.0+cpu \\\n    --hash=sha256:03\npillow==13.0.0\n")
    return folder


def audit(service: Service, requirements: Path, tmp_path: Path) -> tuple[int, str]:
    command = [sys.executable, str(AUDIT), "--service", "osv", "--requirements", str(requirements)]
    command += ["--accepted", str(tmp_path / "accepted.txt")]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_AUDIT_OSV_URL": service.url, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_every_pin_of_every_lock_is_looked_up_once(service: Service, requirements: Path, tmp_path: Path) -> None:
    """Two locks may name two versions of one package, which pip-audit does not take at once."""
    (requirements / "cuda.txt").write_text("torch==2.12.0\n")
    code, told = audit(service, requirements, tmp_path)
    assert code == 0, told
    assert "4 packages looked up with osv; known vulnerabilities: 0, accepted: 0." in told
    assert service.asked[0] == VULNERABLE
    assert sorted(service.asked[1:]) == [
        ("pillow", "13.0.0"),
        ("torch", "2.12.0"),
        ("torch", "2.13.0"),
        ("uvloop", "0.23.0"),
    ]


def test_known_vulnerability_fails_and_is_told_with_its_locks_and_remedy(
    service: Service, requirements: Path, tmp_path: Path
) -> None:
    service.known["pillow", "13.0.0"] = vulnerability("GHSA-2", "pillow", "13.0.1")
    code, told = audit(service, requirements, tmp_path)
    assert code == 1
    assert "pillow 13.0.0: CVE-of-GHSA-2 (GHSA-2), fixed in 13.0.1: what is wrong with pillow [in base, torch]" in told
    assert "known vulnerabilities: 1, accepted: 0." in told


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("CVE-of-GHSA-2 Pillow 2999-01-01 no picture of strangers is read", 0, "accepted until 2999-01-01, no picture"),
        ("GHSA-2 pillow 2020-01-01 for some weeks", 1, "GHSA-2 of pillow is over; remove the line."),
    ],
)
def test_what_is_accepted_passes_until_its_day_and_only_that(
    service: Service, requirements: Path, tmp_path: Path, line: str, code: int, words: str
) -> None:
    service.known["pillow", "13.0.0"] = vulnerability("GHSA-2", "pillow", "13.0.1")
    others = "GHSA-3 pillow 2999-01-01 another\nGHSA-2 torch 2999-01-01 another\n"
    (tmp_path / "accepted.txt").write_text(f"# why\n\n{others}{line}\n")
    ended, told = audit(service, requirements, tmp_path)
    assert ended == code
    assert words in told
    for other in ("GHSA-3 of pillow", "GHSA-2 of torch"):
        assert f"{other} covers nothing that was found; remove the line." in told


@pytest.mark.parametrize("state", ["closed", "knows nothing", "breaks"])
def test_service_that_does_not_name_what_is_known_is_not_believed(
    service: Service, requirements: Path, tmp_path: Path, state: str
) -> None:
    """Nothing is asked of it but the one release that every service knows to be vulnerable."""
    service.known.clear()
    if state == "closed":
        service.url = "http://127.0.0.1:1/v1/query"
    service.breaks_at = VULNERABLE[0] if state == "breaks" else ""
    code, told = audit(service, requirements, tmp_path)
    assert code == 0
    assert "no service of known vulnerabilities answers (osv): nothing was looked up." in told
    assert set(service.asked) <= {VULNERABLE}


def test_service_that_breaks_off_is_no_clean_bill(service: Service, requirements: Path, tmp_path: Path) -> None:
    service.breaks_at = "pillow"
    code, told = audit(service, requirements, tmp_path)
    assert code == 1
    assert "osv answered, and then did not for the 3 packages. Try again." in told


def test_every_line_that_cannot_be_read_is_named(service: Service, requirements: Path, tmp_path: Path) -> None:
    (requirements / "loose.txt").write_text("numpy>=2\nsix @ https://host.example/six.whl\n")
    code, told = audit(service, requirements, tmp_path)
    assert code == 1
    assert 'loose.txt, line 1: "numpy>=2" does not name one version' in told
    assert "loose.txt, line 2" in told
    (requirements / "loose.txt").unlink()
    (tmp_path / "accepted.txt").write_text("GHSA-2 pillow because\nGHSA-2 pillow 2026-13-01 because\n")
    code, told = audit(service, requirements, tmp_path)
    assert code == 1
    assert "accepted.txt, line 1" in told
    assert "accepted.txt, line 2" in told
    assert service.asked == []
