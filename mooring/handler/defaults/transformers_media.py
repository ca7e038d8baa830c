"""Pictures and sounds to labels, and speech to text."""

import importlib.util
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mooring.handler.audio import decode_audio
from mooring.handler.errors import BodyDecodeError, ModelLoadError, PredictionInputError
from mooring.handler.images import MAX_PIXELS
from mooring.handler.terms import LoadTerms

from .torch_weights import first_line, load_model, read_folder
from .transformers_bodies import Item, Medium
from .transformers_classification import labelled, scores, top_k
from .transformers_rows import HALF_TOLERANCE, MAX_BATCH_ROWS, TOLERANCE, Row

Array = NDArray[Any]
IMAGE = "application/x-image"
AUDIO = "audio/x-audio"
MOST_TOKENS = 440  # Whisper's window of 30 seconds has no room for more
START_TOKENS = 8  # language, task and the like
# Parameters of recognition that go to transformers' `generate` as they are.
SETTINGS: dict[str, type] = {"language": str, "task": str, "max_new_tokens": int, "num_beams": int, "do_sample": bool}


class ImageClassification:
    """Pictures to labels."""

    medium = Medium.IMAGE
    parameters = ("top_k", "function_to_apply")

    def __init__(self, model: Any, prepare: Any) -> None:
        self._model = model
        self._prepare = prepare
        self.max_batch_rows = self._safe_rows()

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "ImageClassification":
        """Load the model of a folder. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        prepare = read_folder(AutoImageProcessor, folder, terms)
        return cls(load_model(AutoModelForImageClassification, folder, terms), prepare)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per picture."""
        from PIL import Image

        item.check_parameters(self.parameters)
        pictures = [_picture(file, Image) for file in _files(item)]
        return [self._row(picture) for picture in pictures]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return each picture's logits; those of one size are computed together."""
        outputs: list[Any] = [None] * len(rows)
        groups: dict[Any, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(row.inputs["pixel_values"].shape, []).append(index)
        for group in groups.values():
            for start in range(0, len(group), self.max_batch_rows):
                part = group[start : start + self.max_batch_rows]
                pixels = torch.stack([rows[index].inputs["pixel_values"] for index in part])
                with torch.inference_mode():
                    logits = self._model(pixels.to(self._model.device, self._model.dtype)).logits.float().cpu().numpy()
                for index, values in zip(part, logits, strict=True):
                    outputs[index] = values
        return outputs

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the best labels of each picture."""
        config = self._model.config
        found = [labelled(scores(logits, config, item), config, top_k(item, 5)) for logits in outputs]
        return found if isinstance(item.inputs, list) else found[0]

    def _row(self, picture: Any) -> Row:
        return Row({"pixel_values": self._prepare(images=picture, return_tensors="pt")["pixel_values"][0]})

    def _safe_rows(self) -> int:
        """Return how many pictures may run together, by a trial: some models look at the whole batch."""
        from PIL import Image

        colours = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
        trial = [self._row(Image.fromarray(colour)) for colour in colours]
        self.max_batch_rows = 1
        alone = self.run(trial)
        self.max_batch_rows = len(trial)
        tolerance = TOLERANCE if self._model.dtype == torch.float32 else HALF_TOLERANCE
        same = np.allclose(self.run(trial), alone, tolerance, tolerance)
        return MAX_BATCH_ROWS if same else 1


class AudioClassification:
    """Sounds to labels. One at a time: many models hear the silence that padding would add."""

    medium = Medium.AUDIO
    parameters = ("top_k", "function_to_apply")
    max_batch_rows = 1

    def __init__(self, model: Any, prepare: Any) -> None:
        self._model = model
        self._prepare = prepare

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "AudioClassification":
        """Load the model of a folder. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        _require_soundfile(folder)
        prepare = read_folder(AutoFeatureExtractor, folder, terms)
        return cls(load_model(AutoModelForAudioClassification, folder, terms), prepare)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per sound."""
        item.check_parameters(self.parameters)
        return [Row(_heard(self._prepare, _samples(file, self._prepare))) for file in _files(item)]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return each sound's logits."""
        return [_computed(self._model, row).logits[0].float().cpu().numpy() for row in rows]

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the best labels of each sound."""
        config = self._model.config
        found = [labelled(scores(logits, config, item), config, top_k(item, 5)) for logits in outputs]
        return found if isinstance(item.inputs, list) else found[0]


@dataclass(frozen=True)
class _Wish:
    """What a request asks of Whisper and its like."""

    settings: dict[str, Any]
    timestamps: bool


class SpeechRecognition:
    """Speech to text, by models that label each moment with a character (CTC) and by those that generate."""

    medium = Medium.AUDIO
    max_batch_rows = 1

    def __init__(self, model: Any, prepare: Any, tokenizer: Any) -> None:
        self._model = model
        self._prepare = prepare
        self._tokenizer = tokenizer
        self._generates = model.can_generate()
        self._is_whisper = model.config.model_type == "whisper"

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "SpeechRecognition":
        """Load the model of a folder. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

        _require_soundfile(folder)
        prepare = read_folder(AutoFeatureExtractor, folder, terms)
        tokenizer = read_folder(AutoTokenizer, folder, terms)
        architectures = read_config(folder, terms).architectures or []
        is_ctc = any(name in MODEL_FOR_CTC_MAPPING_NAMES.values() for name in architectures)
        model = load_model(AutoModelForCTC if is_ctc else AutoModelForSpeechSeq2Seq, folder, terms)
        return cls(model, prepare, tokenizer)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per sound."""
        wish = self._wish(item)
        return [Row(self._features(_samples(file, self._prepare), wish), wish) for file in _files(item)]

    def run(self, rows: Sequence[Row]) -> list[Any]:
        """Return each row's text, with its parts and their times where they were asked for."""
        return [self._generated(row) if self._generates else self._labelled(row) for row in rows]

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Any]) -> Any:
        """Return the texts."""
        return list(outputs) if isinstance(item.inputs, list) else outputs[0]

    def _wish(self, item: Item) -> _Wish:
        names = (*SETTINGS, "return_timestamps") if self._is_whisper else ("max_new_tokens", "num_beams")
        item.check_parameters(names if self._generates else ())
        settings = {name: item.option(name, kind, None) for name, kind in SETTINGS.items()}
        given = {name: value for name, value in settings.items() if value is not None}
        return _Wish(given, item.option("return_timestamps", bool, False))

    def _features(self, samples: Array, wish: _Wish) -> dict[str, torch.Tensor]:
        """Return what the model hears. Whisper's window is 30 seconds; what is longer it reads window by window."""
        if not self._is_whisper:
            return _heard(self._prepare, samples)
        if len(samples) <= self._prepare.n_samples:
            return _heard(self._prepare, samples, return_attention_mask=True)
        return _heard(self._prepare, samples, truncation=False, padding="longest", return_attention_mask=True)

    def _labelled(self, row: Row) -> dict[str, str]:
        tokens = _computed(self._model, row).logits[0].argmax(dim=-1)
        return {"text": self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)}

    def _generated(self, row: Row) -> dict[str, Any]:
        wish: _Wish = row.about
        settings = dict(wish.settings)
        is_long = self._is_whisper and row.inputs["input_features"].shape[-1] > self._prepare.nb_max_frames
        if wish.timestamps or is_long:
            settings["return_timestamps"] = True
        stated = self._model.generation_config
        if stated.max_length is None and stated.max_new_tokens is None:
            settings.setdefault("max_new_tokens", _most_tokens(self._model.config))
        try:
            with torch.inference_mode():
                tokens = self._model.generate(**_placed(self._model, row), **settings)[0].tolist()
        except ValueError as error:  # a language that the model does not speak, a task that it does not have
            raise PredictionInputError(first_line(error), (f"the parameters {', '.join(SETTINGS)}",)) from error
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        if not wish.timestamps:
            return {"text": text}
        parts = self._tokenizer.decode(tokens, output_offsets=True, skip_special_tokens=True)["offsets"]
        return {
            "text": text,
            "chunks": [{"text": part["text"], "timestamp": list(part["timestamp"])} for part in parts],
        }


