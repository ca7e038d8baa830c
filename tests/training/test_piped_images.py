"""The program image-classification in Pipe mode: real FIFOs, writers that die, and runs that are stopped midway."""

import io
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pipes import describe_pipes, framed, written
from typing import Any

import pytest
from image_jobs import COUNT, answers, classification_job, run_to_its_end, train_here
from pictures import packed, png
from PIL import Image

from examples.digits.images import Split, load_split
from mooring.contract.channels import Channel, InputMode
from mooring.contract.errors import HyperparameterError
from mooring.training.data import passes
from mooring.training.data.channel import InputModeError
from mooring.training.data.image_channels import ImageChannelError
from mooring.training.data.pipe import PipeError
from mooring.training.initial_weights import initial_weights
from mooring.training.programs.images.residual_network import ResidualNetwork
from mooring.training.signal_pipe import STOP_SIGNALS

RECORDED = {"ContentType": "application/x-recordio"}
PIPED = {"train": RECORDED, "validation": RECORDED}


def images(count: int) -> bytes:
    return framed(*(packed([index % 2], png(index)) for index in range(count)))


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Trains in this process, as a rank does that has just been started; nothing is exported."""
    caplog.set_level(logging.INFO, logger="mooring")

    def run(base: Path, **given: Any) -> ResidualNetwork:
        monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
        passes._next_numbers.clear()
        return train_here(base, **({"mini_batch_size": 2} | given))

    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield run
    passes._next_numbers.clear()
    for number, handler in handlers.items():  # a run that was stopped keeps its own
        signal.signal(number, handler)


def reported(base: Path) -> list[dict[str, float]]:
    lines = (base / "output/data/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@contextmanager
def told_to_stop_at(text: str) -> Iterator[None]:
    """Send this process a SIGTERM, once, when a line that holds a text is logged."""

    class Stopping(logging.Handler):
        is_waiting = True

        def emit(self, record: logging.LogRecord) -> None:
            if self.is_waiting and text in record.getMessage():
                self.is_waiting = False
                os.kill(os.getpid(), signal.SIGTERM)

    handler, logger = Stopping(), logging.getLogger("mooring")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not handler.is_waiting


def same(one: ResidualNetwork, other: ResidualNetwork) -> bool:
    return all(value.equal(other.state_dict()[name]) for name, value in one.state_dict().items())


# --- runs in this process ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_are_learnt_through_pipes_as_from_files(
    tmp_path: Path, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log has the same lines. The order is another one, so the numbers are about the same."""
    train, validation = load_split()
    contents = {"train": recorded(train, 800), "validation": recorded(validation, 200)}
    found = []
    for mode in ("File", "Pipe"):
        base = tmp_path / mode
        describe_pipes(base, **{name: {**RECORDED, "TrainingInputMode": mode} for name in contents})
        for name, content in contents.items():
            (base / "input/data" / name).mkdir(parents=True)
            (base / "input/data" / name / "images.rec").write_bytes(content)
        caplog.clear()
        with written(base, **contents):
            fit(base, num_classes=10, mini_batch_size=32, epochs=3, learning_rate=0.05, optimizer="nag")
        lines = [record.getMessage() for record in caplog.records if "Epoch[" in record.getMessage()]
        names = [line.partition("Speed")[0].partition("=")[0] for line in lines]
        found.append(([row["validation:accuracy"] for row in reported(base)], names))
    (filed, filed_lines), (piped, piped_lines) = found
    assert piped_lines == filed_lines
    assert len(piped) == 3
    assert piped[-1] > 0.8
    assert abs(piped[-1] - filed[-1]) < 0.1


def recorded(split: Split, count: int) -> bytes:
    """The first digits of a split as im2rec packs them."""
    labelled = zip(split.labels[:count], split.pixels[:count], strict=True)
    return framed(*(packed([label], encoded(pixels)) for label, pixels in labelled))


