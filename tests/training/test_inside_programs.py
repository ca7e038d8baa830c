"""The ready-made programs looked into: profiled if that is asked for, and their losses always watched."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from image_jobs import train_here
from jobs import write_config
from pictures import write_recorded
from safetensors.torch import load_file, save_file
from text_jobs import fine_tune_here, text_job

from mooring.training.profiling.summary import read_profile
from mooring.training.programs.images.residual_network import ResidualNetwork
from mooring.training.watches import TroubleError

PHASES = {"data", "forward", "backward", "optimizer", "other"}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A job with images: 16 to train with, which are two steps an epoch."""
    for name in ("train", "validation"):
        write_recorded(tmp_path / "input/data", name, 16)
    described = {"TrainingInputMode": "File", "ContentType": "application/x-recordio"}
    write_config(tmp_path, "inputdataconfig.json", dict.fromkeys(("train", "validation"), described))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    caplog.set_level(logging.WARNING, logger="mooring")
    return tmp_path


def fine_tune(base: Path, monkeypatch: pytest.MonkeyPatch, *, is_broken: bool = False, **given: Any) -> Path:
    """Run text-classification in this process; returns the job's folder."""
    job = text_job(base, **given)
    if is_broken:
        file = job.paths.channel("model") / "model.safetensors"
        weights = load_file(file)
        name = next(name for name in weights if "word_embeddings" in name)
        save_file(weights | {name: torch.full_like(weights[name], torch.nan)}, file, metadata={"format": "pt"})
    return fine_tune_here(job, monkeypatch).base


def test_images_are_profiled_by_step_and_phase_if_asked(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(images, epochs=1)
    assert not (images / "output/data/profile").exists()
    monkeypatch.setenv("MOORING_PROFILE", "true")
    train_here(images, epochs=3)
    profile = read_profile(images / "output/data/profile")
    assert set(profile.phases()) == PHASES
    assert set(profile.outside()) == {"validation", "checkpoint"}
    assert {step.number for _, step in profile.slowest(9)} == {3, 4, 5, 6}
    assert "forward" in (images / "output/data/profile/report.html").read_text(encoding="utf-8")


def test_texts_are_profiled_where_the_platforms_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With validations, checkpoints and the end of epochs between steps, none of which ends the batches."""
    write_config(tmp_path, "profilerconfig.json", {"LocalPath": str(tmp_path / "here")})
    base = fine_tune(tmp_path, monkeypatch, epochs=2, eval_steps=3, save_steps=2, gradient_accumulation_steps=2)
    profile = read_profile(base / "here")
    assert set(profile.phases()) == PHASES | {"checkpoint"}
    assert set(profile.outside()) == {"validation", "checkpoint"}
    assert profile.ranks[0].count == 10


@pytest.mark.parametrize("asked", ["", "stop"])
def test_texts_whose_loss_is_not_finite_are_told_or_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    monkeypatch.setenv("MOORING_WATCHES", asked)
    if not asked:
        base = fine_tune(tmp_path, monkeypatch, is_broken=True, epochs=1)
        assert "The loss is nan at step 1. It is not told again." in caplog.text
        assert (base / "model/model.safetensors").exists()
        return
    write_config(tmp_path, "debughookconfig.json", {"HookParameters": {"save_interval": "2"}})
    with pytest.raises(TroubleError, match=r"The loss is nan at step 1\. .*The run was stopped before this step"):
        fine_tune(tmp_path, monkeypatch, is_broken=True, epochs=1)
    assert not (tmp_path / "model/model.safetensors").exists()


def test_images_whose_loss_is_not_finite_are_told(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = ResidualNetwork(20, (1, 8, 8), 2).state_dict()
    weights["fc.bias"].fill_(torch.nan)
    train_here(images, weights, epochs=1)
    assert "The loss is nan at step 1." in caplog.text
    assert "gradient" not in caplog.text


def test_gradients_are_watched_if_the_job_says_what_is_trouble(
    images: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(
        images, "debughookconfig.json", {"S3OutputPath": "s3://bucket/", "LocalPath": "/opt/ml/output/tensors"}
    )
    train_here(images, epochs=1)
    assert not caplog.text
    write_config(images, "debughookconfig.json", {"HookParameters": {"every": "2", "exploding_norm": "1e-12"}})
    shutil.rmtree(images / "checkpoints")
    train_here(images, epochs=1)
    assert "The gradient of 'fc.weight' has a norm of" in caplog.text
    caplog.clear()
    monkeypatch.setenv("MOORING_WATCHES", "off")
    train_here(images, epochs=2)
    assert not caplog.text
