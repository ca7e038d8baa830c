"""Texts as vectors: one a token, as feature extraction gives them, or one a sentence, as sentence-transformers does."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from mooring.handler.errors import ModelLoadError, PredictionInputError
from mooring.handler.terms import LoadTerms

from .transformers_bodies import Item, Medium
from .transformers_rows import Row, TextModel, texts

Array = NDArray[Any]
Pool = Callable[[Array], Array]  # tokens x size -> size

# Ways to make a sentence's vector of its tokens', under sentence-transformers' names. Several are put in a row.
POOLS: dict[str, Pool] = {
    "cls_token": lambda tokens: tokens[0],
    "max_tokens": lambda tokens: tokens.max(axis=0),
    "mean_tokens": lambda tokens: tokens.mean(axis=0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(axis=0) / np.sqrt(len(tokens)),
    "weightedmean_tokens": lambda tokens: np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1)),
    "lasttoken": lambda tokens: tokens[-1],
}
SHORT_NAMES = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"Identity": lambda vector: vector, "Tanh": np.tanh}


class FeatureExtraction:
    """Texts to a vector per token."""

    medium = Medium.TEXT
    parameters = ("truncation",)

    def __init__(self, text: TextModel) -> None:
        self._text = text
        self.max_batch_rows = text.safe_rows(text.trial_rows(), vectors_of_tokens)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "FeatureExtraction":
        """Load the model of a folder. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoModel

        return cls(TextModel.load(AutoModel, folder, terms))

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text."""
        item.check_parameters(self.parameters)
        truncation = item.option("truncation", bool, False)
        return [self._text.row(self._text.encode(text, truncation=truncation)) for text in texts(item)]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return the vectors of each row's tokens."""
        return self._text.run(rows, vectors_of_tokens, max_rows=self.max_batch_rows)

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return each text's vectors, in a list of one text as pipelines do."""
        vectors = [[tokens] for tokens in outputs]
        return vectors if isinstance(item.inputs, list) else np.asarray(vectors[0])


def vectors_of_tokens(output: Any, place: int, mask: torch.Tensor, _row: Row) -> torch.Tensor:
    """Pick the last layer's vectors of a row's tokens."""
    vectors: torch.Tensor = output.last_hidden_state[place][mask]
    return vectors


@dataclass(frozen=True)
class _Steps:
    """What is done to a sentence's vectors of tokens: pooled, then changed step by step."""

    pools: tuple[Pool, ...]
    changes: tuple[Callable[[Array], Array], ...] = ()

    def __call__(self, tokens: Array) -> Array:
        vector = np.concatenate([pool(tokens) for pool in self.pools])
        for change in self.changes:
            vector = change(vector)
        return vector.astype(np.float32)


