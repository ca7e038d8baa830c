"""The parts of text-classification: what is read, what labels mean, when things happen, and how good a model is."""

import gzip
import http.server
import json
import logging
import random
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers_models
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error
from text_jobs import base_model, hf, write_csv, write_lines

from mooring.artifact.archive import pack
from mooring.contract.channels import Channel, InputMode
from mooring.contract.errors import HyperparameterError, MissingChannelError
from mooring.contract.typed import parse_hyperparameters
from mooring.training.distributed import Group, process_group
from mooring.training.programs.texts.best_step import BestStep, better
from mooring.training.programs.texts.channels import check_channels, labelled_texts, split
from mooring.training.programs.texts.labels import Labels
from mooring.training.programs.texts.order import LengthGroupedSampler
from mooring.training.programs.texts.pace import Pace
from mooring.training.programs.texts.pretrained import Pretrained, PretrainedModelError, pretrained_folder
from mooring.training.programs.texts.records import LabelledText, TextDataError
from mooring.training.programs.texts.schedule import Schedule
from mooring.training.programs.texts.scores import Scores
from mooring.training.programs.texts.settings import Metric, Problem, Settings, metric_of
from mooring.training.retention import Best, Retention
from mooring.training.sampler import DataPosition

ALONE = Group(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def settings(**given: Any) -> Settings:
    return parse_hyperparameters(Settings, given)


# --- hyperparameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"mini_batch_size": 8, "per_device_train_batch_size": 4}, "both say how large a batch is"),
        ({"precision": "bfloat16", "fp16": True}, "ask for bfloat16 and float16"),
        ({"num_labels": 1, "problem_type": "single_label_classification"}, "a regression has one"),
        ({"num_labels": 3, "problem_type": "regression"}, "a regression has one"),
        ({"num_labels": 1, "metric_for_best_model": "f1"}, "expected, for regression: mse, pearson, loss"),
        ({"num_labels": 1, "label_smoothing": 0.1}, "'label_smoothing' is 0.1; expected 0"),
        (
            {"problem_type": "multi_label_classification", "label_smoothing": 0.1},
            "'label_smoothing' is 0.1; expected 0",
        ),
        ({"learning_rate": 0}, "'learning_rate' is 0; expected more than 0"),
        ({"warmup_ratio": 1.5}, "'warmup_ratio' is 1.5; expected at most 1"),
        ({"num_train_epoch": 3}, "did you mean 'num_train_epochs'?"),
    ],
)
def test_settings_that_cannot_be_are_explained(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        settings(**given)
    assert sentence in str(caught.value)


def test_names_of_the_hugging_face_examples_mean_the_same() -> None:
    theirs = settings(
        model_name="bert", num_train_epochs="2", train_batch_size=4, max_seq_length=64, fp16=True, save_total_limit=3,
        label_column_name="y", per_device_eval_batch_size=7, label_smoothing_factor=0.1, load_best_model_at_end=False,
    )  # fmt: skip
    ours = settings(
        model_name_or_path="bert", epochs=2, per_device_train_batch_size=4, max_length=64, precision="float16",
        keep_checkpoints=3, label_column="y", eval_batch_size=7, label_smoothing=0.1, export_best=False,
    )  # fmt: skip
    assert theirs.computes_in == ours.computes_in == "float16"
    assert theirs.max_length == ours.max_length == 64
    assert (theirs.epochs, theirs.keep_checkpoints, theirs.export_best) == (2, 3, False)


def test_batch_of_each_rank_is_multiplied_and_a_steps_is_not() -> None:
    assert settings(per_device_train_batch_size=4, gradient_accumulation_steps=2).batch_size(world_size=3) == 24
    assert settings(mini_batch_size=24, gradient_accumulation_steps=2).batch_size(world_size=3) == 24


@pytest.mark.parametrize(("problem", "metric"), [("SINGLE_LABEL", "mse"), ("REGRESSION", "accuracy")])
def test_metric_of_another_problem_is_refused_once_the_problem_is_known(problem: str, metric: str) -> None:
    with pytest.raises(HyperparameterError, match=f"'metric_for_best_model' is \"{metric}\"; expected, for"):
        metric_of(settings(metric_for_best_model=metric), Problem[problem])


# --- reading ----------------------------------------------------------------------------------------------------------


def read(folder: Path, content_type: str | None = None, **given: Any) -> list[LabelledText]:
    return labelled_texts(Channel("train", folder, content_type=content_type), settings(**given), ALONE)


def told(texts: list[LabelledText]) -> list[tuple[str, str | None, Any]]:
    return [(text.text, text.pair, text.label) for text in texts]


def test_csv_has_its_columns_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('label,id,sentence\npos,1,"good, really"\n\nneg,2,bad\n', encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_text("review\tstars\nso\t3\n", encoding="utf-8")
    with pytest.raises(TextDataError, match=r"a\.tsv, line 2: there is no column 'text' or 'sentence'"):
        read(tmp_path)
    (tmp_path / "a.tsv").unlink()
    assert told(read(tmp_path)) == [("good, really", None, "pos"), ("bad", None, "neg")]


def test_compressed_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\nso,good\n"))
    assert told(read(tmp_path)) == [("so", None, "good")]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\nso,good\n")[:-12])
    with pytest.raises(TextDataError, match=r"a\.csv\.gz: its gzip ends before it does"):
        read(tmp_path)


def test_columns_and_pairs_are_named_by_hyperparameters(tmp_path: Path) -> None:
    rows = [{"premise": "it rains", "hypothesis": "it is wet", "gold": 1}]
    write_lines(tmp_path / "a.jsonl", rows)
    given = {"text_column": "premise", "text_pair_column": "hypothesis", "label_column": "gold"}
    assert told(read(tmp_path, **given)) == [("it rains", "it is wet", 1)]


def test_columns_are_counted_in_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,first\n0,second\n", encoding="utf-8")
    assert told(read(tmp_path, label_column=0, text_column=1)) == [("first", None, "1"), ("second", None, "0")]


def test_folder_of_texts_for_each_label(tmp_path: Path) -> None:
    for label in ("pos", "neg"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_text(f" it is {label}\n", encoding="utf-8")
    assert told(read(tmp_path)) == [("it is neg", None, "neg"), ("it is pos", None, "pos")]


def test_content_type_tells_the_format_where_names_do_not(tmp_path: Path) -> None:
    write_lines(tmp_path / "part-0000", [{"text": "a", "label": "x"}])
    assert told(read(tmp_path, "application/jsonlines")) == [("a", None, "x")]


def test_other_files_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_csv(tmp_path / "a.csv")
    (tmp_path / "notes.md").write_text("about", encoding="utf-8")
    (tmp_path / ".hidden.csv").write_text("nonsense", encoding="utf-8")
    assert len(read(tmp_path)) == 48
    assert [record.getMessage().split(" is left out")[0] for record in caplog.records] == [str(tmp_path / "notes.md")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"text,label\nfine,x\n,x\n", "a.csv, line 3: column 'text' is \"\"; expected a text"),
        ("a.csv", b"text,label\nfine,\n", "a.csv, line 2: column 'label' is \"\"; expected a label"),
        ("a.csv", b"text,label\none, two,x\n", "a.csv, line 2: has 3 fields where the first line has 2"),
        ("a.csv", b'text,label\n"two\nlines",x\n,y\n', "a.csv, line 4: column 'text'"),
        ("a.csv", b'text,label\nok,x\n"open,x\nand,y\n', "a.csv, line 3: a quoted field has no end"),
        ("a.csv", b"text,label\nok,x\n\xff,x\n", "a.csv, line 3: byte 1 is 0xff, which is not UTF-8"),
        (
            "a.csv",
            b"text\nok\n",
            "line 2: there is no column 'label' or 'labels'; its columns are 'text'. .*label_column",
        ),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"', "a.jsonl, line 2, column 13: is not JSON"),
        ("a.jsonl", b'["a", 1]\n', 'a.jsonl, line 1: holds \\["a", 1\\]; expected an object'),
        ("a.jsonl", b'\n{"text": 3, "label": 1}\n', "a.jsonl, line 2: column 'text' is 3; expected a text"),
        ("a.jsonl", b'{"text": "a", "label": null}\n', "column 'label' is null; expected a label"),
        ("x/a.txt", b"  \n", "a.txt: is empty"),
        ("x/a.txt", b"\xff", "a.txt: is not UTF-8"),
        ("a.csv", b"text,label\n", "'train' holds no texts, but: a.csv"),
        ("a.parquet", b"PAR1", "'train' holds no texts, but: a.parquet; expected CSV"),
    ],
)
def test_line_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextDataError, match=sentence):
        read(tmp_path)


