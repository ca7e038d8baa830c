"""Labels for texts: text classification and zero-shot classification, and scores for whatever else has labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mooring.handler.errors import ModelLoadError, PredictionInputError
from mooring.handler.terms import LoadTerms

from .transformers_bodies import Item, Medium
from .transformers_rows import Row, TextModel, logits_of_row

Array = NDArray[Any]
FUNCTIONS = ("softmax", "sigmoid", "none")


def softmax(logits: Array) -> Array:
    """Return the shares of logits along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def scores(logits: Array, config: Any, item: Item) -> Array:
    """Return logits as scores, by the function that the parameters name or the kind of model has."""
    function = item.option("function_to_apply", str, _usual_function(config)).lower()
    if function not in FUNCTIONS:
        raise PredictionInputError(
            f"There is no function '{function}'.", (f"'function_to_apply', one of {', '.join(FUNCTIONS)}",)
        )
    if function == "softmax":
        return softmax(logits)
    return 1 / (1 + np.exp(-logits)) if function == "sigmoid" else logits


def labelled(values: Array, config: Any, top_k: int | None) -> list[dict[str, Any]]:
    """Return the best labels with their scores, best first; all of them for None."""
    order = np.argsort(-values, kind="stable")[:top_k]
    return [{"label": config.id2label[int(index)], "score": float(values[index])} for index in order]


def top_k(item: Item, default: int | None) -> int | None:
    """Return how many labels are asked for. Raises `PredictionInputError`."""
    if "top_k" in item.parameters and item.parameters["top_k"] is None:
        return None
    count = item.option("top_k", int, default)
    if count is not None and count < 1:
        raise PredictionInputError(f"'top_k' is {count}.", ("'top_k', a number from 1",))
    return int(count) if count is not None else None


def _usual_function(config: Any) -> str:
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"


class TextClassification:
    """Texts, or pairs of texts, to labels."""

    medium = Medium.TEXT
    parameters = ("top_k", "function_to_apply", "return_all_scores", "truncation")

    def __init__(self, text: TextModel) -> None:
        self._text = text
        self.max_batch_rows = text.safe_rows(text.trial_rows(), logits_of_row)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "TextClassification":
        """Load the model of a folder. Raises `ModelLoadError`, `MemoryError`."""
        from transformers import AutoModelForSequenceClassification

        return cls(TextModel.load(AutoModelForSequenceClassification, folder, terms))

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text."""
        item.check_parameters(self.parameters)
        truncation = item.option("truncation", bool, False)
        given = item.inputs if isinstance(item.inputs, list) else [item.inputs]
        pairs = [_pair(one) for one in given]
        if not pairs:
            raise PredictionInputError("There are no inputs.", ("'inputs', a text or a list of texts",))
        return [self._text.row(self._text.encode(*pair, truncation=truncation)) for pair in pairs]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return each row's logits."""
        return self._text.run(rows, logits_of_row, max_rows=self.max_batch_rows)

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return the best label of each text, or as many as `top_k` says, in a list of its own then."""
        config = self._text.model.config
        all_scores = item.option("return_all_scores", bool, False)
        is_list = isinstance(item.inputs, list)
        if "top_k" not in item.parameters and not all_scores:
            best = [labelled(scores(logits, config, item), config, 1)[0] for logits in outputs]
            return best if is_list or isinstance(item.inputs, str) else best[0]
        count = top_k(item, None)
        ranked = [labelled(scores(logits, config, item), config, count) for logits in outputs]
        return ranked if is_list or all_scores else ranked[0]


def _pair(given: Any) -> tuple[str, str | None]:
    if isinstance(given, str):
        return given, None
    if isinstance(given, dict) and {"text"} <= set(given) <= {"text", "text_pair"}:
        text, pair = given["text"], given.get("text_pair")
        if isinstance(text, str) and (pair is None or isinstance(pair, str)):
            return text, pair
    expected = '\'inputs\', a text, {"text", "text_pair"}, or a list of these'
    raise PredictionInputError("The inputs are no text.", (expected,))


class ZeroShotClassification:
    """Texts to labels that the request names, by a model that tells whether one sentence follows from another."""

    medium = Medium.TEXT
    parameters = ("candidate_labels", "hypothesis_template", "multi_label")

    def __init__(self, text: TextModel, entailment: int) -> None:
        self._text = text
        self._entailment = entailment
        self._contradiction = -1 if entailment == 0 else 0
        self.max_batch_rows = text.safe_rows(text.trial_rows(), logits_of_row)

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "ZeroShotClassification":
        """Load the model of a folder. Raises `ModelLoadError`, also for one without a label for entailment."""
        from transformers import AutoModelForSequenceClassification

        text = TextModel.load(AutoModelForSequenceClassification, folder, terms)
        labels = text.model.config.id2label
        entailment = next((index for index, name in labels.items() if name.lower().startswith("entail")), None)
        if entailment is None:
            named = ", ".join(labels.values())
            problem = f"zero-shot classification needs a label that begins with 'entail'; the labels are {named}"
            raise ModelLoadError(folder / "config.json", problem)
        return cls(text, int(entailment))

    def rows(self, item: Item) -> list[Row]:
        """Return a row per text and label."""
        sequences, labels, template = self._question(item)
        return [
            self._text.row(self._text.encode(sequence, template.format(label), truncation="only_first"))
            for sequence in sequences
            for label in labels
        ]

    def run(self, rows: Sequence[Row]) -> list[Array]:
        """Return each row's logits."""
        return self._text.run(rows, logits_of_row, max_rows=self.max_batch_rows)

    def answer(self, item: Item, _: Sequence[Row], outputs: Sequence[Array]) -> Any:
        """Return each text with its labels and their scores, best first."""
        sequences, labels, _template = self._question(item)
        logits = np.stack(outputs).reshape(len(sequences), len(labels), -1)
        if item.option("multi_label", bool, False) or len(labels) == 1:
            values = softmax(logits[..., [self._contradiction, self._entailment]])[..., 1]
        else:
            values = softmax(logits[..., self._entailment])
        ranked = []
        for sequence, row in zip(sequences, values, strict=True):
            order = np.argsort(-row, kind="stable")
            found = {"labels": [labels[index] for index in order], "scores": row[order].tolist()}
            ranked.append({"sequence": sequence, **found})
        return ranked if isinstance(self._sequences(item), list) else ranked[0]

    def _sequences(self, item: Item) -> Any:
        return item.inputs.get("sequences") if isinstance(item.inputs, dict) else item.inputs

    def _question(self, item: Item) -> tuple[list[str], list[str], str]:
        """Return texts, labels and template; the labels may be beside the texts or among the parameters."""
        beside = (
            {name: value for name, value in item.inputs.items() if name != "sequences"}
            if isinstance(item.inputs, dict)
            else {}
        )
        asked = Item(self._sequences(item), {**beside, **item.parameters})
        asked.check_parameters(self.parameters)
        expected = ("'inputs', a text or a list of texts", "the parameter 'candidate_labels', a list of texts")
        labels = asked.option("candidate_labels", (list, str), [])
        labels = [label.strip() for label in labels.split(",")] if isinstance(labels, str) else labels
        sequences = asked.inputs if isinstance(asked.inputs, list) else [asked.inputs]
        if not sequences or not all(isinstance(text, str) for text in sequences):
            raise PredictionInputError("The inputs are no text.", expected)
        if not labels or not all(isinstance(label, str) and label for label in labels):
            raise PredictionInputError("There are no labels to choose from.", expected)
        template = asked.option("hypothesis_template", str, "This example is {}.")
        return sequences, labels, _checked(template)


def _checked(template: str) -> str:
    """Return a template that has one place for the label, and none that would look into it."""
    if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
        raise PredictionInputError(
            f"The template '{template}' has no place for a label.", ("'hypothesis_template' with {}",)
        )
    return template
