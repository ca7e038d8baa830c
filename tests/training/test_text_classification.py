"""Fine-tuning from the channels to a model that answers; killed and resumed it has the same losses."""

import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers_models
from safetensors.torch import load_file
from text_jobs import fine_tune_here, hf, text_job, texts, write_csv, write_lines
from training_jobs import Job

from mooring.cli.doctor import diagnose
from mooring.contract.errors import HyperparameterError, MissingChannelError
from mooring.handler.load import load_handler
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.resolve import choose_handler
from mooring.handler.terms import LoadTerms
from mooring.training.programs.texts.pretrained import PretrainedModelError
from mooring.training.programs.texts.records import TextDataError

EXPORTED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def fine_tune(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a job's program in this process, as a rank does; returns the job."""

    return lambda job: fine_tune_here(job, monkeypatch)


def reported(job: Job, name: str) -> dict[int, float]:
    """A metric's values by step; of a step that ran again, the last."""
    lines = (job.paths.output_data / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row[name] for row in map(json.loads, lines) if name in row}


def exported(job: Job) -> Any:
    return hf.AutoModelForSequenceClassification.from_pretrained(job.paths.model).eval()


def logits(job: Job, given: list[str]) -> torch.Tensor:
    tokenizer = hf.AutoTokenizer.from_pretrained(job.paths.model)
    with torch.no_grad():
        output: torch.Tensor = exported(job)(
            **tokenizer(given, padding=True, truncation=True, return_tensors="pt")
        ).logits
    return output


def answered(job: Job, given: list[str]) -> list[str]:
    """What serving's handler says of texts."""
    handler = load_handler(choose_handler(job.paths.model, {}), LoadTerms())
    request = InferenceRequest(json.dumps({"inputs": given}).encode(), "application/json", "", {})
    (answer,) = handler.respond([request])
    handler.close()
    assert isinstance(answer, InferenceResponse)
    return [one["label"] for one in json.loads(answer.body)]


# --- one run ----------------------------------------------------------------------------------------------------------


def test_model_that_was_fine_tuned_is_what_serving_loads(tmp_path: Path, fine_tune: Any) -> None:
    job = fine_tune(validated(tmp_path))
    assert reported(job, "validation_accuracy")[24] == reported(job, "validation_f1")[24] == 1
    assert {file.name for file in job.paths.model.iterdir()} == EXPORTED
    assert "for text-classification" in diagnose(job.paths.model, {})
    assert answered(job, ["the quick fox", "politics"]) == ["animal", "person"]


def validated(base: Path, **hyperparameters: Any) -> Job:
    """A job with texts of their own to validate with."""
    job = text_job(base, channels=["validation"], **hyperparameters)
    write_csv(job.paths.channel("validation") / "texts.csv", list(texts(20, seed=1)))
    return job


def test_best_model_is_exported_and_patience_ends_the_run(tmp_path: Path, fine_tune: Any) -> None:
    """What is learnt of labels without sense is no use for other texts, so the loss there only rises."""
    job = validated(tmp_path, epochs=30, metric_for_best_model="loss", early_stopping_patience=2, learning_rate=0.03)
    chance = np.random.default_rng(0)
    rows = [(text, f"label{chance.integers(2)}") for text, _ in texts(48)]
    write_csv(job.paths.channel("train") / "texts.csv", rows)
    held_out = [(text, f"label{chance.integers(2)}") for text, _ in texts(20, seed=1)]
    write_csv(job.paths.channel("validation") / "texts.csv", held_out)
    losses = reported(fine_tune(job), "validation_loss")
    steps = sorted(losses)
    best = min(steps, key=lambda step: losses[step])
    assert best == steps[-3]
    assert steps[-1] < 30 * 6
    targets = torch.tensor([int(label[-1]) for _, label in held_out])
    loss = torch.nn.functional.cross_entropy(logits(job, [text for text, _ in held_out]), targets)
    assert float(loss) == pytest.approx(losses[best], abs=1e-5)


def test_finished_run_only_exports_again(tmp_path: Path, fine_tune: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mooring")
    job = fine_tune(text_job(tmp_path, epochs=1))
    before = (job.paths.model / "model.safetensors").read_bytes()
    shutil.rmtree(job.paths.model)
    rows = (job.paths.output_data / "metrics.jsonl").read_bytes()
    fine_tune(job)
    assert "resumed after step 5" in caplog.text
    assert (job.paths.model / "model.safetensors").read_bytes() == before
    assert (job.paths.output_data / "metrics.jsonl").read_bytes() == rows


def test_parts_of_a_batch_add_up_to_it(tmp_path: Path, fine_tune: Any) -> None:
    losses = []
    for parts in (1, 3):
        job = text_job(tmp_path / str(parts), epochs=1, gradient_accumulation_steps=parts, logging_steps=1)
        shutil.rmtree(job.paths.channel("model"))
        plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        transformers_models.bert(job.paths.channel("model"), hf.BertModel, spread=4.0, **plain)
        losses.append(reported(fine_tune(job), "train_loss"))
    assert list(losses[0]) == [1, 2, 3, 4, 5]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("given", "trained"),
    [
        ({"freeze_base": True}, {"classifier"}),
        ({"freeze_layers": 1}, {"bert.encoder.layer.1", "bert.pooler", "classifier", "bert.embeddings.LayerNorm"}),
    ],
)
def test_frozen_layers_stay_as_they_are(tmp_path: Path, fine_tune: Any, given: Any, trained: set[str]) -> None:
    job = fine_tune(text_job(tmp_path, epochs=1, **given))
    before = load_file(job.paths.channel("model") / "model.safetensors")
    after = {
        name.removeprefix("bert."): value for name, value in load_file(job.paths.model / "model.safetensors").items()
    }
    changed = {name for name, value in before.items() if not torch.equal(value, after[name.removeprefix("bert.")])}
    assert changed == {name for name in before if any(name.startswith(part.removeprefix("bert.")) for part in trained)}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_exports_whole_numbers_of_32_bits(
    tmp_path: Path, fine_tune: Any, precision: str
) -> None:
    job = fine_tune(text_job(tmp_path, epochs=1, precision=precision, logging_steps=1, group_by_length=False))
    assert all(np.isfinite(loss) for loss in reported(job, "train_loss").values())
    assert {tensor.dtype for tensor in load_file(job.paths.model / "model.safetensors").values()} == {torch.float32}


def test_several_labels_a_text(tmp_path: Path, fine_tune: Any) -> None:
    job = text_job(tmp_path, epochs=1)
    shutil.rmtree(job.paths.channel("train"))
    rows = [
        {"text": text, "label": [label, "text"] if index % 3 else []} for index, (text, label) in enumerate(texts(48))
    ]
    write_lines(job.paths.channel("train") / "texts.jsonl", rows)
    config = exported(fine_tune(job)).config
    assert (config.problem_type, config.num_labels) == ("multi_label_classification", 3)
    assert list(config.label2id) == ["animal", "person", "text"]
    assert reported(job, "validation_f1")


def test_pairs_of_texts_and_numbers_in_place_of_labels(tmp_path: Path, fine_tune: Any) -> None:
    job = text_job(tmp_path, epochs=1, num_labels=1, text_column="one", text_pair_column="other", label_column="alike")
    shutil.rmtree(job.paths.channel("train"))
    rows = [{"one": text, "other": text[:9], "alike": len(text) / 60} for text, _ in texts(48)]
    write_lines(job.paths.channel("train") / "texts.jsonl", rows)
    config = exported(fine_tune(job)).config
    assert (config.problem_type, config.num_labels) == ("regression", 1)
    assert -1 <= reported(job, "validation_pearson")[5] <= 1


def test_model_that_reads_the_last_token_learns_with_padding(tmp_path: Path, fine_tune: Any) -> None:
    job = text_job(tmp_path, epochs=1)
    shutil.rmtree(job.paths.channel("model"))
    transformers_models.gpt2(job.paths.channel("model"))
    (label,) = answered(fine_tune(job), ["the quick fox"])
    assert label in ("animal", "person")


def test_texts_that_are_cut_are_counted(tmp_path: Path, fine_tune: Any, caplog: pytest.LogCaptureFixture) -> None:
    job = text_job(tmp_path, epochs=1, max_length=12, validation_split=0, max_steps=1)
    rows = [("quick fox " * 20, "animal"), *texts(47)]
    write_csv(job.paths.channel("train") / "texts.csv", rows)
    fine_tune(job)
    cut = next(record for record in caplog.records if "are cut there" in record.getMessage())
    tokenizer = hf.AutoTokenizer.from_pretrained(job.paths.model)
    longer = sum(len(tokenizer(text)["input_ids"]) > 12 for text, _ in rows)
    assert cut.getMessage() == f"train: {longer} of 48 texts are longer than max_length (12) and are cut there"


# --- what is wrong with a job -----------------------------------------------------------------------------------------


def test_every_bad_hyperparameter_is_named_before_anything_is_read(tmp_path: Path, fine_tune: Any) -> None:
    job = text_job(tmp_path, learning_rate=-1, num_train_epoch=3, max_length="long")
    shutil.rmtree(job.paths.input_data)
    with pytest.raises(HyperparameterError) as caught:
        fine_tune(job)
    assert len(caught.value.problems) == 3


def test_unusable_data_and_models_are_named(tmp_path: Path, fine_tune: Any) -> None:
    job = text_job(tmp_path)
    file = write_csv(job.paths.channel("train") / "texts.csv", [("a", "x"), ("b", "x")])
    with pytest.raises(TextDataError, match="All 2 training texts have the label 'x'"):
        fine_tune(job)
    file.write_text("text,label\nfine,x\n,y\n", encoding="utf-8")
    with pytest.raises(TextDataError, match=r"texts\.csv, line 3: column 'text'"):
        fine_tune(job)
    shutil.rmtree(job.paths.channel("model"))
    job.paths.channel("model").mkdir()
    with pytest.raises(PretrainedModelError, match=r"holds no config\.json, but: nothing"):
        fine_tune(job)
    config = job.paths.input_data_config_file
    config.write_text("{}", encoding="utf-8")
    with pytest.raises(MissingChannelError, match="'train'"):
        fine_tune(job)


def test_label_of_a_validation_text_that_was_never_seen_is_named(tmp_path: Path, fine_tune: Any) -> None:
    job = validated(tmp_path)
    write_csv(job.paths.channel("validation") / "texts.csv", [("fox", "animal"), ("stone", "mineral")])
    with pytest.raises(TextDataError, match=r"texts\.csv, line 3: label 'mineral' is on none .*: animal, person"):
        fine_tune(job)


# --- as the platform runs it ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)  # four starts of two ranks, while others compute
def test_killed_and_stopped_run_has_the_losses_and_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    """Two ranks, three starts: killed after a checkpoint, told to stop, and let go to its end."""
    given: dict[str, Any] = {"logging_steps": 1, "save_steps": 3, "epochs": 4, "gradient_accumulation_steps": 2}
    whole = text_job(tmp_path / "whole", ranks=2, **given)
    code, output = whole.run(OMP_NUM_THREADS="1")
    assert code == 0, output
    expected = reported(whole, "train_loss")
    assert len(expected) == 20
    job = text_job(tmp_path / "broken", ranks=2, **given)
    run = job.start(OMP_NUM_THREADS="1")
    with run.process:
        run.wait_for_line("checkpoint of step 6 is in")
        run.signal(signal.SIGKILL)
        run.wait()
    run = job.start(OMP_NUM_THREADS="1")
    with run.process:
        run.wait_for_line("resumed after step")
        run.wait_for_line("train_loss", 2)
        run.signal()
        assert run.wait() == 0, run.output
    stopped = reported(job, "train_loss")
    assert {file.name for file in job.paths.model.iterdir()} == EXPORTED
    code, output = job.run(OMP_NUM_THREADS="1")
    assert code == 0, output
    if len(stopped) < 20:
        assert f"resumed after step {max(stopped)}" in output
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        assert reported(job, name) == reported(whole, name)
    for file in EXPORTED:
        assert (job.paths.model / file).read_bytes() == (whole.paths.model / file).read_bytes()
