"""A second form of ONNX models, made once and kept: optimised, with large weights in files named by their content.

onnxruntime maps such weights instead of copying them, so that a cold model costs little, and models with the same
weights share them in memory and on disk. Only these copies are mapped: a file overwritten under a mapping is a SIGBUS.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from mooring.artifact.publish import publish_file

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "MOORING_MODEL_CACHE"
MIB = 1 << 20
# Below this a model loads in milliseconds as it is, and holds little.
LEAST_MODEL_BYTES = 16 * MIB
# Each external weight is a mapping of its own, of which a process may have 65,530.
LEAST_WEIGHT_BYTES = 256 * 1024
# Left free on the disk that the cache lies on.
LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class CachedModel:
    """The mapped form of a model: its file, and the weights beside it by content."""

    file: Path
    weights: Mapping[str, int]  # hash of the content -> bytes


class ModelCache:
    """A folder of mapped forms. Entries of other versions of onnxruntime are not seen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def open(cls, variables: Mapping[str, str]) -> "ModelCache | None":
        """Return the cache, None where nothing can be written or the folder is somebody else's."""
        given = variables.get(CACHE_VARIABLE)
        folder = Path(given) if given else Path(tempfile.gettempdir()) / f"mooring-models-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = folder.stat()
        except OSError:
            return None
        is_ours = facts.st_uid == os.getuid() and not facts.st_mode & 0o022
        return cls(folder) if is_ours and os.access(folder, os.W_OK) else None

    def find(self, file: Path) -> CachedModel | None:
        """Return the mapped form of a model file, None if there is none yet."""
        entry = self._entry(file)
        try:
            name, *weights = entry.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            return None
        sizes = {}
        for weight in weights:
            path = self._folder / weight
            if not path.is_file():
                return None
            sizes[weight] = path.stat().st_size
        model = self._folder / name
        return CachedModel(model, sizes) if model.is_file() else None

    def has_room(self, artifact_bytes: int) -> bool:
        """Whether the disk takes another model of that size."""
        return shutil.disk_usage(self._folder).free > 2 * artifact_bytes + LEAST_FREE_BYTES

    def make(self, file: Path) -> CachedModel | None:
        """Make the mapped form of a model file; None if it has no weights that are worth it.

        Takes memory of about three times the file, and time: run it in a process of its own, at low priority.
        """
        import onnx

        with tempfile.TemporaryDirectory(prefix="optimised-", dir=self._folder) as folder:
            optimised = Path(folder) / "model.onnx"
            _optimise(file, optimised)
            model = onnx.load(str(optimised))
        weights = self._externalise(model)
        if not weights:
            return None
        content = model.SerializeToString()
        name = f"{hashlib.sha256(content).hexdigest()}.onnx"
        self._write(name, content)
        self._write(self._entry(file).name, "\n".join([name, *weights]).encode())
        return self.find(file)

    def _externalise(self, model: "onnx.ModelProto") -> list[str]:  # type: ignore[name-defined]  # noqa: F821 - as above
        """Move large weights out of a model into files; return the files' names."""
        import onnx

        names = []
        for tensor in model.graph.initializer:
            if not tensor.HasField("raw_data") or len(tensor.raw_data) < LEAST_WEIGHT_BYTES:
                continue
            name = f"{hashlib.sha256(tensor.raw_data).hexdigest()}.weights"
            if not (self._folder / name).exists():
                self._write(name, tensor.raw_data)
            onnx.external_data_helper.set_external_data(tensor, name, offset=0, length=len(tensor.raw_data))
            tensor.ClearField("raw_data")
            names.append(name)
        return list(dict.fromkeys(names))

    def _write(self, name: str, content: bytes) -> None:
        with publish_file(self._folder / name) as beside:
            beside.write_bytes(content)

    def _entry(self, file: Path) -> Path:
        """Return the file that says where a model's mapped form is; another version of the file has another entry."""
        facts = file.stat()
        version = f"{file.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{ort.__version__}"
        return self._folder / f"{hashlib.sha256(version.encode()).hexdigest()}.entry"


def _optimise(file: Path, target: Path) -> None:
    """Write a model as onnxruntime optimises it for any machine: what it would do at each load is done once."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Without it weights are prepacked into forms that are not written.
    options.add_session_config_entry("session.disable_prepacking", "1")
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
