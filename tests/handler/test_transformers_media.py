"""Transformers models of pictures and sounds: files in their formats, answers as the library's pipelines give them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import transformers_models as make
from PIL import Image
from transformers_models import hf

from mooring.handler.audio import MAX_SAMPLES, decode_audio, resample
from mooring.handler.defaults.transformers import TransformersHandler
from mooring.handler.errors import BodyDecodeError, PredictionInputError, UnsupportedContentTypeError
from mooring.handler.protocol import InferenceRequest
from mooring.handler.terms import LoadTerms

RATE = 16_000
TONE = np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE).astype(np.float32)

NOISE = TONE / 2 + np.random.default_rng(0).normal(scale=0.1, size=RATE).astype(np.float32)


def answer(handler: TransformersHandler, content: bytes, content_type: str = "application/json") -> Any:
    (one,) = handler.respond([InferenceRequest(content, content_type, "", {})])
    if isinstance(one, Exception):
        raise one
    return json.loads(one.body)


def sound(samples: Any = NOISE, rate: int = RATE, kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


# As a file of 16 bits gives it back.
HEARD = decode_audio(sound(NOISE), "audio/wav", RATE)


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), seed: int = 0, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def close(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    labels = [entry["label"] for entry in one] == [entry["label"] for entry in other]
    return labels and np.allclose([e["score"] for e in one], [e["score"] for e in other], atol=1e-4)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "vit": make.vit(root / "vit"),
        "ctc": make.wav2vec2(root / "ctc"),
        "audio": make.wav2vec2(root / "audio", hf.Wav2Vec2ForSequenceClassification, num_labels=4),
        "whisper": make.whisper(root / "whisper"),
    }


@pytest.fixture(scope="module")
def handlers(paths: dict[str, Path]) -> dict[str, TransformersHandler]:
    return {name: TransformersHandler.load(path, LoadTerms()) for name, path in paths.items()}


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_picture_is_labelled_as_the_pipeline_does(
    paths: dict[str, Path], handlers: dict[str, TransformersHandler]
) -> None:
    pipeline = hf.pipeline("image-classification", model=str(paths["vit"]))
    expected = pipeline(Image.open(io.BytesIO(picture())))
    assert close(answer(handlers["vit"], picture(), "image/png"), expected)
    assert close(answer(handlers["vit"], picture(), "application/x-image"), expected)
    encoded = base64.b64encode(picture()).decode()
    assert close(answer(handlers["vit"], json.dumps({"inputs": encoded}).encode()), expected)
    asked = {"inputs": [f"data:image/png;base64,{encoded}"] * 2, "parameters": {"top_k": 1}}
    assert all(close(one, expected[:1]) for one in answer(handlers["vit"], json.dumps(asked).encode()))


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("GIF", "P"), ("PNG", "RGBA"), ("TIFF", "L"), ("BMP", "1")]
)
def test_pictures_of_all_kinds_are_read(handlers: dict[str, TransformersHandler], kind: str, mode: str) -> None:
    assert len(answer(handlers["vit"], picture(kind, mode=mode), "application/x-image")) == 3


def test_pictures_are_batched_and_one_damaged_spoils_no_other(handlers: dict[str, TransformersHandler]) -> None:
    handler = handlers["vit"]
    assert handler.max_batch_rows == 32
    files = [picture(size=(20 + 9 * seed, 50), seed=seed) for seed in range(4)]
    files.insert(2, files[0][:60])
    answers = handler.respond([InferenceRequest(file, "image/png", "", {}) for file in files])
    for file, one in zip(files, answers, strict=True):
        if isinstance(one, Exception):
            assert (file, type(one)) == (files[2], BodyDecodeError)
        else:
            assert close(json.loads(one.body), answer(handler, file, "image/png"))
    assert sum(isinstance(one, Exception) for one in answers) == 1


@pytest.mark.parametrize(
    ("content", "content_type", "error"),
    [
        (b"", "image/png", BodyDecodeError),
        (b"no picture", "image/png", BodyDecodeError),
        (b"text", "text/plain", UnsupportedContentTypeError),
        (b'{"inputs": "http://localhost/cat.png"}', "application/json", PredictionInputError),
        (b'{"inputs": "/etc/passwd"}', "application/json", PredictionInputError),
        (b'{"inputs": "no base 64!"}', "application/json", PredictionInputError),
        (b'{"inputs": {"a": 1}}', "application/json", PredictionInputError),
        (b'{"inputs": []}', "application/json", PredictionInputError),
    ],
)
def test_what_is_no_picture_is_the_callers_error(
    handlers: dict[str, TransformersHandler], content: bytes, content_type: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        answer(handlers["vit"], content, content_type)


# --- sounds -----------------------------------------------------------------------------------------------------------


def test_sound_is_labelled_as_the_pipeline_does(
    paths: dict[str, Path], handlers: dict[str, TransformersHandler]
) -> None:
    pipeline = hf.pipeline("audio-classification", model=str(paths["audio"]))
    assert close(answer(handlers["audio"], sound(), "audio/wav"), pipeline(HEARD))


def test_speech_is_read_as_the_pipeline_does(paths: dict[str, Path], handlers: dict[str, TransformersHandler]) -> None:
    pipeline = hf.pipeline("automatic-speech-recognition", model=str(paths["ctc"]))
    assert answer(handlers["ctc"], sound(), "audio/wav") == pipeline(HEARD.copy())


@pytest.mark.parametrize("times", [1, 45])
@pytest.mark.parametrize("parameters", [{}, {"return_timestamps": True}, {"language": "de", "task": "translate"}])
def test_generated_speech_is_the_pipelines(
    paths: dict[str, Path], handlers: dict[str, TransformersHandler], times: int, parameters: dict[str, Any]
) -> None:
    """Whisper's window is 30 seconds; what is longer is read window by window."""
    pipeline = hf.pipeline("automatic-speech-recognition", model=str(paths["whisper"]))
    with_times = {"return_timestamps": True} if times > 30 or "return_timestamps" in parameters else {}
    others = {name: value for name, value in parameters.items() if name != "return_timestamps"}
    settings = {"num_beams": 1, "max_new_tokens": 30, **others}
    expected = pipeline(np.tile(HEARD, times), generate_kwargs=settings, **with_times)
    file = base64.b64encode(sound(np.tile(NOISE, times))).decode()
    asked = {"inputs": file, "parameters": {"max_new_tokens": 30, **parameters}}
    given = answer(handlers["whisper"], json.dumps(asked).encode())
    assert given["text"] == expected["text"]
    assert len(given["text"]) > 3
    if "return_timestamps" in parameters:
        assert "".join(part["text"] for part in given["chunks"]) == expected["text"]
    else:
        assert set(given) == {"text"}


