"""Question answering: the part of a text that answers a question, found window by window where the text is long."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mooring.handler.errors import PredictionInputError
from mooring.handler.terms import LoadTerms

from .transformers_bodies import Item, Medium
from .transformers_classification import softmax
from .transformers_rows import TRIAL, Row, TextModel
from .transformers_tokens import require_offsets

Array = NDArray[Any]
EXPECTED = ('\'inputs\', {"question": text, "context": text} or a list of these',)
WINDOW = 384  # tokens
STRIDE = 128  # tokens that neighbouring windows share


@dataclass(frozen=True)
class _Window:
    """What a row shows of a question's context."""

    question: int  # which of the item's
    context: str
    offsets: Sequence[tuple[int, int]]
    allowed: Sequence[bool]  # the tokens that may be in the answer


@dataclass(frozen=True)
class _Span:
    score: float
    start: int
    end: int


class QuestionAnswering:
    """Questions with the text that holds the answer, to that answer."""

    medium = Medium.TEXT
    parameters = (
        "top_k",
        "topk",
        "doc_stride",
        "max_answer_len",
        "max_seq_len",
        "max_question_len",
        "handle_impossible_answer",
    )

    def __init__(self, text: TextModel) -> None:
        self._text = text
        trial = [self._windows(0, words, " ".join(TRIAL), WINDOW, STRIDE)[0] for words in TRIAL]
        self.max_batch_rows = text.safe_rows(trial, _starts_and_ends)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "QuestionAnswering":
        """Load the model of a folder. Raises `ModelLoadError`, also for a tokenizer that does not tell offsets."""
        from transformers import AutoModelForQuestionAnswering

        text = TextModel.load(AutoModelForQuestionAnswering, folder, terms)
        require_offsets(text, folder)
        return cls(text)

    def rows(self, item: Item) -> list[Row]:
        """Return a row per window of each question's context."""
        item.check_parameters(self.parameters)
        length = _count(item, "max_seq_len", WINDOW)
        stride = _count(item, "doc_stride", STRIDE)
        return [
            row
            for index, (question, context) in enumerate(_questions(item))
            for row in self._windows(index, question, context, length, stride)
        ]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return each token's logits for being the answer's first and its last."""
        return self._text.run(rows, _starts_and_ends, max_rows=self.max_batch_rows)

    def answer(self, item: Item, rows: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the best answer to each question, or as many as `top_k` says."""
        count = _count(item, "top_k", _count(item, "topk", 1))
        longest = _count(item, "max_answer_len", 15)
        with_none = item.option("handle_impossible_answer", bool, False)
        found: list[Any] = []
        for index in range(len(_questions(item))):
            mine = [(row, logits) for row, logits in zip(rows, outputs, strict=True) if row.about.question == index]
            best = _best_spans(mine, longest, count, with_none=with_none)
            context = mine[0][0].about.context
            answers = [
                {"score": span.score, "start": span.start, "end": span.end, "answer": context[span.start : span.end]}
                for span in best
            ]
            found.append(answers[0] if count == 1 else answers)
        return found if isinstance(item.inputs, list) else found[0]

    def _windows(self, index: int, question: str, context: str, length: int, stride: int) -> list[Row]:
        tokenizer = self._text.tokenizer
        length = min(length, self._text.max_tokens)
        first = tokenizer.padding_side == "right"  # the question comes first where padding comes last
        pair = (question, context) if first else (context, question)
        fixed = len(tokenizer(question, verbose=False)["input_ids"]) + tokenizer.num_special_tokens_to_add(pair=True)
        room = length - fixed
        if room < 1:
            raise PredictionInputError(f"The question is too long for windows of {length} tokens.", EXPECTED)
        encoded = tokenizer(
            *pair,
            truncation="only_second" if first else "only_first",
            max_length=length,
            stride=min(stride, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=True,
            verbose=False,
        )
        rows = []
        names = {*tokenizer.model_input_names, "input_ids", "attention_mask"}
        for window in range(len(encoded["input_ids"])):
            allowed = [part == int(first) for part in encoded.sequence_ids(window)]
            inputs = {name: encoded[name][window] for name in encoded if name in names}
            rows.append(Row(inputs, _Window(index, context, encoded["offset_mapping"][window], allowed)))
        return rows


def _starts_and_ends(output: Any, place: int, mask: torch.Tensor, _row: Row) -> torch.Tensor:
    return torch.stack([output.start_logits[place][mask], output.end_logits[place][mask]])


def _questions(item: Item) -> list[tuple[str, str]]:
    given = item.inputs if isinstance(item.inputs, list) else [item.inputs]
    questions = []
    for one in given:
        question, context = (one.get("question"), one.get("context")) if isinstance(one, dict) else (None, None)
        if not (isinstance(question, str) and question.strip() and isinstance(context, str) and context.strip()):
            raise PredictionInputError("The inputs are no question with its context.", EXPECTED)
        questions.append((question, context))
    if not questions:
        raise PredictionInputError("There are no questions.", EXPECTED)
    return questions


def _count(item: Item, name: str, default: int) -> int:
    count = int(item.option(name, int, default))
    if count < 1:
        raise PredictionInputError(f"'{name}' is {count}.", (f"'{name}', a number from 1",))
    return count


def _best_spans(windows: Sequence[tuple[Row, Array]], longest: int, count: int, *, with_none: bool) -> list[_Span]:
    """Return the likeliest spans of all windows, best first; the same characters count once."""
    found: dict[tuple[int, int], float] = {}
    none = 1.0
    for row, logits in windows:
        starts, ends, nothing = _shares(row.about, logits)
        none = min(none, nothing)
        for span in _spans(row.about, starts, ends, longest, count):
            place = (span.start, span.end)
            found[place] = max(found.get(place, 0.0), span.score)
    spans = [_Span(score, *place) for place, score in found.items()]
    if with_none:
        spans.append(_Span(none, 0, 0))
    return sorted(spans, key=lambda span: -span.score)[:count] or [_Span(0.0, 0, 0)]


def _shares(window: _Window, logits: Array) -> tuple[Array, Array, float]:
    """Return how likely each token begins and ends the answer, and how likely there is none.

    A model trained with unanswerable questions says "none" by pointing at the first token.
    """
    allowed = np.array(window.allowed)
    allowed[0] = True
    shares = softmax(np.where(allowed, logits, -1e9))
    none = float(shares[0, 0] * shares[1, 0])
    shares[:, ~np.array(window.allowed)] = 0.0
    return shares[0], shares[1], none


def _spans(window: _Window, starts: Array, ends: Array, longest: int, count: int) -> Iterator[_Span]:
    likely = np.triu(np.outer(starts, ends))
    likely = likely - np.triu(likely, longest)
    flat = likely.ravel()
    best = np.argsort(-flat, kind="stable")[:count]
    for first, last in zip(*np.unravel_index(best, likely.shape), strict=True):
        if likely[first, last] > 0:
            yield _Span(float(likely[first, last]), window.offsets[first][0], window.offsets[last][1])