def test_all_problems_are_named_at_once_up_to_twenty(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": "", "label": 1}] * 30)
    write_lines(tmp_path / "b.jsonl", ["torn", {"text": "read", "label": 1}])
    with pytest.raises(TextDataError) as caught:
        read(tmp_path)
    assert len(caught.value.problems) == 31
    assert str(caught.value).endswith("and 11 more like these")


def test_empty_channel_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(TextDataError, match="holds no texts, but: nothing; expected CSV with a header line"):
        read(tmp_path)


def test_channels_are_checked_before_they_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MissingChannelError, match="'train'"):
        check_channels({}, settings())
    for told, problem in ((None, "it has no content type"), ("text/plain", 'its content type is "text/plain"')):
        pipe = Channel("train", tmp_path, mode=InputMode.PIPE, content_type=told)
        with pytest.raises(
            TextDataError, match=f"through a pipe, where no name of a file .*, and {problem}; expected text/csv"
        ):
            check_channels({"train": pipe}, settings())
    whole = Channel("train", tmp_path)
    with pytest.raises(HyperparameterError, match="nothing tells when to stop"):
        check_channels({"train": whole}, settings(validation_split=0, early_stopping_patience=1))
    check_channels({"train": whole, "test": whole}, settings())
    assert "channel 'test' is not read" in caplog.text


