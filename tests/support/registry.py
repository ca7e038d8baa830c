"""A registry of images on the loopback, as far as `docker push` and `docker pull` ask it, behind a password.

The API is that of the OCI Distribution Specification. Content without the digest it is sent under is refused.
"""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PREFIX = "/v2/"


@dataclass
class Registry:
    """What was pushed. `logins` counts the requests that came with the right password."""

    password: str
    address: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)  # by repository and tag or digest
    uploads: dict[str, bytes] = field(default_factory=dict)
    logins: int = 0

    @property
    def authorization(self) -> str:
        """The header of who may come in."""
        return "Basic " + base64.b64encode(f"AWS:{self.password}".encode()).decode()


@contextmanager
def running_registry(password: str) -> Iterator[Registry]:
    """Run a registry for the length of the block."""
    registry = Registry(password)
    handler = type("Handler", (_Handler,), {"registry": registry})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        registry.address = f"localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()


def digest_of(content: bytes) -> str:
    """Return what content is named by."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != self.registry.authorization:
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="registry"'})
            return
        self.registry.logins += 1
        parts = urlsplit(self.path)
        repository, _, rest = parts.path.removeprefix(PREFIX).rpartition("/blobs/")
        if not repository:
            repository, _, rest = parts.path.removeprefix(PREFIX).rpartition("/manifests/")
            self._manifest(repository, rest, body) if repository else self._send(200)
        elif rest.startswith("uploads/"):
            self._upload(repository, rest.removeprefix("uploads/"), parse_qs(parts.query), body)
        elif rest in self.registry.blobs:
            self._send(200, self.registry.blobs[rest], {"Docker-Content-Digest": rest})
        else:
            self._send(404)

    def _upload(self, repository: str, name: str, query: dict[str, list[str]], body: bytes) -> None:
        uploads = self.registry.uploads
        name = name or str(len(uploads))
        uploads[name] = uploads.get(name, b"") + body
        place = {"Location": f"{PREFIX}{repository}/blobs/uploads/{name}", "Docker-Upload-UUID": name}
        if "digest" not in query:
            self._send(202, headers={**place, "Range": f"0-{max(0, len(uploads[name]) - 1)}"})
            return
        (digest,) = query["digest"]
        if digest_of(uploads[name]) != digest:
            self._send(400)
            return
        self.registry.blobs[digest] = uploads[name]
        self._send(201, headers={"Location": f"{PREFIX}{repository}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _manifest(self, repository: str, reference: str, body: bytes) -> None:
        manifests, digest = self.registry.manifests, digest_of(body)
        if self.command == "PUT":
            held = (self.headers["Content-Type"], body)
            manifests[repository, reference] = manifests[repository, digest] = held
            self._send(201, headers={"Docker-Content-Digest": digest})
        elif (repository, reference) in manifests:
            kind, content = manifests[repository, reference]
            self._send(200, content, {"Content-Type": kind, "Docker-Content-Digest": digest_of(content)})
        else:
            self._send(404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
