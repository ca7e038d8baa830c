"""TorchServe's base handler: loads a TorchScript file, or a state dict into the class that an archive brings."""

import abc
import importlib
import sys
import time
from pathlib import Path
from typing import Any

from ..handler_utils.timer import timed  # noqa: TID252 - the package is imported as ts
from ..utils.util import list_classes_from_module, load_label_mapping  # noqa: TID252 - the package is imported as ts


class BaseHandler(abc.ABC):  # noqa: B024 - handlers replace the steps they wish to
    """`handle` runs `preprocess`, `inference` and `postprocess`, which subclasses replace."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: Any = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0

    def initialize(self, context: Any) -> None:
        """Load what the archive's manifest names, or the only .pt file. Raises `RuntimeError` without either."""
        import torch

        self.context = context
        properties = context.system_properties
        self.model_yaml_config = getattr(context, "model_yaml_config", None) or {}
        gpu_id = properties.get("gpu_id")
        self.map_location = "cuda" if torch.cuda.is_available() and gpu_id is not None else "cpu"
        self.device = torch.device(f"cuda:{gpu_id}" if self.map_location == "cuda" else "cpu")
        self.manifest = context.manifest
        folder = Path(properties["model_dir"])
        named = (self.manifest or {}).get("model", {})
        file = _model_file(folder, named.get("serializedFile"))
        self.model_pt_path = str(file) if file else None
        if named.get("modelFile"):
            self.model = self._load_pickled_model(str(folder), named["modelFile"], self.model_pt_path)
        elif file is not None:
            self.model = self._load_torchscript_model(str(file))
        else:
            raise RuntimeError("The archive's manifest names no serializedFile, and there is no single .pt file.")
        self.model.to(self.device).eval()
        self.mapping = load_label_mapping(str(folder / "index_to_name.json"))
        self.initialized = True

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        import torch

        return torch.jit.load(model_pt_path, map_location=self.device)  # type: ignore[no-untyped-call]

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """Return an instance of the only class in a module, with the weights of a file. Raises `ValueError`."""
        import torch

        if model_dir not in sys.path:
            sys.path.insert(0, model_dir)
        module = importlib.import_module(Path(model_file).stem)
        classes = list_classes_from_module(module)
        if len(classes) != 1:
            names = [kind.__name__ for kind in classes]
            raise ValueError(f"{model_file} has to define one class, the model's; it defines {names}.")
        model = classes[0]()
        if model_pt_path:
            model.load_state_dict(torch.load(model_pt_path, map_location=self.device, weights_only=True))
        return model

    @timed
    def preprocess(self, data: Any) -> Any:
        """Return a tensor."""
        import torch

        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what the model makes of a tensor."""
        import torch

        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """Return one answer for each request."""
        return data.tolist()

    def handle(self, data: list[dict[str, Any]], context: Any) -> Any:
        """Return one answer for each request, by way of the three steps."""
        started = time.perf_counter()
        self.context = context
        answers = self.postprocess(self.inference(self.preprocess(data)))
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return answers

    def get_device(self) -> Any:
        """Return the device that the model is on."""
        return self.device


def _model_file(folder: Path, named: str | None) -> Path | None:
    if named:
        return folder / named
    files = sorted(folder.glob("*.pt"))
    return files[0] if len(files) == 1 else None
