"""What an image is tried with where nothing else was given: models written byte by byte, and scripts in plain Python.

The models are ONNX, a format that images with Mooring serve without code. Scripts use nothing but Python's own library.
"""

import json
from dataclasses import dataclass
from pathlib import Path

FLOAT = 1
OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True)
class Request:
    """A body that a model answers."""

    body: bytes
    content_type: str


# What the sample model answers: each number, twice.
REQUEST = Request(b"[[1.0, 2.0, 3.0]]", "application/json")


def write_model(folder: Path) -> Path:
    """Write a model that adds n x 3 floats to themselves, and return its folder."""
    return _write(folder, [])


def write_large_model(folder: Path, size_bytes: int) -> Path:
    """Write a model with so many bytes of zeros for weights, as a sparse file: it takes no room on the disk."""
    head = _number(1, size_bytes // 4) + _number(2, FLOAT) + _text(8, "ballast")
    tensor = head + _key(9, 2) + _varint(size_bytes)
    weights = _key(5, 2) + _varint(len(tensor) + size_bytes) + tensor
    # The graph's last field is the weights, so that what follows their head is one hole.
    return _write(folder, [weights], hole=size_bytes)


def _write(folder: Path, weights: list[bytes], hole: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    node = _text(1, "x") + _text(1, "x") + _text(2, "y") + _text(4, "Add")
    graph = b"".join([_bytes(1, node), _text(2, "twice"), _end(11, "x"), _end(12, "y"), *weights])
    opset = _text(1, "") + _number(2, OPSET)
    head = _number(1, IR_VERSION) + _bytes(8, opset) + _key(7, 2) + _varint(len(graph) + hole) + graph
    with (folder / "model.onnx").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + hole)
    return folder


def _end(field: int, name: str) -> bytes:
    """Return an input or output of a graph: n x 3 floats."""
    shape = _bytes(1, _text(2, "n")) + _bytes(1, _number(1, 3))
    tensor = _number(1, FLOAT) + _bytes(2, shape)
    return _bytes(field, _text(1, name) + _bytes(2, _bytes(1, tensor)))


# Protocol buffers, as far as it takes: a field is its number and kind, then a number, or a length and so many bytes.


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def _text(field: int, content: str) -> bytes:
    return _bytes(field, content.encode())


def _number(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


# --- training ---------------------------------------------------------------------------------------------------------

HYPERPARAMETERS = {"epochs": 3, "learning-rate": 0.001, "name": "two words $HOME"}
CHANNEL = "training"
CHANNEL_FILE = "rows.csv"
SEEN = "seen.json"
WAITING = "The sample waits to be stopped."
WAITING_FILE = "waiting.txt"
STOPPED = "stopped.txt"
CAUSE = "the sample fails on purpose"
EXIT_CODE = 37

_START = """
import json, os, signal, socket, sys, time, traceback
base = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
model = os.path.join(base, "model")
def leave(name, text):
    with open(os.path.join(model, name), "w") as file:
        file.write(text)
"""
SHOWS_WHAT_IT_SEES = f"""{_START}
channel = os.path.join(base, "input", "data", {CHANNEL!r})
leave({SEEN!r}, json.dumps({{
    "arguments": sys.argv[1:],
    "variables": {{name: value for name, value in os.environ.items() if name.startswith("SM_")}},
    "host": socket.gethostname(),
    "files": sorted(os.listdir(channel)) if os.path.isdir(channel) else None,
}}))
print("The sample has seen enough.")
"""
# Two functions that call each other: Python tells of every one of those calls, which takes more than 1,024 characters.
FAILS = f"""{_START}
def first(depth):
    second(depth)
def second(depth):
    if not depth:
        raise ValueError({CAUSE!r})
    first(depth - 1)
try:
    first(20)
except ValueError:
    traceback.print_exc()
    sys.exit({EXIT_CODE})
"""
WAITS = f"""{_START}
def stop(number, frame):
    leave({STOPPED!r}, "SIGTERM came")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print({WAITING!r})
leave({WAITING_FILE!r}, "")
while True:
    time.sleep(0.05)
"""


def write_script(folder: Path, script: str) -> Path:
    """Write a folder of code with a script, and return it."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(script, encoding="utf-8")
    return folder


def write_channel(folder: Path) -> Path:
    """Write the data of a sample's one channel."""
    folder.mkdir(parents=True)
    (folder / CHANNEL_FILE).write_text("1,2\n3,4\n", encoding="utf-8")
    return folder


def read_seen(model: Path) -> dict[str, object] | None:
    """Return what the sample script saw, None where it was not run."""
    try:
        content = json.loads((model / SEEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
