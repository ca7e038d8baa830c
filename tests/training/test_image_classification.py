"""The ready-made program on real images: what it needs, what it leaves, and how it says what is wrong."""

import io
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_jobs import COUNT, LISTED, RECORDED, SETTINGS, answers, classification_job, run_to_its_end, train_here
from jobs import write_config
from pictures import packed, png, write_recorded
from PIL import Image
from safetensors.torch import load_file
from training_jobs import Job

from examples.digits.images import load_split, write_channels
from mooring.artifact.recordio import frame
from mooring.contract.errors import HyperparameterError
from mooring.contract.typed import parse_hyperparameters
from mooring.training.data.images import PictureReader
from mooring.training.distributed import Group
from mooring.training.programs.image_classification import check_counts, write_model
from mooring.training.programs.images.augmentation import Plain, Preparation
from mooring.training.programs.images.settings import Settings

# As MXNet's users, and the SDK's own tests of tuning jobs, write them.
EXPRESSIONS = {
    "train:accuracy": r"Epoch\S* Batch\S*\s.*\saccuracy=(\S+)",
    "train:accuracy:epoch": r"Epoch\[\d+\] Train-accuracy=([0-9\.]+)",
    "validation:accuracy": r"Validation-accuracy=([0-9\.]+)",
    "validation:accuracy:epoch": r".*Epoch\[\d+\] Validation-accuracy=(\d+\.\d+)",
    "time": r".*Epoch\[\d+\] Time.*=([.\d]+)",
}


