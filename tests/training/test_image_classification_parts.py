"""The parts of the program image-classification: settings, augmentation, losses, networks and the weights they have."""

import colorsys
import io
import itertools
import logging
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from mooring.artifact.archive import pack
from mooring.contract.channels import Channel
from mooring.contract.errors import HyperparameterError
from mooring.contract.typed import parse_hyperparameters
from mooring.handler.images import decode_picture
from mooring.training.export import ExportError, export
from mooring.training.initial_weights import InitialWeightsError, initial_weights, start_from
from mooring.training.programs.images.augmentation import Plain, Preparation, Varied, recoloured
from mooring.training.programs.images.best_epoch import BestEpoch
from mooring.training.programs.images.objective import Objective, class_weights
from mooring.training.programs.images.optimizers import make_optimizer, make_schedule
from mooring.training.programs.images.precision import Precision
from mooring.training.programs.images.pretrained import begin_with, given_weights
from mooring.training.programs.images.residual_network import LARGE_STAGES, SMALL_DEPTHS, Classifier, ResidualNetwork
from mooring.training.programs.images.settings import Settings
from mooring.training.sampler import DataPosition

SMALL: dict[str, Any] = {"num_layers": 20, "image_shape": "1,8,8", "num_classes": 2}
# Of torchvision; of 200 layers of timm, which has the same network. A thousand classes.
PUBLISHED = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
    200: 64_673_832,
}
# He et al., table 6, in millions for ten classes: there shortcuts have no weights, here two of them have.
PUBLISHED_SMALL = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}


def settings(**given: Any) -> Settings:
    return parse_hyperparameters(Settings, SMALL | given)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_defaults_are_the_built_ins() -> None:
    found = parse_hyperparameters(Settings, {"num_classes": "257", "num_training_samples": "15420"})
    built_in = {
        "num_layers": 152, "image_shape": (3, 224, 224), "multi_label": False, "use_weighted_loss": False,
        "use_pretrained_model": False, "epochs": 30, "mini_batch_size": 32, "resize": None, "augmentation_type": None,
        "optimizer": "sgd", "learning_rate": 0.1, "lr_scheduler_step": (), "lr_scheduler_factor": 0.1, "momentum": 0.9,
        "weight_decay": 0.0001, "beta_1": 0.9, "beta_2": 0.999, "eps": 1e-8, "gamma": 0.9,
        "precision_dtype": "float32", "top_k": None, "early_stopping": False, "early_stopping_min_epochs": 10,
        "early_stopping_patience": 5, "early_stopping_tolerance": 0.0, "checkpoint_frequency": None, "kv_store": None,
    }  # fmt: skip
    assert {name: getattr(found, name) for name in built_in} == built_in


def test_values_come_as_the_sdk_sends_them() -> None:
    found = settings(
        early_stopping="True",
        use_pretrained_model="0",
        multi_label=1,
        lr_scheduler_step="10, 20",
        image_shape="3, 32, 32",
    )
    assert (found.early_stopping, found.use_pretrained_model, found.multi_label) == (True, False, True)
    assert (found.lr_scheduler_step, found.shape) == ((10, 20), (3, 32, 32))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"image_shape": "8,8"}, "'image_shape' is \"8,8\"; expected channels (1 or 3), height, width"),
        ({"image_shape": "2,8,8"}, "expected channels (1 or 3)"),
        ({"num_layers": 21}, "'num_layers' is 21; expected one of 18, 34, 50, 101, 152, 200, 20, 32, 44, 56, 110"),
        ({"image_shape": "3,33,20"}, "at most 32 pixels in height; expected, for a height of 33: 18, 34, 50"),
        ({"optimizer": "lion"}, '"sgd", "adam", "rmsprop", "nag"'),
        ({"augmentation_type": "flip"}, '"crop", "crop_color", "crop_color_transform"'),
        ({"top_k": 3}, "'top_k' is 3; expected at most num_classes, which is 2"),
        ({"top_k": 1}, "'top_k' is 1; expected at least 2"),
        ({"checkpoint_frequency": 31}, "'checkpoint_frequency' is 31; expected at most epochs, 30"),
        ({"optimizer": "adam", "beta_1": 1}, "'beta_1' is 1; expected less"),
        ({"momentum": 1.1}, "'momentum' is 1.1; expected at most 1"),
        ({"kv_store": "local"}, '"dist_sync", "dist_async"'),
        ({"precision_dtype": "bfloat16"}, '"float32", "float16"'),
        ({"early_stopping_tolerance": -1}, "expected at least 0"),
        ({"lr_scheduler_step": "0,5"}, "expected at least 1"),
    ],
)
def test_settings_that_cannot_be_are_explained(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        settings(**given)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01, "nesterov": False}),
        ("nag", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True}),
        ("adam", {"lr": 0.1, "betas": (0.7, 0.6), "eps": 1e-5, "weight_decay": 0}),
        ("rmsprop", {"lr": 0.1, "alpha": 0.5, "eps": 1e-5, "momentum": 0, "weight_decay": 0}),
    ],
)
def test_optimizers_have_what_the_built_in_gives_each(name: str, expected: dict[str, Any]) -> None:
    chosen = settings(optimizer=name, momentum=0.8, weight_decay=0.01, beta_1=0.7, beta_2=0.6, eps=1e-5, gamma=0.5)
    (group,) = make_optimizer(chosen, [nn.Parameter(torch.zeros(1))]).param_groups
    assert {option: group[option] for option in expected} == expected
    make_optimizer(settings(optimizer=name, momentum=0), [nn.Parameter(torch.zeros(1))])


