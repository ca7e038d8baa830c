"""Rows: what a model computes on together. Those of several requests are padded into one batch where that is safe."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from mooring.handler.errors import PredictionInputError
from mooring.handler.terms import LoadTerms

from .torch_weights import load_model, read_folder
from .transformers_bodies import Item, Medium

MAX_BATCH_ROWS = 32
# Rows x padded length of one forward pass; longer rows run in smaller batches, so that memory stays bounded.
MAX_BATCH_TOKENS = 16_384
# Tokenizers without a limit of their own give a number beyond all texts.
NO_LIMIT = 1_000_000
# Where models keep embeddings of absolute positions; a text longer than these is an index error, or worse on a GPU.
POSITIONS = ("position_embeddings", "wpe", "embed_positions")
TOLERANCE = 1e-4
HALF_TOLERANCE = 3e-2
# Texts of very different lengths, to try whether padding leaves answers as they are.
TRIAL = ("one", "one two three four five six seven eight nine ten", "three two one")


@dataclass(frozen=True)
class Row:
    """One row of a batch, and what its answer needs to be put into words."""

    inputs: Mapping[str, Any]
    about: Any = None


# Takes a model's output, a row's place in the batch, the places of its tokens there, and the row; returns its part.
Pick = Callable[[Any, int, torch.Tensor, Row], torch.Tensor]


class RowTask(Protocol):
    """A task whose requests are made into rows, whose rows run together, and whose outputs become answers."""

    @property
    def medium(self) -> Medium:
        """What the inputs are made of."""

    @property
    def max_batch_rows(self) -> int:
        """How many rows may run together."""

    def rows(self, item: Item) -> list[Row]:
        """Return an item's rows. Raises `PredictionInputError`, `BodyDecodeError`."""

    def run(self, rows: Sequence[Row]) -> list[Any]:
        """Return one output per row, in order."""

    def answer(self, item: Item, rows: Sequence[Row], outputs: Sequence[Any]) -> Any:
        """Return an item's answer."""


