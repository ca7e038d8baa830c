"""Images that are not ours, as their commands: a server written by hand, and programs that get everything wrong."""

import sys
from pathlib import Path

# What somebody writes in an afternoon. It answers pings and requests, and has never heard of a signal.
BY_HAND = """\
#!/usr/bin/env python3
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self):
        row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, json.dumps(sum(row)).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(ThreadingHTTPServer):
    request_queue_size = 100

port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", 8080))
Server(("", port), Handler).serve_forever()
"""

# Says yes to whatever it is asked, at length, and is not to be stopped.
YES_MAN = """\
#!/usr/bin/env python3
import os, signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "Transfer-Encoding" in self.headers:  # what is not read is a reset connection, sometimes
            while self.rfile.readline() != b"0\\r\\n":
                pass
            self.rfile.readline()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\\r\\nyes\\r\\n0\\r\\n\\r\\n")

    do_POST = do_DELETE = do_GET

signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
class Server(ThreadingHTTPServer):
    request_queue_size = 100

port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", 8080))
Server(("", port), Handler).serve_forever()
"""

# Runs the script, but by a shell, with nothing but its output kept to itself, and calls everything a success.
CARELESS = """\
#!/usr/bin/env python3
import json, os, signal, subprocess, sys
base = os.environ["SAGEMAKER_BASE_DIR"]
given = json.load(open(base + "/input/config/hyperparameters.json"))
words = " ".join(f"--{name} {json.loads(value)}" for name, value in given.items())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
script = base + "/code/" + os.environ["SAGEMAKER_PROGRAM"]
subprocess.run(f"{sys.executable} {script} {words}", shell=True, stdout=subprocess.DEVNULL)
"""


def write_commands(folder: Path, **commands: str) -> Path:
    """Write the commands of an image into a folder, beside Python itself and what stands in for pip, and return it."""
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    for name, program in ({"pip": "#!/bin/sh\n"} | commands).items():
        (folder / name).write_text(program, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder
