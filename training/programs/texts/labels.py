"""What the labels of texts mean to a model: which there are, in which order, and each text's as numbers. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .records import LabelledText, TextDataError
from .settings import Problem, Settings

LABELS_SHOWN = 10


@dataclass(frozen=True)
class Labels:
    """The labels there are, by the index that the model knows them by; none for a regression."""

    problem: Problem
    names: tuple[str, ...]
    is_of_model: bool = False  # the classifier on top of the model was made for these

    @classmethod
    def of(cls, texts: Sequence[LabelledText], settings: Settings, of_model: Sequence[str] | None) -> "Labels":
        """Tell the labels from the training texts, and from the model's own where it has a classifier for the same.

        Raises `TextDataError` for labels that do not go together, that are of one kind only, or more than there may be.
        """
        problem = _problem(texts, settings)
        if problem is Problem.REGRESSION:
            return cls(problem, (), is_of_model=len(of_model or ()) == 1)
        counts = Counter(name for text in texts for name in names_of(text, problem))
        if problem is Problem.SINGLE_LABEL and len(counts) == 1:
            (only,) = counts
            raise TextDataError([f"All {len(texts)} training texts have the label '{only}'; a classifier needs two."])
        if of_model is not None and _fits(counts, of_model, settings.num_labels):
            return cls(problem, tuple(of_model), is_of_model=True)
        return cls(problem, _names(counts, settings.num_labels))

    @property
    def count(self) -> int:
        """How many numbers the model gives for a text."""
        return max(1, len(self.names))

    @property
    def indexes(self) -> dict[str, int]:
        """The index of each label; labels counted from 0 stand for those that the model has names for."""
        counted = {str(index): index for index in range(len(self.names))} if self.is_of_model else {}
        return counted | {name: index for index, name in enumerate(self.names)}

    def targets(self, texts: Sequence[LabelledText]) -> torch.Tensor:
        """Return what the model is to give: an index, a 0 or 1 for each label, or a number.

        Raises `TextDataError` naming every text with a label that is none of these.
        """
        if self.problem is Problem.REGRESSION:
            return _numbers(texts)
        indexes = self.indexes
        rows = [[indexes.get(name, -1) for name in names_of(text, self.problem)] for text in texts]
        problems = [
            f"{text.place}: label '{name}' is on none of the training texts; they have: {_some(self.names)}"
            for text, row in zip(texts, rows, strict=True)
            for name, index in zip(names_of(text, self.problem), row, strict=True)
            if index < 0
        ]
        if problems:
            raise TextDataError(problems)
        if self.problem is Problem.SINGLE_LABEL:
            return torch.tensor([row[0] for row in rows])
        targets = torch.zeros(len(texts), self.count)
        for target, row in zip(targets, rows, strict=True):
            target[row] = 1
        return targets


def names_of(text: LabelledText, problem: Problem) -> list[str]:
    """Return a text's labels by name; a list in a CSV file is JSON, or separated by commas."""
    label = text.label
    if problem is Problem.MULTI_LABEL and isinstance(label, str):
        inside = label.removeprefix("[").removesuffix("]")
        label = [part.strip().strip("\"'") for part in inside.split(",") if part.strip()]
    return list(dict.fromkeys(_name(one) for one in (label if isinstance(label, list) else [label])))


def _name(label: Any) -> str:
    """Return a label as text; 3.0, as some tools write whole numbers, is 3."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _problem(texts: Sequence[LabelledText], settings: Settings) -> Problem:
    """Tell what kind of labels these are. Raises `TextDataError`."""
    lists = [isinstance(text.label, list) for text in texts]
    asked = Problem.REGRESSION if settings.num_labels == 1 else settings.problem_type
    problem = asked or (Problem.MULTI_LABEL if lists[0] else Problem.SINGLE_LABEL)
    if problem is Problem.MULTI_LABEL and (asked or all(lists)):
        return problem
    odd = [text for text, is_list in zip(texts, lists, strict=True) if is_list == (problem is not Problem.MULTI_LABEL)]
    if odd:
        expected = "a list of labels, as the first text has" if problem is Problem.MULTI_LABEL else "one label"
        raise TextDataError([f"{text.place}: the label is {text.label!r}; expected {expected}" for text in odd])
    return problem


def _fits(found: Iterable[str], of_model: Sequence[str], asked: int | None) -> bool:
    """Whether the model's classifier is for these labels: by their names, or counted from 0 and all there."""
    if asked not in (None, len(of_model)):
        return False
    counted = {str(index) for index in range(len(of_model))}
    return set(found) <= set(of_model) or set(found) == counted


def _names(counts: Counter[str], asked: int | None) -> tuple[str, ...]:
    """Return the labels in order, and up to the number asked for. Raises `TextDataError`."""
    if all(name.isdecimal() for name in counts):
        names = sorted(counts, key=int)
        if asked is not None and int(names[-1]) < asked:
            return tuple(map(str, range(asked)))
    else:
        names = sorted(counts)
    if asked not in (None, len(names)):
        raise TextDataError([f"num_labels is {asked}, but the training texts have {len(names)}: {_some(names)}."])
    return tuple(names)


def _numbers(texts: Sequence[LabelledText]) -> torch.Tensor:
    numbers: list[float] = []
    problems: list[str] = []
    for text in texts:
        try:
            numbers.append(float(text.label))
        except (TypeError, ValueError):
            problems.append(f"{text.place}: the label is {text.label!r}; expected a number for a regression")
        else:
            if not math.isfinite(numbers[-1]):
                problems.append(f"{text.place}: the label is {text.label!r}; expected a finite number")
    if problems:
        raise TextDataError(problems)
    return torch.tensor(numbers)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LABELS_SHOWN} more" if len(names) > LABELS_SHOWN else ""
    return ", ".join(names[:LABELS_SHOWN]) + more