def test_split_is_a_part_drawn_by_the_seed() -> None:
    texts = [labelled(str(index), "x") for index in range(50)]
    train, held_out = split(texts, settings(validation_split=0.2, seed=3))
    assert (len(train), len(held_out)) == (40, 10)
    assert {*train, *held_out} == {*texts}
    assert split(texts, settings(validation_split=0.2, seed=3)) == (train, held_out)
    assert split(texts, settings(validation_split=0.2, seed=4)) != (train, held_out)
    assert split(texts, settings(validation_split=0)) == (texts, [])


# --- labels -----------------------------------------------------------------------------------------------------------


def labelled(text: str, label: Any, line: int = 1) -> LabelledText:
    return LabelledText(text, None, label, "a.csv", line)


def rows(*given: Any) -> list[LabelledText]:
    return [labelled("text", label, line) for line, label in enumerate(given, start=2)]


@pytest.mark.parametrize(
    ("given", "hyperparameters", "of_model", "names"),
    [
        (("b", "a", "b"), {}, None, ("a", "b")),
        (("10", "2", 1.0), {}, None, ("1", "2", "10")),
        ((0, 2), {"num_labels": 4}, None, ("0", "1", "2", "3")),
        ((True, False), {}, None, ("False", "True")),
        (("good", "bad"), {}, ("bad", "okay", "good"), ("bad", "okay", "good")),
        (("0", "1"), {}, ("NEGATIVE", "POSITIVE"), ("NEGATIVE", "POSITIVE")),
        (("0", "2"), {}, ("NEGATIVE", "POSITIVE"), ("0", "2")),
        (("0", "1"), {}, ("contradiction", "neutral", "entailment"), ("0", "1")),
        (("yes", "no"), {}, ("NEGATIVE", "POSITIVE"), ("no", "yes")),
        ((["a", "b"], ["c"]), {}, None, ("a", "b", "c")),
        (("a,b", "['c']", '["a"]'), {"problem_type": "multi_label_classification"}, None, ("a", "b", "c")),
    ],
)
def test_labels_are_the_models_where_it_knows_them_else_those_of_the_texts(
    given: Any, hyperparameters: Any, of_model: Any, names: Any
) -> None:
    labels = Labels.of(rows(*given), settings(**hyperparameters), of_model)
    assert labels.names == names
    assert labels.is_of_model == (of_model == names)


