"""The ready-made program on real images: what it needs, what it leaves, and how it says what is wrong."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from training_jobs import Job

from mooring.artifact.archive import pack
from mooring.contract.channels import Channel
from mooring.contract.errors import HyperparameterError, MissingChannelError
from mooring.contract.typed import parse_hyperparameters
from mooring.training.export import ExportError, export
from mooring.training.initial_weights import InitialWeightsError, initial_weights, start_from
from mooring.training.programs.image_classification import Settings
from mooring.training.programs.listed_images import ListedImages, ListingError, TrainingImageError
from mooring.training.programs.residual_network import Classifier, ResidualNetwork

HYPERPARAMETERS = {"num_layers": 8, "image_shape": "1,8,8", "num_classes": 2, "mini_batch_size": 8, "epochs": 2}
CHANNELS = ("train", "validation", "train_lst", "validation_lst")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 100, (8, 8), dtype=np.uint8) + np.uint8(150 * (value % 2))
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(base: Path, count: int = 16) -> None:
    """Dark images of class 0 and light ones of class 1, in the built-in's channels."""
    for name in ("train", "validation"):
        folder, listing = base / name, base / f"{name}_lst"
        folder.mkdir(parents=True, exist_ok=True)
        listing.mkdir(exist_ok=True)
        for index in range(count):
            (folder / f"{index}.png").write_bytes(png(index))
        lines = "".join(f"{index}\t{index % 2}\t{index}.png\n" for index in range(count))
        (listing / f"{name}.lst").write_text(lines, encoding="utf-8")


def classification_job(base: Path, ranks: int = 1, channels: Any = CHANNELS, **hyperparameters: Any) -> Job:
    job = Job.write(
        base,
        hyperparameters=HYPERPARAMETERS | hyperparameters,
        channels=dict.fromkeys(channels, "application/x-image"),
        ranks=ranks,
    )
    job.variables["MOORING_ALGORITHM"] = "image-classification"
    write_images(job.paths.input_data)
    return job


# --- the whole program ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trained_model_serves_as_it_is_exported(tmp_path: Path) -> None:
    job = classification_job(tmp_path, ranks=2)
    code, output = job.run()
    assert code == 0, output
    assert "epoch=2; step=4; train_loss=" in output
    assert {file.name for file in job.paths.model.iterdir()} == {
        "model.onnx",
        "model.safetensors",
        "class_label_to_prediction_index.json",
    }
    labels = json.loads((job.paths.model / "class_label_to_prediction_index.json").read_text(encoding="utf-8"))
    assert labels == {"0": 0, "1": 1}
    session = onnxruntime.InferenceSession(job.paths.model / "model.onnx")
    (answer,) = session.run(None, {"images": np.zeros((5, 1, 8, 8), np.float32)})
    assert answer.shape == (5, 2)
    assert np.allclose(answer.sum(1), 1, atol=1e-5)
    rows = (job.paths.output_data / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]


@pytest.mark.slow
def test_run_that_was_finished_only_exports_again(tmp_path: Path) -> None:
    job = classification_job(tmp_path)
    assert job.run()[0] == 0
    (job.paths.model / "model.onnx").unlink()
    code, output = job.run()
    assert code == 0
    assert "resumed after step 4" in output
    assert "epoch=" not in output
    assert (job.paths.model / "model.onnx").exists()


def test_missing_channel_is_named(tmp_path: Path) -> None:
    job = classification_job(tmp_path, channels=("train", "train_lst"))
    assert job.run()[0] == 1
    assert job.failure.startswith("MissingChannelError: Channel 'validation' was not given to this job")


def test_every_bad_hyperparameter_is_named(tmp_path: Path) -> None:
    job = classification_job(tmp_path, epochs="ten", learning_rate=-1, num_layer=8)
    assert job.run()[0] == 1
    for sentence in ("'epochs' is \"ten\"; expected an integer", "'learning_rate' is -1", "did you mean 'num_layers'?"):
        assert sentence in job.failure


@pytest.mark.slow
def test_truncated_image_is_named_and_the_next_run_works(tmp_path: Path) -> None:
    job = classification_job(tmp_path)
    file = job.paths.channel("train") / "3.png"
    file.write_bytes(png(3)[:60])
    assert job.run()[0] == 1
    assert job.failure.startswith(f"TrainingImageError: {file}: the picture is damaged")
    file.write_bytes(png(3))
    assert job.run()[0] == 0


# --- its parts --------------------------------------------------------------------------------------------------------


def opened(base: Path, **given: Any) -> ListedImages:
    channels = {name: Channel(name, base / name) for name in CHANNELS}
    return ListedImages.open(channels, "train", (1, 8, 8), given.get("classes", 2))