def values(expression: str, output: str) -> list[float]:
    return [float(value) for value in re.findall(expression, output)]


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_trained_model_serves_as_it_is_exported(tmp_path: Path) -> None:
    """With two ranks, which share batches of nine unevenly."""
    job = classification_job(tmp_path, ranks=2, mini_batch_size=5, epochs=3, top_k=2)
    code, output = run_to_its_end(job)
    assert code == 0, output
    assert {file.name for file in job.paths.model.iterdir()} == {
        "model.onnx",
        "model.safetensors",
        "class_label_to_prediction_index.json",
    }
    labels = json.loads((job.paths.model / "class_label_to_prediction_index.json").read_text(encoding="utf-8"))
    assert labels == {"0": 0, "1": 1}
    accuracies = values(EXPRESSIONS["validation:accuracy"], output)
    assert len(accuracies) == 3
    assert values(r"Validation-top_k_accuracy_2=(\S+)", output) == [1, 1, 1]
    found = answers(job.paths.model, [png(index) for index in range(COUNT)])
    assert np.allclose(np.sum(found, 1), 1, atol=1e-5)
    assert np.mean([np.argmax(row) == index % 2 for index, row in enumerate(found)]) == max(accuracies)
    rows = (job.paths.output_data / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["validation:accuracy"] for row in rows] == pytest.approx(accuracies, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_run_sees_the_same_pixels_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"image_shape": "3,8,8", "epochs": 4}
    settings |= {"augmentation_type": "crop_color_transform", "resize": 9}
    whole = classification_job(tmp_path / "whole", ranks=2, **settings)
    code, expected = run_to_its_end(whole)
    assert code == 0, expected
    killed = classification_job(tmp_path / "killed", ranks=2, **settings)
    run = killed.start()
    with run.process:
        run.wait_for_line("checkpoint of step 4")
        run.signal(signal.SIGKILL)
        run.wait()
    code, output = run_to_its_end(killed)
    assert code == 0, output
    assert "resumed after step" in output
    losses = {line for line in expected.splitlines() if "cross-entropy" in line and line.startswith("Epoch")}
    seen = {line for line in (run.output + output).splitlines() if "cross-entropy" in line and line.startswith("Epoch")}
    assert seen == losses
    after = load_file(killed.paths.model / "model.safetensors")
    assert all(after[name].equal(value) for name, value in load_file(whole.paths.model / "model.safetensors").items())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_run_that_was_finished_only_exports_again(tmp_path: Path) -> None:
    """What ended early has ended, too."""
    stopping: dict[str, Any] = {"early_stopping": True, "early_stopping_min_epochs": 1, "early_stopping_patience": 1}
    job = classification_job(tmp_path, epochs=50, learning_rate=0, **stopping)
    code, output = run_to_its_end(job)
    assert code == 0, output
    assert (
        len(values(EXPRESSIONS["validation:accuracy"], output)) == 2
    )  # without learning nothing improves on the first
    (job.paths.model / "model.onnx").unlink()
    code, output = run_to_its_end(job)
    assert code == 0
    assert "resumed after step 4" in output
    assert "Epoch[" not in output
    assert (job.paths.model / "model.onnx").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_images_of_several_classes_are_told_apart(tmp_path: Path) -> None:
    """From .rec files, in mixed precision, with rare classes weighted."""
    job = classification_job(
        tmp_path,
        channels=RECORDED,
        num_classes=3,
        multi_label=1,
        use_weighted_loss="1",
        precision_dtype="float16",
        kv_store="dist_sync",
        num_training_samples=99,
        optimizer="adam",
        learning_rate=0.001,
    )
    for name in ("train", "validation"):
        write_recorded(job.paths.input_data, name, COUNT, classes=3)
    code, output = run_to_its_end(job)
    assert code == 0, output
    for sentence in ("kv_store is dist_sync, which has no effect", "bfloat16 instead", "num_training_samples is 99"):
        assert output.count(sentence) == 1
    found = np.array(answers(job.paths.model, [png(index) for index in range(4)]))
    assert found.shape == (4, 3)
    assert not np.allclose(found.sum(1), 1, atol=1e-3)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_digits_are_told_apart_and_the_platforms_expressions_find_the_metrics(tmp_path: Path) -> None:
    settings = {
        "num_layers": 18,
        "num_classes": 10,
        "num_training_samples": 1438,
        "mini_batch_size": 32,
        "epochs": 5,
        "learning_rate": 0.02,
        "optimizer": "nag",
        "lr_scheduler_step": "2,4",
        "lr_scheduler_factor": 0.2,
    }
    job = Job.write(tmp_path, hyperparameters=SETTINGS | settings, channels=LISTED)
    job.variables |= {"MOORING_ALGORITHM": "image-classification", "OMP_NUM_THREADS": "1"}
    for name, split in zip(("train", "validation"), load_split(), strict=True):
        for channel in (name, f"{name}_lst"):
            job.paths.channel(channel).rmdir()
        write_channels(split, job.paths.channel(name), job.paths.channel(f"{name}_lst"))
    code, output = run_to_its_end(job)
    assert code == 0, output
    found = {name: values(expression, output) for name, expression in EXPRESSIONS.items()}
    assert {name: len(numbers) for name, numbers in found.items()} == {
        "train:accuracy": 10,  # two in each epoch of 44 batches
        "train:accuracy:epoch": 5,
        "validation:accuracy": 5,
        "validation:accuracy:epoch": 5,
        "time": 5,
    }
    assert max(found["validation:accuracy"]) >= 0.97