def test_language_that_is_not_spoken_is_the_callers_error(handlers: dict[str, TransformersHandler]) -> None:
    asked = {"inputs": base64.b64encode(sound()).decode(), "parameters": {"language": "xx"}}
    with pytest.raises(PredictionInputError, match="language"):
        answer(handlers["whisper"], json.dumps(asked).encode())


@pytest.mark.parametrize(
    ("kind", "content_type"), [("FLAC", "audio/x-flac"), ("OGG", "audio/ogg"), ("MP3", "audio/mpeg")]
)
def test_sounds_of_all_kinds_are_read(handlers: dict[str, TransformersHandler], kind: str, content_type: str) -> None:
    assert len(answer(handlers["audio"], sound(kind=kind), content_type)) == 4


def test_sound_too_short_for_the_model_is_the_callers_error(handlers: dict[str, TransformersHandler]) -> None:
    with pytest.raises(PredictionInputError, match="too short"):
        answer(handlers["ctc"], sound(TONE[:4]), "audio/wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", sound()[:40], sound(kind="FLAC")[:50], sound(TONE[:0]), picture()])
def test_what_is_no_sound_is_the_callers_error(handlers: dict[str, TransformersHandler], content: bytes) -> None:
    with pytest.raises(BodyDecodeError):
        answer(handlers["audio"], content, "audio/x-audio")


def test_sound_that_claims_to_be_huge_is_refused() -> None:
    """A sampling rate of 1 would make a second of every sample."""
    claimed = bytearray(sound(np.zeros(MAX_SAMPLES // RATE + 1, np.float32), 8000))
    claimed[24:28] = (1).to_bytes(4, "little")
    with pytest.raises(BodyDecodeError, match="over the limit"):
        decode_audio(bytes(claimed), "audio/wav", RATE)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 16_001])
def test_resampling_keeps_a_tone(rate: int) -> None:
    given = np.sin(np.arange(rate) * 2 * np.pi * 440 / rate).astype(np.float32)
    made = resample(given, rate, RATE)
    assert len(made) == RATE
    assert np.abs(made - TONE)[200:-200].max() < 1e-3


def test_resampling_leaves_out_what_the_lower_rate_cannot_carry() -> None:
    high = np.sin(np.arange(44_100) * 2 * np.pi * 12_000 / 44_100).astype(np.float32)
    assert np.abs(resample(high, 44_100, RATE))[200:-200].max() < 1e-3


def test_channels_are_mixed_to_one() -> None:
    both = np.stack([TONE, -TONE], axis=1)
    assert np.abs(decode_audio(sound(both), "audio/wav", RATE)).max() < 1e-3