def read_config(folder: Path, terms: LoadTerms) -> Any:
    """Return a model's configuration. Raises `ModelLoadError`."""
    from transformers import AutoConfig

    return read_folder(AutoConfig, folder, terms)


def _most_tokens(config: Any) -> int:
    """Return how many tokens a decoder may write where its model does not say; it begins with a few of its own."""
    names = ("max_target_positions", "max_position_embeddings")
    places = next((getattr(config, name) for name in names if getattr(config, name, None)), MOST_TOKENS)
    return max(1, min(MOST_TOKENS, places - START_TOKENS))


def _files(item: Item) -> list[bytes]:
    files = item.inputs if isinstance(item.inputs, list) else [item.inputs]
    if not files:
        raise PredictionInputError("There are no inputs.", ("'inputs', one file or more",))
    return files


def _picture(file: bytes, images: Any) -> Any:
    """Return a picture in colour, the right way up. Raises `BodyDecodeError`."""
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", images.DecompressionBombWarning)  # our own limit comes next
            picture = images.open(io.BytesIO(file))
        if picture.width * picture.height > MAX_PIXELS:
            problem = f"the picture is {picture.width} x {picture.height}, over the limit of {MAX_PIXELS:,} pixels"
            raise BodyDecodeError(IMAGE, problem)
        return ImageOps.exif_transpose(picture).convert("RGB")
    except images.UnidentifiedImageError as error:
        raise BodyDecodeError(IMAGE, "it is no picture in a format that is known here") from error
    except (OSError, SyntaxError, ValueError, images.DecompressionBombError) as error:
        raise BodyDecodeError(IMAGE, f"the picture is damaged: {error}") from error


def _samples(file: bytes, prepare: Any) -> Array:
    return decode_audio(file, AUDIO, prepare.sampling_rate)


def _heard(prepare: Any, samples: Array, **options: Any) -> dict[str, torch.Tensor]:
    return dict(prepare(samples, sampling_rate=prepare.sampling_rate, return_tensors="pt", **options))


def _placed(model: Any, row: Row) -> dict[str, torch.Tensor]:
    """Return a row's tensors on the model's device, and numbers in its precision."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in row.inputs.items()
    }


def _computed(model: Any, row: Row) -> Any:
    try:
        with torch.inference_mode():
            return model(**_placed(model, row))
    except RuntimeError as error:
        if "Kernel size can't be greater" in str(error):
            raise PredictionInputError("The sound is too short for this model.", ("a longer sound",)) from error
        raise


def _require_soundfile(folder: Path) -> None:
    if importlib.util.find_spec("soundfile") is None:
        problem = "it takes sounds, and the package soundfile, which reads them, is not installed"
        raise ModelLoadError(folder / "config.json", problem)