@pytest.mark.parametrize("given", [{"resize": 10}, {"resize": 24, "augmentation_type": "crop_color"}])
def test_served_answers_are_those_that_were_validated_whatever_shape_pictures_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """Labels are by chance, so the accuracy is that of these very pixels, and of no others."""
    chance = np.random.default_rng(7)
    pictures = [photograph(chance) for _ in range(24)]
    labels = chance.integers(0, 2, len(pictures))
    for name in ("train", "validation"):
        records = (packed([label], picture) for label, picture in zip(labels, pictures, strict=True))
        (tmp_path / "input/data" / name).mkdir(parents=True)
        (tmp_path / "input/data" / name / "images.rec").write_bytes(b"".join(map(frame, records)))
    described = {"TrainingInputMode": "File", "ContentType": "application/x-recordio"}
    write_config(tmp_path, "inputdataconfig.json", dict.fromkeys(("train", "validation"), described))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    hyperparameters: dict[str, Any] = {"image_shape": "3,8,8", "epochs": 2, "seed": 3} | given
    network = train_here(tmp_path, **hyperparameters)
    settings = parse_hyperparameters(Settings, SETTINGS | hyperparameters)
    (tmp_path / "model").mkdir()
    write_model(settings, network, ["0", "1"], tmp_path / "model")
    found = np.array(answers(tmp_path / "model", pictures))
    rows = (tmp_path / "output/data/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    validated = max(json.loads(row)["validation:accuracy"] for row in rows)
    assert np.mean(found.argmax(1) == labels) == pytest.approx(validated)
    preparation = Preparation.of(settings)
    reader = PictureReader(3, Plain(preparation), preparation.fit.least_side)
    with torch.no_grad():
        pixels = torch.stack([reader.pixels(picture, 0) for picture in pictures])
        expected = torch.softmax(network.eval()(pixels), 1).numpy()
    assert np.abs(found - expected).max() < 1e-4


def photograph(chance: np.random.Generator) -> bytes:
    """A JPEG of coarse noise, wide or high, large enough to be decoded at a part of its size."""
    coarse = Image.fromarray(chance.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    width, height = (int(side) for side in chance.integers(12, 200, 2))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_missing_channel_is_named(tmp_path: Path) -> None:
    channels = {name: LISTED[name] for name in ("train", "train_lst")}
    job = classification_job(tmp_path, channels=channels)
    assert run_to_its_end(job)[0] == 1
    assert job.failure.startswith("MissingChannelError: Channel 'validation' was not given to this job")


def test_every_bad_hyperparameter_is_named_before_data_is_read(tmp_path: Path) -> None:
    job = classification_job(tmp_path, channels={}, epochs="ten", learning_rate=-1, num_layer=8, top_k=3)
    assert run_to_its_end(job)[0] == 1
    for sentence in (
        "'epochs' is \"ten\"; expected an integer",
        "'learning_rate' is -1",
        "did you mean 'num_layers'?",
        "'top_k' is 3; expected at most num_classes, which is 2",
    ):
        assert sentence in job.failure


@pytest.mark.slow
def test_truncated_image_is_named(tmp_path: Path) -> None:
    job = classification_job(tmp_path)
    file = job.paths.channel("train") / "3.png"
    file.write_bytes(png(3)[:60])
    assert run_to_its_end(job)[0] == 1
    assert job.failure.startswith(f"ImageError: {file}: the picture is damaged")


@pytest.mark.parametrize(("size", "hosts"), [(1, 1), (17, 1), (9, 2)])
def test_batch_that_ranks_or_images_cannot_fill_is_refused(size: int, hosts: int) -> None:
    settings = parse_hyperparameters(Settings, SETTINGS | {"mini_batch_size": size})
    group = Group(rank=0, world_size=2, local_rank=0, device=torch.device("cpu"))
    with pytest.raises(HyperparameterError) as caught:
        check_counts(settings, COUNT, size * hosts, group)
    assert f"is {size}, {size * hosts} in all; expected 2 (the ranks) to 16" in str(caught.value)


def test_hosts_that_have_other_images_are_named_on_all_ranks(tmp_path: Path) -> None:
    """Each would otherwise wait for batches that the other does not have."""
    script = """
from mooring.training import process_group
from mooring.training.programs.image_classification import check_replicated
with process_group() as group:
    check_replicated(f"algo-{group.rank + 1}", train=10, validation=4)
    check_replicated(f"algo-{group.rank + 1}", train=10, validation=4 + group.rank)
"""
    job = Job.write(tmp_path, script, ranks=2)
    assert run_to_its_end(job)[0] == 1
    assert "Channel 'validation' holds other images on other hosts (4 on algo-1, 5 on algo-2)" in job.failure