def test_listed_image_is_its_pixels_and_label(tmp_path: Path) -> None:
    write_images(tmp_path)
    pixels, label = opened(tmp_path)[3]
    assert (pixels.shape, pixels.dtype, label) == ((1, 8, 8), torch.float32, 1)
    assert np.array_equal(pixels[0].numpy(), np.asarray(Image.open(io.BytesIO(png(3)))))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1 0 0.png", "line 17: has 1 fields"),
        ("1\tcat\t0.png", 'label "cat" is not a number'),
        ("1\t2\t0.png", "label 2 is not below num_classes, which is 2"),
        ("1\t-1\t0.png", "label -1 is not below"),
        ("1\t0\tno.png", "there is no image .*no.png"),
    ],
)
def test_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, problem: str) -> None:
    write_images(tmp_path)
    with (tmp_path / "train_lst/train.lst").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ListingError, match=problem):
        opened(tmp_path)


def test_labels_may_be_written_as_the_built_ins_tool_writes_them(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train_lst/train.lst").write_text("0\t1.000000\t3.png\n\n", encoding="utf-8")
    assert opened(tmp_path)[0][1] == 1


def test_empty_listing_and_missing_channel_are_errors(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train_lst/train.lst").unlink()
    with pytest.raises(ListingError, match=r"no \.lst file"):
        opened(tmp_path)
    with pytest.raises(MissingChannelError, match="'train'"):
        ListedImages.open({}, "train", (1, 8, 8), 2)


def test_image_that_is_none_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "train/0.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(TrainingImageError, match=r"0\.png: it is no picture"):
        opened(tmp_path)[0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"image_shape": "8,8"}, "'image_shape' is"),
        ({"num_layers": 21}, "6n \\+ 2"),
        ({"image_shape": "3,224,224", "num_layers": 20}, "18, 34, 50, 101, 152"),
        ({"optimizer": "lion"}, "sgd, nag, adam, rmsprop"),
    ],
)
def test_settings_that_do_not_go_together_are_explained(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        parse_hyperparameters(Settings, HYPERPARAMETERS | given)


@pytest.mark.parametrize(("depth", "shape"), [(8, (1, 8, 8)), (20, (3, 28, 28)), (18, (3, 64, 64)), (50, (3, 64, 64))])
def test_networks_of_both_shapes_compute(depth: int, shape: tuple[int, int, int]) -> None:
    network = ResidualNetwork(depth, shape, classes=7)
    assert network(torch.zeros(2, *shape)).shape == (2, 7)


def test_exported_weights_are_the_networks(tmp_path: Path) -> None:
    network = Classifier(ResidualNetwork(8, (1, 8, 8), 2))
    export(network, torch.rand(2, 1, 8, 8) * 255, ["a", "b"], tmp_path, {"num_layers": "8"})
    weights = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    assert not list(tmp_path.glob(".*"))


def test_job_may_start_from_an_earlier_jobs_model(tmp_path: Path) -> None:
    """From its archive or its folder; another model's is refused by its tensors."""
    torch.manual_seed(1)
    network = Classifier(ResidualNetwork(8, (1, 8, 8), 2))
    (tmp_path / "model").mkdir()
    save_file(network.state_dict(), tmp_path / "model/model.safetensors")
    (tmp_path / "archive").mkdir()
    pack(tmp_path / "model", tmp_path / "archive/model.tar.gz")
    for folder in ("model", "archive"):
        weights = initial_weights({"model": Channel("model", tmp_path / folder)}) or {}
        fresh = Classifier(ResidualNetwork(8, (1, 8, 8), 2))
        start_from(fresh, weights)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in fresh.state_dict().items())
    with pytest.raises(InitialWeightsError, match=r"network\.classifier\.weight is \(2, 64\), here \(3, 64\)"):
        start_from(Classifier(ResidualNetwork(8, (1, 8, 8), 3)), weights)


def test_model_channel_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    assert initial_weights({}) is None
    (tmp_path / "model.pth").touch()
    with pytest.raises(InitialWeightsError, match=r"holds no model\.safetensors, but: model\.pth"):
        initial_weights({"model": Channel("model", tmp_path)})
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InitialWeightsError, match="cannot be read"):
        initial_weights({"model": Channel("model", tmp_path)})


class Fickle(nn.Module):
    """Computes one thing when exported and another when called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.add(self.linear(values), float(torch.compiler.is_exporting()))


def test_export_that_disagrees_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing was written"):
        export(Fickle(), torch.rand(2, 3), ["a", "b"], tmp_path, {})
    assert not list(tmp_path.iterdir())