def test_rate_is_lowered_after_the_epochs_that_are_named() -> None:
    chosen = settings(lr_scheduler_step="3,1", lr_scheduler_factor=0.5, learning_rate=0.8)
    optimizer = make_optimizer(chosen, [nn.Parameter(torch.zeros(1))])
    schedule = make_schedule(chosen, optimizer)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.8, 0.4, 0.4, 0.2, 0.2])


# --- when to stop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracies", "given", "epochs"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.6], {"early_stopping_patience": 2}, 4),
        ([0.5, 0.6, 0.6, 0.6, 0.6], {"early_stopping_patience": 2, "early_stopping_min_epochs": 5}, 5),
        ([0.5, 0.4, 0.51, 0.4, 0.4], {"early_stopping_patience": 2}, 5),
        ([0.50, 0.52, 0.54, 0.56, 0.58], {"early_stopping_patience": 2, "early_stopping_tolerance": 0.2}, 3),
        ([0.50, 0.52, 0.54, 0.56, 0.60], {"early_stopping_patience": 9, "early_stopping_tolerance": 0.2}, 5),
        ([0.0, 0.0, 0.0, 0.0, 0.0], {"early_stopping_patience": 3}, 3),
        ([0.5, 0.5, 0.5, 0.5, 0.5], {"early_stopping_patience": 1, "early_stopping": False}, 5),
    ],
)
def test_run_ends_when_accuracy_no_longer_rises(accuracies: list[float], given: dict[str, Any], epochs: int) -> None:
    chosen = settings(**{"early_stopping": True, "early_stopping_min_epochs": 1, "epochs": 5} | given)
    best = BestEpoch()
    for epoch, accuracy in enumerate(accuracies, start=1):
        again = BestEpoch()
        again.load_state_dict(best.state_dict())
        best = again
        best.add(accuracy, epoch, chosen.early_stopping_tolerance)
        if best.is_over(chosen, epoch):
            break
    assert epoch == epochs


def test_best_of_equal_epochs_is_the_last() -> None:
    best = BestEpoch()
    for step, accuracy in enumerate([0.1, 0.7, 0.3, 0.7, 0.6], start=1):
        best.add(accuracy, step, 0)
    assert (best.accuracy, best.step) == (0.7, 4)


# --- what is measured -------------------------------------------------------------------------------------------------


def test_loss_and_accuracy_of_one_class() -> None:
    objective = Objective(top_k=2)
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    assert (int(objective.right(logits, labels)), int(objective.among_first(logits, labels))) == (1, 2)
    expected = -torch.log_softmax(logits, 1)[range(3), labels].sum()
    assert objective.loss(logits, labels).item() == pytest.approx(expected.item())


def test_loss_and_accuracy_of_several_classes() -> None:
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    logits = torch.tensor([[2.0, -1.0], [1.0, -2.0], [-1.0, 3.0], [1.0, -1.0]])
    assert float(Objective(is_multi_label=True).right(logits, labels)) == 3.0
    weighted = Objective.of(settings(multi_label=1, use_weighted_loss=1), labels.numpy())
    assert weighted.weights is not None
    assert weighted.weights.tolist() == pytest.approx([1 / 3, 3.0])
    p = torch.sigmoid(logits)
    each = -(torch.tensor([1 / 3, 3.0]) * labels * torch.log(p) + (1 - labels) * torch.log(1 - p))
    assert weighted.loss(logits, labels).item() == pytest.approx(each.mean(1).sum().item())
    assert class_weights(np.zeros((3, 2), np.float32)).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_sixteen_bits_are_bfloat16_on_a_cpu(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        precision = Precision.of(name, torch.device("cpu"))
    with precision.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.float32 if name == "float32" else torch.bfloat16)
    assert not precision.scaler.is_enabled()
    assert ("bfloat16 instead" in caplog.text) == (name == "float16")