class SentenceEmbeddings:
    """Texts to one vector each, by the steps that sentence-transformers wrote down in modules.json."""

    medium = Medium.TEXT
    parameters = ("prompt", "prompt_name", "normalize", "truncation")

    def __init__(
        self, text: TextModel, steps: _Steps, prompts: Mapping[str, str], usual_prompt: str, *, lower: bool
    ) -> None:
        self._text = text
        self._steps = steps
        self._prompts = prompts
        self._usual_prompt = usual_prompt
        self._lower = lower
        self.max_batch_rows = text.safe_rows(text.trial_rows(), vectors_of_tokens)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "SentenceEmbeddings":
        """Load the model of a folder. Raises `ModelLoadError`, also for steps that are unknown here; `MemoryError`."""
        from transformers import AutoModel

        steps, transformer = _read_steps(folder)
        text = TextModel.load(AutoModel, transformer, terms)
        limits = _object(transformer / "sentence_bert_config.json")
        longest = limits.get("max_seq_length")
        if isinstance(longest, int) and 0 < longest < text.max_tokens:
            text = TextModel(text.model, text.tokenizer, longest, text.takes)
        stated = _object(folder / "config_sentence_transformers.json")
        prompts = stated.get("prompts") or {}
        usual = prompts.get(stated.get("default_prompt_name") or "", "")
        return cls(text, steps, prompts, usual, lower=limits.get("do_lower_case") is True)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text; what is longer than the model reads is left out, as sentence-transformers does."""
        item.check_parameters(self.parameters)
        prompt = self._prompt(item)
        given = [prompt + text.strip() for text in texts(item)]
        return [
            self._text.row(self._text.encode(text.lower() if self._lower else text, truncation=True)) for text in given
        ]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return each row's vector."""
        tokens = self._text.run(rows, vectors_of_tokens, max_rows=self.max_batch_rows)
        return [self._steps(one) for one in tokens]

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the vectors under the name `embeddings`."""
        vectors = [_normalize(vector) for vector in outputs] if item.option("normalize", bool, False) else outputs
        return {"embeddings": np.stack(vectors) if isinstance(item.inputs, list) else vectors[0]}

    def _prompt(self, item: Item) -> str:
        name = item.option("prompt_name", str, None)
        if name is None:
            return str(item.option("prompt", str, self._usual_prompt))
        if name not in self._prompts:
            known = ", ".join(self._prompts) or "none"
            raise PredictionInputError(f"There is no prompt '{name}'.", (f"'prompt_name', one of: {known}",))
        return self._prompts[name]


def _read_steps(folder: Path) -> tuple[_Steps, Path]:
    """Return the steps after the transformer, and the transformer's folder. Without modules.json: the mean."""
    file = folder / "modules.json"
    if not file.is_file():
        return _Steps((POOLS["mean_tokens"],)), folder
    pools: tuple[Pool, ...] = ()
    changes: list[Callable[[Array], Array]] = []
    transformer = folder
    for module in _list(file):
        kind = str(module.get("type", "")).rpartition(".")[2]
        place = _inside(folder, str(module.get("path", "")), file)
        if kind == "Transformer":
            transformer = place
        elif kind == "Pooling":
            pools = _pools(place / "config.json")
        elif kind == "Normalize":
            changes.append(_normalize)
        elif kind == "Dense":
            changes.append(_dense(place))
        else:
            raise ModelLoadError(file, f"it names a step '{kind}' that is unknown here; bring code/inference.py")
    if not pools:
        raise ModelLoadError(file, "it names no pooling, so there would be no vector of a sentence")
    return _Steps(pools, tuple(changes)), transformer


def _pools(file: Path) -> tuple[Pool, ...]:
    config = _object(file)
    mode = config.get("pooling_mode")
    named = [mode] if isinstance(mode, str) else mode if isinstance(mode, list) else []
    flagged = [name.removeprefix("pooling_mode_") for name, is_on in config.items() if is_on is True]
    wanted = [SHORT_NAMES.get(name, name) for name in named] or flagged
    found = tuple(pool for name, pool in POOLS.items() if name in wanted)
    if not found or len(found) < len(named):
        raise ModelLoadError(file, "it names no kind of pooling that is known here")
    return found


def _dense(place: Path) -> Callable[[Array], Array]:
    config = _object(place / "config.json")
    name = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if name not in ACTIVATIONS or not (place / "model.safetensors").is_file():
        raise ModelLoadError(place / "config.json", "a dense layer needs model.safetensors and a known activation")
    weights = load_file(place / "model.safetensors")
    weight, bias, activation = weights["linear.weight"], weights.get("linear.bias", 0.0), ACTIVATIONS[name]
    return lambda vector: activation(weight @ vector + bias)


def _normalize(vector: Array) -> Array:
    scaled: Array = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return scaled


def _inside(folder: Path, path: str, file: Path) -> Path:
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise ModelLoadError(file, f"its path '{path}' leaves the model's folder")
    return place


def _object(file: Path) -> dict[str, Any]:
    value = _json(file) if file.is_file() else {}
    if not isinstance(value, dict):
        raise ModelLoadError(file, "it holds no object")
    return value


def _list(file: Path) -> list[dict[str, Any]]:
    value = _json(file)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ModelLoadError(file, "it holds no list of objects")
    return value


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(file, f"it is no JSON: {error}") from error