def encoded(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_stopped_run_goes_on_at_the_same_image_with_the_same_pixels(tmp_path: Path, fit: Any) -> None:
    """The container that goes on has its FIFOs numbered from 0 again."""
    given: dict[str, Any] = {"image_shape": "3,8,8", "augmentation_type": "crop_color_transform", "resize": 9}
    networks = []
    for name in ("whole", "stopped"):
        base = tmp_path / name
        describe_pipes(base, **PIPED)
        if name == "stopped":
            with written(base, train=images(43), validation=images(4)), told_to_stop_at("Epoch[1] Batch [20]"):
                fit(base, **given)
            assert len(reported(base)) == 1
        with written(base, train=images(43), validation=images(4)):
            networks.append(fit(base, **given))
        assert [row["step"] for row in reported(base)] == [21, 42]
    assert same(*networks)


def test_epoch_whose_validation_a_stop_kept_waiting_is_measured_by_the_next_run(
    tmp_path: Path, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    describe_pipes(tmp_path, **PIPED)
    with written(tmp_path, train=images(8)), told_to_stop_at("validation_0: it is not there"):
        fit(tmp_path, epochs=1)
    assert "checkpoint of step 4 is in" in caplog.text
    assert "Validation-accuracy" not in caplog.text
    with written(tmp_path, train=images(8), validation=images(4)):
        fit(tmp_path, epochs=1)
    assert [row["step"] for row in reported(tmp_path)] == [4]


@pytest.mark.parametrize(
    ("contents", "given", "kind", "sentence"),
    [
        ({"train": images(1)}, {}, ImageChannelError, "'train' came to its end before a batch of 2 images was full"),
        ({"validation": b""}, {}, ImageChannelError, "'validation' came to its end without an image"),
        ({}, {"multi_label": 1, "use_weighted_loss": 1}, HyperparameterError, "'use_weighted_loss' is 1; expected 0"),
        (
            {"train": [images(6), images(6)[:-50]]},
            {},
            PipeError,
            r"train_1: channel 'train': the writer ended within record 6, which begins at byte \d+",
        ),
    ],
)
def test_pipe_that_cannot_be_trained_on_is_named(
    tmp_path: Path, fit: Any, contents: Any, given: Any, kind: type[Exception], sentence: str
) -> None:
    describe_pipes(tmp_path, **PIPED)
    with (
        written(tmp_path, **({"train": images(6), "validation": images(2)} | contents)),
        pytest.raises(kind, match=sentence),
    ):
        fit(tmp_path, **given)


def test_images_of_a_manifest_are_validated_from_a_pipe_while_training_reads_files(tmp_path: Path, fit: Any) -> None:
    manifest = {"RecordWrapperType": "RecordIO", "ContentType": "application/x-recordio; label-format=multi-hot"}
    describe_pipes(tmp_path, train={"TrainingInputMode": "File", **RECORDED}, validation=manifest)
    (tmp_path / "input/data/train").mkdir(parents=True)
    (tmp_path / "input/data/train/images.rec").write_bytes(images(16))
    in_turn = framed(*(part for index in range(5) for part in (png(index), b'"%d"' % (index % 2))))
    with written(tmp_path, validation=in_turn):
        fit(tmp_path, mini_batch_size=4)
    assert all(row["validation:accuracy"] * 5 % 1 == pytest.approx(0) for row in reported(tmp_path))


def test_model_that_comes_through_a_pipe_is_refused(tmp_path: Path) -> None:
    described = Channel("model", tmp_path, InputMode.PIPE)
    with pytest.raises(InputModeError, match="'model' has input mode Pipe: a model is files; give this channel"):
        initial_weights({"model": described})


# --- as the platform runs it ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_run_whose_writer_died_is_told_why_and_goes_on_with_a_pipe_for_each_rank(tmp_path: Path) -> None:
    """Two ranks, of which the second has a FIFO that is cut in the second epoch; then both are whole."""
    names = ("train_0", "train_1", "validation_0", "validation_1")
    job = classification_job(tmp_path, ranks=2, channels={}, mini_batch_size=8, epochs=3)
    describe_pipes(tmp_path, **dict.fromkeys(names, RECORDED))
    contents: dict[str, Any] = {name: images(COUNT) for name in names}
    cut = contents | {"train_1": [images(COUNT), images(COUNT)[:-50]]}
    with written(tmp_path, **cut):
        code, output = run_to_its_end(job)
    assert code == 1
    assert job.failure.startswith(f"PipeError: {tmp_path}/input/data/train_1_1: channel 'train_1': the writer ended")
    with written(tmp_path, **contents):
        code, output = run_to_its_end(job)
    assert code == 0, output
    assert "resumed after step 4" in output
    rows = reported(tmp_path)
    assert [row["step"] for row in rows] == [4, 8, 12]
    found = answers(job.paths.model, [png(index) for index in range(COUNT)])
    right = sum(row.index(max(row)) == index % 2 for index, row in enumerate(found))
    assert right / COUNT == max(row["validation:accuracy"] for row in rows)