# --- pictures ---------------------------------------------------------------------------------------------------------


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right and green downwards, so that a pixel says where it comes from; blue does not vary."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.full_like(across, 128)], -1).astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_picture_is_scaled_as_serving_does_unless_told_otherwise() -> None:
    picture = gradient(60, 30)
    expected = np.asarray(picture.resize((16, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(Preparation((3, 8, 16))(picture, Random(1)), expected)


def test_middle_is_measured_on_and_parts_are_trained_on() -> None:
    picture = gradient(64, 32)
    preparation = Preparation((3, 16, 16), resize=24, augmentation="crop")
    middle = preparation(picture)
    assert middle[0].mean() == pytest.approx(127.5, abs=3)
    assert middle[1].mean() == pytest.approx(127.5, abs=3)
    parts = [preparation(picture, Random(index)) for index in range(40)]
    lefts = [part[0].mean() for part in parts]
    assert min(lefts) < 70
    assert max(lefts) > 185
    mirrored = [bool(part[0, 0, 0] > part[0, 0, -1]) for part in parts]
    assert 8 < sum(mirrored) < 32
    assert all(np.array_equal(parts[3], preparation(picture, Random(3))) for _ in range(2))


@pytest.mark.parametrize("size", [(5, 40), (40, 5), (5, 5), (16, 16)])
@pytest.mark.parametrize("augmentation", ["crop", "crop_color", "crop_color_transform"])
def test_small_pictures_are_enlarged_until_they_cover(size: tuple[int, int], augmentation: Any) -> None:
    for mode, channels in (("RGB", 3), ("L", 1)):
        found = Preparation((channels, 16, 12), None, augmentation)(gradient(*size).convert(mode), Random(1))
        assert found.shape == (channels, 16, 12)
        assert found.dtype == np.uint8


def test_what_is_random_depends_on_seed_epoch_and_image_alone() -> None:
    preparation = Preparation((3, 16, 16), 24, "crop_color_transform")
    picture = gradient(64, 32)
    seen = []
    for seed, epoch, index in itertools.product(range(2), range(2), range(2)):
        varied = Varied(preparation, seed, DataPosition(epoch))
        varied(picture, 9)  # what came before does not matter
        again = Varied(preparation, seed, DataPosition(epoch, consumed=5))
        assert np.array_equal(varied(picture, index), again(picture, index))
        seen.append(varied(picture, index).tobytes())
    assert len(set(seen)) == 8
    assert np.array_equal(Plain(preparation)(picture, 0), Plain(preparation)(picture, 1))


def test_colours_move_as_hue_saturation_and_lightness_do() -> None:
    """Against the standard library's conversions; hue within a step of the 256 that Pillow has of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for seed in range(5):
        found = recoloured(Image.fromarray(pixels), Random(seed)).transpose(1, 2, 0)
        random = Random(seed)
        hue, saturation, lightness = (random.uniform(-most, most) for most in (36, 50, 50))
        differences = []
        for before, after in zip(pixels.reshape(-1, 3) / 255, found.reshape(-1, 3) / 255, strict=True):
            h, l, s = colorsys.rgb_to_hls(*before)  # noqa: E741 - the model's own letters
            moved = (h + hue / 180) % 1, min(max(l + lightness / 255, 0), 1), min(max(s + saturation / 255, 0), 1)
            differences.append(np.abs(np.array(colorsys.hls_to_rgb(*moved)) - after).max())
        assert np.mean(differences) < 0.015
        assert np.max(differences) < 0.1


def test_grey_stays_grey_and_has_only_its_lightness_moved() -> None:
    picture = Image.fromarray(np.full((4, 4), 100, np.uint8))
    levels = [int(recoloured(picture, Random(seed))[0, 0, 0]) for seed in range(30)]
    assert 50 <= min(levels) < 70
    assert 130 < max(levels) <= 150


def test_transformed_picture_is_turned_sheared_and_stretched_within_the_limits() -> None:
    """Told from how a picture, whose pixels say where they come from, changes to the right and downwards."""
    preparation = Preparation((1, 101, 101), None, "crop_color_transform")
    ways = []
    for number in range(60):
        steps = []
        for source in (gradient(101, 101).getchannel(band) for band in ("R", "G")):
            found = preparation(source, Random(number))[0].astype(float)
            across = (found[50, 70] - found[50, 30]) / 40 * 100 / 255
            down = (found[70, 50] - found[30, 50]) / 40 * 100 / 255
            steps.append((across, down))
        ways.append(np.abs(np.array(steps)))  # by its absolute value: half of them are mirrored
    areas = [abs(way[0, 0] * way[1, 1]) for way in ways]
    sizes = [way[0, 0] for way in ways]
    slants = [way[1, 0] for way in ways]
    assert np.median(areas) == pytest.approx(1, abs=0.1)
    assert min(sizes) > math.sqrt(0.75) * 0.9
    assert max(sizes) < math.sqrt(1 / 0.75) * 1.1
    assert 0.1 < max(slants) < math.tan(math.radians(10)) * 1.3


def test_jpeg_is_decoded_no_smaller_than_asked() -> None:
    body = jpeg(gradient(400, 200))
    assert decode_picture(body, "image/jpeg", 3).size == (400, 200)
    smaller = decode_picture(body, "image/jpeg", 3, least_side=50)
    assert smaller.size == (100, 50)
    assert decode_picture(body, "image/jpeg", 3, least_side=300).size == (400, 200)
    assert np.abs(np.asarray(smaller, int) - np.asarray(gradient(100, 50), int)).mean() < 3


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", LARGE_STAGES)
def test_large_networks_have_the_published_number_of_weights(depth: int) -> None:
    with torch.device("meta"):
        network = ResidualNetwork(depth, (3, 224, 224), 1000)
    assert sum(weight.numel() for weight in network.parameters()) == PUBLISHED[depth]


@pytest.mark.parametrize("depth", SMALL_DEPTHS)
def test_small_networks_have_the_published_number_of_weights(depth: int) -> None:
    with torch.device("meta"):
        network = ResidualNetwork(depth, (3, 32, 32), 10)
    weights = {name: weight.numel() for name, weight in network.named_parameters()}
    shortcuts = sum(size for name, size in weights.items() if "downsample" in name)
    assert shortcuts == 2752
    assert (sum(weights.values()) - shortcuts) / 1e6 == pytest.approx(PUBLISHED_SMALL[depth], abs=0.03)
    layers = [name for name in weights if name.endswith("weight") and "bn" not in name and "downsample" not in name]
    assert len(layers) == depth


@pytest.mark.parametrize(
    ("depth", "shape"), [(20, (1, 8, 8)), (32, (3, 32, 28)), (18, (3, 64, 48)), (18, (3, 32, 32)), (50, (3, 64, 64))]
)
def test_networks_compute_the_same_from_bytes_and_floats(depth: int, shape: tuple[int, int, int]) -> None:
    network = ResidualNetwork(depth, shape, classes=7).eval()
    pixels = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    with torch.no_grad():
        logits = network(pixels)
        assert logits.shape == (2, 7)
        assert torch.equal(logits, network(pixels.float()))


@pytest.mark.parametrize(("depth", "shape"), [(20, (1, 8, 8)), (50, (3, 64, 64))])
def test_folded_network_computes_the_same(depth: int, shape: tuple[int, int, int]) -> None:
    network = ResidualNetwork(depth, shape, classes=7)
    pixels = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    with torch.no_grad():
        network(pixels)  # running means are those of something
        folded = network.folded()
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        assert torch.allclose(folded(pixels), network.eval()(pixels), atol=1e-4)


# --- weights to begin with --------------------------------------------------------------------------------------------


def model_channel(folder: Path) -> dict[str, Channel]:
    return {"model": Channel("model", folder)}


@pytest.mark.parametrize("kind", ["folder", "archive", "torch", "nested"])
def test_job_may_start_from_an_earlier_jobs_model_or_a_published_one(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    weights = ResidualNetwork(20, (1, 8, 8), 2).state_dict()
    (tmp_path / "model").mkdir()
    if kind == "torch":
        counters = [name for name in weights if name.endswith("num_batches_tracked")]
        torch.save({name: value for name, value in weights.items() if name not in counters}, tmp_path / "model/a.pth")
    elif kind == "nested":
        named = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"state_dict": named, "epoch": 3}, tmp_path / "model/a.pt")
    else:
        save_file(weights, tmp_path / "model/model.safetensors")
    if kind == "archive":
        (tmp_path / "archive").mkdir()
        pack(tmp_path / "model", tmp_path / "archive/model.tar.gz")
    found = given_weights(settings(), model_channel(tmp_path / ("archive" if kind == "archive" else "model")))
    assert found is not None
    fresh = ResidualNetwork(20, (1, 8, 8), 2)
    begin_with(fresh, found, is_pretrained=False)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in fresh.state_dict().items())


def test_pretrained_model_of_other_classes_gives_all_but_its_last_layer(caplog: pytest.LogCaptureFixture) -> None:
    weights = ResidualNetwork(18, (3, 64, 64), 1000).state_dict()
    network = ResidualNetwork(18, (3, 64, 64), 3)
    last = network.fc.weight.clone()
    with caplog.at_level(logging.INFO):
        begin_with(network, dict(weights), is_pretrained=True)
    assert "the last layer begins at random" in caplog.text
    assert torch.equal(network.state_dict()["layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert torch.equal(network.fc.weight, last)
    caplog.clear()
    same = ResidualNetwork(18, (3, 64, 64), 1000)
    begin_with(same, dict(weights), is_pretrained=True)
    assert torch.equal(same.fc.weight, weights["fc.weight"])
    assert not caplog.text


def test_weights_of_another_network_are_refused_by_name() -> None:
    weights = dict(ResidualNetwork(20, (1, 8, 8), 2).state_dict())
    with pytest.raises(InitialWeightsError, match=r"fc\.weight is \(2, 64\), here \(3, 64\)"):
        begin_with(ResidualNetwork(20, (1, 8, 8), 3), weights, is_pretrained=False)
    with pytest.raises(InitialWeightsError, match=r"layer1\.3\.conv1\.weight is missing.*and \d+ tensors more"):
        begin_with(ResidualNetwork(32, (1, 8, 8), 2), weights, is_pretrained=True)
    with pytest.raises(InitialWeightsError, match=r"conv1\.weight is \(16, 1, 3, 3\), here \(16, 3, 3, 3\)"):
        begin_with(ResidualNetwork(20, (3, 8, 8), 2), weights, is_pretrained=True)


def test_pretrained_model_that_is_not_given_is_asked_for() -> None:
    assert given_weights(settings(), {}) is None
    with pytest.raises(HyperparameterError, match="'use_pretrained_model' is 1, but the job has no channel 'model'"):
        given_weights(settings(use_pretrained_model=1), {})


def test_model_channel_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    assert initial_weights({}) is None
    (tmp_path / "model.json").touch()
    with pytest.raises(InitialWeightsError, match=r"holds no model\.safetensors.*but: model\.json"):
        initial_weights(model_channel(tmp_path))
    for name in ("model.safetensors", "model.pth"):
        (tmp_path / name).write_bytes(b"no tensors")
        with pytest.raises(InitialWeightsError, match=f"{name} in .* cannot be read"):
            initial_weights(model_channel(tmp_path))
        (tmp_path / name).unlink()
    torch.save([1, 2], tmp_path / "model.pt")
    with pytest.raises(InitialWeightsError, match="holds a list; expected tensors by name"):
        initial_weights(model_channel(tmp_path))


class Opener:
    """What a file of weights may not bring: code that runs when it is read."""

    def __reduce__(self) -> Any:
        return (open, ("/tmp/mooring-test-must-not-exist", "w"))


def test_file_of_weights_runs_no_code(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Opener()}, tmp_path / "model.pth")
    with pytest.raises(InitialWeightsError, match="cannot be read"):
        initial_weights(model_channel(tmp_path))
    assert not Path("/tmp/mooring-test-must-not-exist").exists()


# --- export -----------------------------------------------------------------------------------------------------------


def test_exported_weights_have_the_names_that_published_ones_have(tmp_path: Path) -> None:
    network = ResidualNetwork(20, (1, 8, 8), 2)
    example = torch.rand(2, 1, 8, 8) * 255
    export(Classifier(network), example, ["a", "b"], tmp_path, {"num_layers": "20"}, weights=network.state_dict())
    weights = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    assert {"conv1.weight", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "fc.bias"} <= weights.keys()
    assert not list(tmp_path.glob(".*"))
    start_from(ResidualNetwork(20, (1, 8, 8), 2), weights)


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
