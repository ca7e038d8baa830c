"""Answers about single tokens: token classification, whose tokens are grouped into entities, and filled masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mooring.handler.errors import ModelLoadError, PredictionInputError
from mooring.handler.terms import LoadTerms

from .transformers_bodies import Item, Medium
from .transformers_classification import softmax, top_k
from .transformers_rows import TRIAL, Row, TextModel, logits_of_tokens, texts

Array = NDArray[Any]
STRATEGIES = ("none", "simple", "first", "average", "max")
# A masked-language model gives each token as many numbers as it has words: 1 GB for these many tokens of 60,000 words.
MAX_MASK_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Entity:
    """A token, or a word of several, with the scores of each label."""

    label: str
    score: float
    words: tuple[str, ...]
    start: int
    end: int
    index: int = 0


@dataclass(frozen=True)
class _Token:
    word: str
    scores: Array
    start: int
    end: int
    index: int
    continues: bool  # whether it belongs to the word of the token before


class TokenClassification:
    """Texts to the entities in them."""

    medium = Medium.TEXT
    parameters = ("aggregation_strategy", "ignore_labels", "truncation")

    def __init__(self, text: TextModel) -> None:
        self._text = text
        self.max_batch_rows = text.safe_rows(text.trial_rows(), logits_of_tokens)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "TokenClassification":
        """Load the model of a folder. Raises `ModelLoadError`, also for a tokenizer that does not tell offsets."""
        from transformers import AutoModelForTokenClassification

        text = TextModel.load(AutoModelForTokenClassification, folder, terms)
        require_offsets(text, folder)
        return cls(text)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text."""
        item.check_parameters(self.parameters)
        _strategy(item)
        truncation = item.option("truncation", bool, False)
        rows = []
        for text in texts(item):
            encoded = self._text.encode(
                text, truncation=truncation, return_offsets_mapping=True, return_special_tokens_mask=True
            )
            rows.append(self._text.row(encoded, (text, encoded["offset_mapping"], encoded["special_tokens_mask"])))
        return rows

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return the logits of each row's tokens."""
        return self._text.run(rows, logits_of_tokens, max_rows=self.max_batch_rows)

    def answer(self, item: Item, rows: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the entities of each text: its tokens, or with an aggregation strategy groups of them."""
        ignored = item.option("ignore_labels", list, ["O"])
        strategy = _strategy(item)
        found = []
        for row, logits in zip(rows, outputs, strict=True):
            entities = self._entities(row, softmax(logits), strategy)
            if strategy == "none":
                found.append([_single(entity) for entity in entities if entity.label not in ignored])
            else:
                groups = (self._group(group) for group in _adjacent(entities))
                found.append([group for group in groups if group["entity_group"] not in ignored])
        return found if isinstance(item.inputs, list) else found[0]

    def _entities(self, row: Row, values: Array, strategy: str) -> list[Entity]:
        tokens = self._tokens(row, values)
        if strategy in ("none", "simple"):
            return [self._entity([token], token.scores) for token in tokens]
        words: list[list[_Token]] = []
        for token in tokens:
            if words and token.continues:
                words[-1].append(token)
            else:
                words.append([token])
        return [self._entity(word, _word_scores(word, strategy)) for word in words]

    def _tokens(self, row: Row, values: Array) -> list[_Token]:
        text, offsets, special = row.about
        ids = row.inputs["input_ids"]
        tokenizer = self._text.tokenizer
        marks_parts = bool(getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None))
        tokens = []
        for index, (start, end) in enumerate(offsets):
            if special[index]:
                continue
            word = tokenizer.convert_ids_to_tokens(ids[index])
            if ids[index] == tokenizer.unk_token_id:
                word, continues = text[start:end], False
            elif marks_parts:
                continues = len(word) != end - start
            else:  # a token that follows no space belongs to the word before it
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            tokens.append(_Token(word, values[index], start, end, index, continues))
        return tokens

    def _entity(self, tokens: Sequence[_Token], values: Array) -> Entity:
        best = int(values.argmax())
        words = tuple(token.word for token in tokens)
        if len(tokens) > 1:
            words = (self._text.tokenizer.convert_tokens_to_string(list(words)),)
        label = self._text.model.config.id2label[best]
        return Entity(label, float(values[best]), words, tokens[0].start, tokens[-1].end, tokens[0].index)

    def _group(self, entities: Sequence[Entity]) -> dict[str, Any]:
        words = [word for entity in entities for word in entity.words]
        return {
            "entity_group": entities[0].label.split("-", 1)[-1],
            "score": float(np.mean([entity.score for entity in entities])),
            "word": self._text.tokenizer.convert_tokens_to_string(words),
            "start": entities[0].start,
            "end": entities[-1].end,
        }


def require_offsets(text: TextModel, folder: Path) -> None:
    """Raise `ModelLoadError` if a tokenizer cannot tell which characters a token stands for."""
    if not text.tokenizer.is_fast:
        problem = "its tokenizer has no tokenizer.json, so that it cannot tell where in a text a token lies"
        raise ModelLoadError(folder / "tokenizer.json", problem)


def _strategy(item: Item) -> str:
    strategy = item.option("aggregation_strategy", str, "none").lower()
    if strategy not in STRATEGIES:
        raise PredictionInputError(
            f"There is no strategy '{strategy}'.", (f"'aggregation_strategy', one of {', '.join(STRATEGIES)}",)
        )
    return str(strategy)


def _word_scores(tokens: Sequence[_Token], strategy: str) -> Array:
    if strategy == "first":
        return tokens[0].scores
    if strategy == "max":
        return max((token.scores for token in tokens), key=lambda values: float(values.max()))
    average: Array = np.mean([token.scores for token in tokens], axis=0)
    return average


def _single(entity: Entity) -> dict[str, Any]:
    return {
        "entity": entity.label,
        "score": entity.score,
        "index": entity.index,
        "word": entity.words[0],
        "start": entity.start,
        "end": entity.end,
    }


def _adjacent(entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Group neighbours of one label; one that begins with B- begins a group."""
    group: list[Entity] = []
    for entity in entities:
        if group and (entity.label.startswith("B-") or _tag(entity) != _tag(group[-1])):
            yield group
            group = []
        group.append(entity)
    if group:
        yield group


def _tag(entity: Entity) -> str:
    return entity.label[2:] if entity.label.startswith(("B-", "I-")) else entity.label


class FillMask:
    """Texts with masked words to the words that fit best."""

    medium = Medium.TEXT
    parameters = ("top_k", "targets", "truncation")

    def __init__(self, text: TextModel) -> None:
        self._text = text
        trial = [self._row(f"{words} {text.tokenizer.mask_token}", None, truncation=True) for words in TRIAL]
        self.max_batch_rows = text.safe_rows(trial, _logits_of_masks)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "FillMask":
        """Load the model of a folder. Raises `ModelLoadError`, also for a tokenizer without a mask."""
        from transformers import AutoModelForMaskedLM

        text = TextModel.load(AutoModelForMaskedLM, folder, terms)
        if text.tokenizer.mask_token_id is None:
            raise ModelLoadError(folder / "tokenizer_config.json", "the tokenizer has no mask token")
        return cls(text)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text."""
        item.check_parameters(self.parameters)
        truncation = item.option("truncation", bool, False)
        targets = self._targets(item)
        return [self._row(text, targets, truncation=truncation) for text in texts(item)]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return the logits of each row's masks."""
        limits = {"max_rows": self.max_batch_rows, "max_tokens": MAX_MASK_BATCH_TOKENS}
        return self._text.run(rows, _logits_of_masks, **limits)

    def answer(self, item: Item, rows: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the best words for each mask."""
        count = top_k(item, 5)
        filled = [self._fill(row, softmax(logits), count) for row, logits in zip(rows, outputs, strict=True)]
        return filled if isinstance(item.inputs, list) and len(filled) > 1 else filled[0]

    def _row(self, text: str, targets: Sequence[int] | None, *, truncation: bool) -> Row:
        encoded = self._text.encode(text, truncation=truncation)
        mask = self._text.tokenizer.mask_token
        places = [place for place, one in enumerate(encoded["input_ids"]) if one == self._text.tokenizer.mask_token_id]
        if not places:
            raise PredictionInputError(f"There is no {mask} in the text.", (f"texts with one {mask} or more",))
        return self._text.row(encoded, _Masks(places, targets))

    def _targets(self, item: Item) -> list[int] | None:
        """Return the tokens of the words that are asked for, None for all words."""
        given = item.option("targets", (list, str), None)
        if given is None:
            return None
        tokenizer = self._text.tokenizer
        words = [given] if isinstance(given, str) else given
        expected = ("'targets', a word or a list of words that the model knows",)
        if not words or not all(isinstance(word, str) for word in words):
            raise PredictionInputError("The targets are no words.", expected)
        vocabulary = tokenizer.get_vocab()
        tokens = []
        for word in words:
            known = [vocabulary[word]] if word in vocabulary else tokenizer(word, add_special_tokens=False)["input_ids"]
            if len(known) != 1 or known[0] == tokenizer.unk_token_id:
                raise PredictionInputError(f"The model has no token for '{word}'.", expected)
            tokens.append(known[0])
        return sorted(set(tokens))

    def _fill(self, row: Row, values: Array, count: int | None) -> Any:
        tokenizer, ids, masks = self._text.tokenizer, list(row.inputs["input_ids"]), row.about
        is_single = len(masks.places) == 1
        answers = []
        for place, shares in zip(masks.places, values, strict=True):
            tokens = np.arange(len(shares)) if masks.targets is None else np.array(masks.targets)
            best = tokens[np.argsort(-shares[tokens], kind="stable")[:count]].tolist()
            answers.append(
                [
                    {
                        "score": float(shares[token]),
                        "token": token,
                        "token_str": tokenizer.decode([token]),
                        # Other masks of the text are special tokens too, and stay to be seen.
                        "sequence": tokenizer.decode(
                            [*ids[:place], token, *ids[place + 1 :]], skip_special_tokens=is_single
                        ),
                    }
                    for token in best
                ]
            )
        return answers[0] if is_single else answers


@dataclass(frozen=True)
class _Masks:
    places: list[int]
    targets: Sequence[int] | None  # the tokens to choose from, None for all


def _logits_of_masks(output: Any, place: int, mask: torch.Tensor, row: Row) -> torch.Tensor:
    logits: torch.Tensor = output.logits[place][mask][row.about.places]
    return logits