def test_targets_are_indexes_rows_or_numbers() -> None:
    single = Labels.of(rows("b", "a"), settings(), None)
    assert single.targets(rows("a", "b", "b")).tolist() == [0, 1, 1]
    several = Labels.of(rows(["b"], ["a", "c"]), settings(), None)
    assert several.targets(rows(["c", "a"], [])).tolist() == [[1, 0, 1], [0, 0, 0]]
    number = Labels.of(rows("1.5", 2), settings(num_labels=1), None)
    assert (number.problem, number.count, number.targets(rows("1.5", 2)).tolist()) == (Problem.REGRESSION, 1, [1.5, 2])
    counted = Labels.of(rows(0, 1), settings(), ("NEGATIVE", "POSITIVE"))
    assert counted.targets(rows("1", "NEGATIVE")).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("given", "hyperparameters", "sentence"),
    [
        (("x", "x"), {}, "All 2 training texts have the label 'x'; a classifier needs two"),
        (("x", ["x", "y"]), {}, r"a\.csv, line 3: the label is \['x', 'y'\]; expected one label"),
        ((["x"], "y"), {}, r"a\.csv, line 3: the label is 'y'; expected a list of labels"),
        (("a", "b", "c"), {"num_labels": 2}, "num_labels is 2, but the training texts have 3: a, b, c"),
        (("a", "b"), {"num_labels": 5}, "num_labels is 5, but the training texts have 2: a, b"),
    ],
)
def test_labels_that_do_not_go_together_are_explained(given: Any, hyperparameters: Any, sentence: str) -> None:
    with pytest.raises(TextDataError, match=sentence):
        Labels.of(rows(*given), settings(**hyperparameters), None)


def test_label_that_is_on_no_training_text_is_named_by_its_line() -> None:
    labels = Labels.of(rows("a", "b"), settings(), None)
    with pytest.raises(TextDataError, match=r"a\.csv, line 3: label 'c' is on none of the training texts.*a, b"):
        labels.targets(rows("a", "c"))
    numbers = Labels(Problem.REGRESSION, ())
    with pytest.raises(TextDataError, match=r"(?s)line 3: the label is 'c'; expected a number.*line 4.*finite"):
        numbers.targets(rows(1, "c", "nan"))


# --- when and how good ------------------------------------------------------------------------------------------------


def test_rate_rises_falls_and_ends_at_nothing() -> None:
    schedule = Schedule.of(settings(epochs=2, mini_batch_size=10, warmup_ratio=0.2), texts=105, world_size=1)
    assert (schedule.steps, schedule.steps_per_epoch, schedule.warmup) == (20, 10, 4)
    assert [schedule.rate(step) for step in (0, 3, 4, 12, 20)] == pytest.approx([0.2, 0.8, 1, 0.5, 0])
    for form, half_way in (("cosine", 0.5), ("constant", 1)):
        other = Schedule.of(
            settings(max_steps=20, mini_batch_size=10, warmup_steps=4, lr_scheduler_type=form), texts=105, world_size=1
        )
        assert other.rate(12) == pytest.approx(half_way)


def test_validation_is_due_after_epochs_or_as_often_as_asked_and_at_the_end() -> None:
    schedule = Schedule.of(settings(max_steps=25, mini_batch_size=10), texts=100, world_size=1)
    assert [step for step in range(1, 26) if schedule.evaluates_after(step)] == [10, 20, 25]
    often = Schedule.of(settings(epochs=1, mini_batch_size=10, eval_steps=4, save_steps=3), texts=100, world_size=1)
    assert [step for step in range(1, 11) if often.evaluates_after(step)] == [4, 8, 10]
    assert [step for step in range(1, 13) if often.saves_after(step)] == [3, 6, 9]
    assert often.epoch(5) == 0.5