@dataclass(frozen=True)
class TextModel:
    """A model of text with its tokenizer."""

    model: Any
    tokenizer: Any
    max_tokens: int
    takes: frozenset[str] = field(default_factory=frozenset)  # arguments of the model

    @classmethod
    def load(cls, auto_class: Any, folder: Path, terms: LoadTerms) -> "TextModel":
        """Load a model and its tokenizer. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoTokenizer

        tokenizer = read_folder(AutoTokenizer, folder, terms)
        model = load_model(auto_class, folder, terms)
        return cls(
            model, tokenizer, token_limit(model, tokenizer), frozenset(inspect.signature(model.forward).parameters)
        )

    def encode(self, text: str, pair: str | None = None, *, truncation: bool | str = False, **options: Any) -> Any:
        """Return a text's tokens, or a pair's. Raises `PredictionInputError` for more than the model can take."""
        limit = {"max_length": self.max_tokens} if truncation else {}
        encoded = self.tokenizer(
            text, pair, truncation=truncation, return_attention_mask=True, verbose=False, **limit, **options
        )
        count = len(encoded["input_ids"])
        if count > self.max_tokens:
            problem = f'The text is {count} tokens long; with the parameter "truncation": true its beginning is used.'
            raise PredictionInputError(problem, (f"at most {self.max_tokens} tokens",))
        if count == 0:
            raise PredictionInputError("The text is empty.", ("a text of one token or more",))
        return encoded

    def row(self, encoded: Mapping[str, Any], about: Any = None) -> Row:
        """Return a row of the tokens that the model has arguments for."""
        names = {*self.tokenizer.model_input_names, "input_ids", "attention_mask"}
        return Row({name: encoded[name] for name in encoded if name in names}, about)

    def run(self, rows: Sequence[Row], pick: Pick, *, max_rows: int, max_tokens: int = MAX_BATCH_TOKENS) -> list[Any]:
        """Return each row's output, computed with rows of about its length."""
        outputs: list[Any] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].inputs["input_ids"]))
        for batch in _batches(order, rows, max_rows, max_tokens):
            padded = self._pad([rows[index] for index in batch])
            masks = padded["attention_mask"].bool()
            with torch.inference_mode():
                result = self.model(**self._arguments(padded))
                for place, index in enumerate(batch):
                    outputs[index] = pick(result, place, masks[place], rows[index]).float().cpu().numpy()
        return outputs

    def safe_rows(self, trial: Sequence[Row], pick: Pick) -> int:
        """Return how many rows may run together: more than one only if a trial shows that padding changes nothing.

        Some models read the last token, padding or not; some have no mask. Slow answers are better than wrong ones.
        """
        if self.tokenizer.pad_token_id is None:
            return 1
        together = self.run(trial, pick, max_rows=len(trial))
        alone = [self.run([row], pick, max_rows=1)[0] for row in trial]
        tolerance = TOLERANCE if self.model.dtype == torch.float32 else HALF_TOLERANCE
        same = all(
            one.shape == other.shape and torch.allclose(torch.tensor(one), torch.tensor(other), tolerance, tolerance)
            for one, other in zip(together, alone, strict=True)
        )
        return MAX_BATCH_ROWS if same else 1

    def trial_rows(self) -> list[Row]:
        """Return rows of different lengths, to try batches with."""
        return [self.row(self.encode(text, truncation=True)) for text in TRIAL]

    def _pad(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        longest = max(len(row.inputs["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        on_left = self.tokenizer.padding_side == "left"
        padded = {}
        for name in rows[0].inputs:
            lines = []
            for row in rows:
                padding = [fill.get(name, 0)] * (longest - len(row.inputs[name]))
                lines.append([*padding, *row.inputs[name]] if on_left else [*row.inputs[name], *padding])
            padded[name] = torch.tensor(lines, device=self.model.device)
        return padded

    def _arguments(self, padded: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        given: dict[str, Any] = {name: tensor for name, tensor in padded.items() if name in self.takes}
        if "use_cache" in self.takes:
            given["use_cache"] = False  # nothing is generated after this
        return given


def texts(item: Item, expected: str = "'inputs', a text or a list of texts") -> list[str]:
    """Return an item's texts. Raises `PredictionInputError`."""
    given = item.inputs if isinstance(item.inputs, list) else [item.inputs]
    if not given or not all(isinstance(text, str) for text in given):
        raise PredictionInputError("The inputs are no text.", (expected,))
    return given


def logits_of_row(output: Any, place: int, _mask: torch.Tensor, _row: Row) -> torch.Tensor:
    """Pick a row's logits, where there is one set for the whole of it."""
    row: torch.Tensor = output.logits[place]
    return row


def logits_of_tokens(output: Any, place: int, mask: torch.Tensor, _row: Row) -> torch.Tensor:
    """Pick the logits of each of a row's tokens, without those of padding."""
    row: torch.Tensor = output.logits[place][mask]
    return row


def _batches(order: Sequence[int], rows: Sequence[Row], max_rows: int, max_tokens: int) -> Iterator[list[int]]:
    """Cut rows, sorted by length, into batches; a row longer than the limit is a batch of its own."""
    batch: list[int] = []
    for index in order:
        length = len(rows[index].inputs["input_ids"])
        if batch and (len(batch) >= max_rows or length * (len(batch) + 1) > max_tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def token_limit(model: Any, tokenizer: Any) -> int:
    """Return how many tokens a text may have, as far as tokenizer, configuration and layers say."""
    limits = [tokenizer.model_max_length]
    positions = [
        layer.num_embeddings - _first_position(layer)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Embedding) and name.rpartition(".")[2] in POSITIONS
    ]
    stated = getattr(model.config, "max_position_embeddings", None)
    limits += positions or ([stated] if isinstance(stated, int) and stated > 0 else [])
    return int(min(*limits, NO_LIMIT))


def _first_position(layer: torch.nn.Embedding) -> int:
    """Return the place of a text's first token: some models leave out those up to the padding's, or a few."""
    offset = getattr(layer, "offset", 0)
    return offset or (0 if layer.padding_idx is None else layer.padding_idx + 1)
