"""Jobs that fine-tune: small texts with labels, a small pretrained model, and the channels that hold them."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import transformers
import transformers_models
from training_jobs import Job

from mooring.training.programs import text_classification

hf: Any = transformers

ANIMALS = ("quick", "brown", "fox", "jumps", "lazy", "dog")
PEOPLE = ("sports", "politics", "man", "eating", "bread", "berlin")
LABELS = ("animal", "person")


def texts(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield texts about animals and about people, with their labels."""
    chance = random.Random(seed)
    for index in range(count):
        words = (ANIMALS, PEOPLE)[index % 2]
        yield " ".join(chance.choices(words, k=chance.randint(2, 9))), LABELS[index % 2]


def write_csv(file: Path, rows: Sequence[tuple[str, str]] | None = None, header: str = "text,label") -> Path:
    """Write texts with their labels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'"{text}",{label}' for text, label in rows or list(texts(48))]
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return file


def write_lines(file: Path, rows: Sequence[Any]) -> Path:
    """Write objects as JSON Lines; a string is a line as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def base_model(path: Path) -> Path:
    """A BERT without a classifier."""
    return transformers_models.bert(path, hf.BertModel, spread=4.0)


def fine_tune_here(job: Job, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run a job's program in this process, as the only rank; returns the job."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(job.base))
    monkeypatch.setenv("MOORING_ALGORITHM", "text-classification")
    try:
        text_classification.main()
    finally:
        if dist.is_initialized():  # a rank that fails ends without leaving
            dist.destroy_process_group()
    return job


def text_job(base: Path, ranks: int = 1, channels: Sequence[str] = (), **hyperparameters: Any) -> Job:
    """A job with texts and a model without a classifier."""
    usual = {"algorithm": "text-classification", "epochs": 4, "mini_batch_size": 8, "learning_rate": 0.01}
    names = dict.fromkeys(("train", "model", *channels))
    job = Job.write(base, hyperparameters=usual | hyperparameters, channels=names, ranks=ranks)
    write_csv(job.paths.channel("train") / "texts.csv")
    base_model(job.paths.channel("model"))
    return job
