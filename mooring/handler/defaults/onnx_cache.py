"""The mapped form of ONNX models: optimised, with large weights outside of the file, which onnxruntime maps.

Entries of other versions of onnxruntime are not seen.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort

from .model_cache import LEAST_WEIGHT_BYTES, CachedModel, ModelCache, version_of


class OnnxCache(ModelCache):
    """The mapped forms of ONNX models."""

    # The graph that onnxruntime optimises, what it writes, and what is read from there.
    memory_factor = 3

    def find(self, file: Path) -> CachedModel | None:
        """Return the mapped form of a model file, None if there is none yet."""
        try:
            name, *weights = (self._folder / _entry(file)).read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            return None
        sizes = self._weights(weights)
        model = self._folder / name
        return CachedModel(model, sizes) if sizes is not None and model.is_file() else None

    def make(self, source: Path) -> CachedModel | None:
        """Make the mapped form of a model file; None if it has no weights that are worth it.

        Takes memory and time: run it in a process of its own, at low priority.
        """
        import onnx

        entry = _entry(source)  # of what is read below, whatever lies there when it has been
        with tempfile.TemporaryDirectory(prefix="optimised-", dir=self._folder) as folder:
            optimised = Path(folder) / "model.onnx"
            _optimise(source, optimised)
            model = onnx.load(str(optimised))
        weights = self._externalise(model)
        if not weights:
            return None
        content = model.SerializeToString()
        name = f"{hashlib.sha256(content).hexdigest()}.onnx"
        self._write(name, content)
        self._write(entry, "\n".join([name, *weights]).encode())
        return self.find(source)

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


def _entry(file: Path) -> str:
    """Return the name of the file that says where a model's mapped form is."""
    return f"{version_of(file, *sorted(_others(file)), made_with=ort.__version__)}.entry"


def _others(file: Path) -> Iterator[Path]:
    """Yield what else lies in a model's folder: any of it may hold weights, and only the whole graph says which."""
    for parent, folders, names in os.walk(file.parent):
        folders[:] = [name for name in folders if not name.startswith(".")]
        others = (Path(parent, name) for name in names)
        yield from (path for path in others if path != file and path.is_file())


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
