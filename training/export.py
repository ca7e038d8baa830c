"""What training leaves in the model directory: a model that serves as it is, its weights, and its labels."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mooring.artifact.publish import publish_into
from mooring.contract.errors import UserCodeError

logger = logging.getLogger(__name__)

ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"
LABELS_FILE = "class_label_to_prediction_index.json"
# Exported and original must agree this closely; kernels of different libraries round differently.
TOLERANCE = 1e-4
# A protocol buffer holds 2 GiB at most; larger weights go into a file beside it.
MAX_INLINE_BYTES = 1 << 30


class ExportError(UserCodeError):
    """An exported model does not compute what the trained one does."""

    def __init__(self, difference: float) -> None:
        self.difference = difference
        super().__init__(
            f"The exported ONNX model's outputs differ from the trained model's by {difference:.2g}, "
            f"over {TOLERANCE:g}; nothing was written to the model directory."
        )


def export(
    network: nn.Module,
    example: torch.Tensor,
    labels: Sequence[str],
    directory: Path,
    settings: Mapping[str, str],
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
    simplified: nn.Module | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the model directory: ONNX with a dynamic first dimension, safetensors, labels.

    `example` is a batch of at least two inputs; both models are run on it. `weights` are the network's under other
    names than its own, and `simplified` is a network that computes the same in fewer steps, for ONNX to be made of.
    `metadata` are the ONNX file's own, for who serves it. Raises `ExportError` if the models disagree.
    """
    from safetensors.torch import save_file

    network = network.cpu().eval()
    with publish_into(directory) as folder:
        _write_onnx(simplified or network, example, folder / ONNX_FILE, metadata or {})
        _check(network, example, folder / ONNX_FILE)
        named = network.state_dict() if weights is None else weights
        whole = {name: value.detach().cpu().contiguous() for name, value in named.items()}
        save_file(whole, folder / WEIGHTS_FILE, metadata=dict(settings))
        indexes = {label: index for index, label in enumerate(labels)}
        (folder / LABELS_FILE).write_text(json.dumps(indexes), encoding="utf-8")
    logger.info("exported to %s: %s", directory, ", ".join(sorted(path.name for path in directory.iterdir())))


def _write_onnx(network: nn.Module, example: torch.Tensor, file: Path, metadata: Mapping[str, str]) -> None:
    size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    # The exporter speaks of packages it would know and of its own deprecated parts; errors are raised, not logged.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(str(file), external_data=size > MAX_INLINE_BYTES)


def _check(network: nn.Module, example: torch.Tensor, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(example).numpy()
    (exported,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    difference = float(np.abs(exported - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(difference)