@pytest.mark.parametrize(("size", "texts", "ranks"), [(32, 20, 1), (2, 20, 4)])
def test_batch_that_does_not_fit_is_explained(size: int, texts: int, ranks: int) -> None:
    with pytest.raises(HyperparameterError, match=f"is {size}; expected from {ranks}, .* to {texts},"):
        Schedule.of(settings(mini_batch_size=size), texts, ranks)


LENGTHS = np.random.default_rng(0).integers(1, 500, 1009)


def grouped(position: DataPosition, rank: int = 0, world_size: int = 1) -> LengthGroupedSampler:
    return LengthGroupedSampler(LENGTHS, 8, position, seed=1, rank=rank, world_size=world_size)


def test_batches_are_of_like_length_and_hold_each_text_once() -> None:
    batches = list(grouped(DataPosition()))
    used = list(chain(*batches))
    assert len(used) == len(set(used)) == 1008
    spreads = [LENGTHS[batch].max() - LENGTHS[batch].min() for batch in batches]
    assert np.mean(spreads) < 30
    longest = [LENGTHS[batch].max() for batch in batches]
    assert np.corrcoef(longest[:-1], longest[1:])[0, 1] < 0.2  # long and short ones come by chance


def test_ranks_share_grouped_batches_and_a_resumed_run_goes_on_with_them() -> None:
    whole = [set(batch) for batch in grouped(DataPosition(epoch=2))]
    shares = zip(*(grouped(DataPosition(epoch=2), rank, 3) for rank in range(3)), strict=True)
    assert [set(chain(*share)) for share in shares] == whole
    assert [set(batch) for batch in grouped(DataPosition(2, 80))] == whole[10:]
    assert [set(batch) for batch in grouped(DataPosition(epoch=3))] != whole


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.LOSS])
def test_best_step_is_the_one_whose_checkpoint_stays(metric: Metric) -> None:
    chance = random.Random(4)
    for _ in range(50):
        best = BestStep(better(metric))
        seen: dict[int, float | None] = {}
        for step in range(1, 9):
            seen[step] = chance.choice((0.1, 0.2, 0.3))
            best.add(seen[step], step)
            assert best.step in Retention(last=1, best=better(metric)).kept({best.step: seen[best.step]} | seen)
            assert best.value == seen[best.step]


def test_patience_counts_validations_that_are_no_better() -> None:
    best = BestStep(Best.HIGHEST)
    for step, value in enumerate((0.5, 0.6, 0.6, 0.4, float("nan"), None), start=1):
        best.add(value, step)
    assert (best.value, best.step, best.waited, best.judged) == (0.6, 3, 3, 6)
    assert best.is_over(3)
    assert not best.is_over(4)
    assert not best.is_over(None)
    other = BestStep(Best.HIGHEST)
    other.load_state_dict(best.state_dict())
    assert other == best


def test_pace_says_where_a_run_is_and_what_is_left() -> None:
    schedule = Schedule.of(settings(max_steps=200, mini_batch_size=10), texts=100, world_size=1)
    told = Pace(40).told(50, schedule)
    assert re.fullmatch(r"step 50 of 200 \(25%\), \d+ texts/s, (\d+ (s|min|h) ?)+left", told), told


@pytest.fixture
def group() -> Iterator[Group]:
    with process_group() as alone:
        yield alone


def scored(problem: Problem, labels: int, logits: Any, targets: torch.Tensor) -> dict[Metric, float]:
    scores = Scores(problem, labels, torch.device("cpu"))
    for half in (slice(0, 13), slice(13, None)):
        scores.add(logits[half], targets[half], torch.tensor(float(len(targets[half]))))
    return scores.together()


@pytest.mark.usefixtures("group")
def test_metrics_are_those_of_scikit_learn() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 4), torch.randint(0, 3, (50,))
    found = logits[:, :4].argmax(1)
    assert scored(Problem.SINGLE_LABEL, 4, logits, targets) == pytest.approx(
        {
            Metric.ACCURACY: accuracy_score(targets, found),
            Metric.F1: f1_score(targets, found, average="macro", zero_division=0),
            Metric.LOSS: 1,
        }
    )
    several = torch.randint(0, 2, (50, 4)).float()
    assert scored(Problem.MULTI_LABEL, 4, logits, several) == pytest.approx(
        {
            Metric.ACCURACY: accuracy_score(several, logits > 0),
            Metric.F1: f1_score(several, logits > 0, average="macro"),
            Metric.LOSS: 1,
        }
    )
    numbers, wanted = torch.randn(50, 1), torch.randn(50)
    assert scored(Problem.REGRESSION, 1, numbers, wanted) == pytest.approx(
        {
            Metric.MSE: mean_squared_error(wanted, numbers),
            Metric.PEARSON: pearsonr(numbers[:, 0].double(), wanted.double()).statistic,
            Metric.LOSS: 1,
        }
    )


@pytest.mark.usefixtures("group")
def test_numbers_that_do_not_vary_correlate_with_nothing() -> None:
    assert scored(Problem.REGRESSION, 1, torch.ones(20, 1), torch.arange(20.0))[Metric.PEARSON] == 0


# --- the model to begin with ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model(tmp_path_factory.mktemp("pretrained") / "base")


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copied"))


TWO = Labels(Problem.SINGLE_LABEL, ("animal", "person"))


def test_model_without_a_classifier_gets_a_new_one_and_says_so(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mooring")
    pretrained = Pretrained.read(base)
    assert pretrained.labels is None
    model: Any = pretrained.classifier(TWO)
    assert "new and begin at random: classifier.bias, classifier.weight" in caplog.text
    assert model.config.id2label == {0: "animal", 1: "person"}
    assert model.config.problem_type == "single_label_classification"


def test_classifier_for_the_same_labels_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mooring")
    ids = {0: "person", 1: "animal"}
    folder = transformers_models.bert(tmp_path, hf.BertForSequenceClassification, id2label=ids)
    pretrained = Pretrained.read(folder)
    assert pretrained.labels == ("person", "animal")
    labels = Labels.of(rows("animal", "person"), settings(), pretrained.labels)
    pretrained.classifier(labels)
    assert "new" not in caplog.text
    pretrained.classifier(TWO)
    assert "had for other labels: person, animal, now animal, person" in caplog.text
    three: Any = pretrained.classifier(Labels(Problem.SINGLE_LABEL, ("a", "b", "c")))
    assert three.classifier.weight.shape[0] == 3
    assert "new and begin at random: classifier.bias, classifier.weight" in caplog.text


@pytest.mark.parametrize("name", ["BertForQuestionAnswering", "BertForMaskedLM"])
def test_model_for_another_task_of_text_gives_all_but_its_last_layers(tmp_path: Path, name: str) -> None:
    folder = transformers_models.bert(tmp_path, getattr(hf, name))
    assert Pretrained.read(folder).labels is None
    Pretrained.read(folder).classifier(TWO)


def test_model_that_reads_no_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PretrainedModelError, match=r"classifies no texts \(ViTForImageClassification, of type vit\)"):
        Pretrained.read(transformers_models.vit(tmp_path))


def test_tokenizer_that_is_missing_or_anothers_is_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps(config | {"vocab_size": 20}), encoding="utf-8")
    with pytest.raises(PretrainedModelError, match=r"another model's tokenizer: it has 85 tokens, the model 20"):
        Pretrained.read(copied)
    for file in copied.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(PretrainedModelError, match=r"no tokenizer .*vocab\.txt.*but: config\.json, model\.safetensors"):
        Pretrained.read(copied)


def test_weights_of_another_model_are_refused(copied: Path, tmp_path: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}), encoding="utf-8")
    with pytest.raises(PretrainedModelError, match=r"16 tensors are missing or of another shape, such as bert.encoder"):
        Pretrained.read(copied).classifier(TWO)
    (copied / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(PretrainedModelError, match="cannot be read"):
        Pretrained.read(copied).classifier(TWO)


def test_folder_that_is_no_transformers_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(PretrainedModelError, match=r"holds no config\.json, but: model\.onnx"):
        Pretrained.read(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(PretrainedModelError, match="cannot be read"):
        Pretrained.read(tmp_path)


def test_more_tokens_than_the_model_takes_are_refused(base: Path) -> None:
    pretrained = Pretrained.read(base)
    assert (pretrained.max_length(None), pretrained.max_length(16)) == (64, 16)
    with pytest.raises(HyperparameterError, match="'max_length' is 100; expected at most 64, which this model takes"):
        pretrained.max_length(100)


def test_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    pretrained = Pretrained.read(transformers_models.gpt2(tmp_path))
    model: Any = pretrained.classifier(TWO)
    assert (pretrained.tokenizer.pad_token, model.config.pad_token_id) == ("</s>", 1)


def found(channels: dict[str, Path], group: Group, **given: Any) -> list[str]:
    """The names of the files in the folder that is found."""
    named = {name: Channel(name, path) for name, path in channels.items()}
    with pretrained_folder(named, settings(**given), group) as folder:
        return sorted(path.name for path in folder.iterdir())


def test_model_may_be_a_folder_one_within_or_an_archive(base: Path, tmp_path: Path, group: Group) -> None:
    files = sorted(path.name for path in base.iterdir())
    for name in ("archive", "outer"):
        (tmp_path / name).mkdir()
    pack(base, tmp_path / "archive/model.tar.gz")
    shutil.copytree(base, tmp_path / "outer/inner")
    for path in (base, tmp_path / "archive", tmp_path / "outer"):
        assert found({"model": path}, group) == files
        assert found({}, group, model_name_or_path=str(path)) == files or path.name == "archive"


def test_model_that_is_given_twice_or_not_at_all_is_explained(base: Path, group: Group) -> None:
    with pytest.raises(HyperparameterError, match="\"bert-tiny\"; expected none, since there is a channel 'model'"):
        found({"model": base}, group, model_name_or_path="bert-tiny")
    with pytest.raises(PretrainedModelError, match=r"no model to begin with.*'model_name_or_path'.*given are: 'train'"):
        found({"train": base}, group)


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """A hub that has one model, `team/tiny`, as far as fetching it goes."""
    names = sorted(path.name for path in folder.iterdir())

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self, *, with_body: bool = True) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            held = [*names, "onnx/model.safetensors", "code.py"]
            if self.path.startswith("/api/models/team/tiny/revision/main"):
                siblings = [{"rfilename": name} for name in held]
                body = json.dumps({"id": "team/tiny", "sha": "a" * 40, "siblings": siblings}).encode()
            elif self.path.startswith("/api/models/team/tiny/tree/"):
                files = [{"type": "file", "path": name, "size": 1, "oid": "b" * 40} for name in held]
                body = json.dumps(files).encode()
            elif self.path.startswith("/team/tiny/resolve/") and name in names:
                body = (folder / name).read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", f'"{name}"')
            self.send_header("x-repo-commit", "a" * 40)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET(with_body=False)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the variables HF_ENDPOINT and HF_HOME do where they are set before the library is imported."""
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_model_is_fetched_from_a_hub_without_code_and_other_forms(
    copied: Path, tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(copied) as address:
        ask(address, tmp_path, monkeypatch)
        assert found({}, group, model_name="team/tiny") == sorted(path.name for path in copied.iterdir())


def test_hub_that_cannot_be_reached_is_named_with_what_helps(
    tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("http://127.0.0.1:9", tmp_path, monkeypatch)
    with pytest.raises(
        PretrainedModelError, match=r"'team/tiny' \(revision main\) could not be fetched.*channel 'model'"
    ):
        found({}, group, model_name="team/tiny")
