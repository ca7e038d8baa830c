"""The hyperparameters of text-classification. Names are ours, the Hugging Face examples' ones mean the same.

docs/programs.md holds the table, generated.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

from mooring.contract.errors import HyperparameterError
from mooring.contract.typed import Rule, limited, table

DEFAULT_BATCH = 32


class Problem(StrEnum):
    """What a text has; the names are those of a model's config.json."""

    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"
    REGRESSION = "regression"


class Metric(StrEnum):
    """What says how good a model is."""

    LOSS = "loss"
    ACCURACY = "accuracy"
    F1 = "f1"
    MSE = "mse"
    PEARSON = "pearson"


METRICS = {
    Problem.SINGLE_LABEL: (Metric.ACCURACY, Metric.F1, Metric.LOSS),
    Problem.MULTI_LABEL: (Metric.F1, Metric.ACCURACY, Metric.LOSS),
    Problem.REGRESSION: (Metric.MSE, Metric.PEARSON, Metric.LOSS),
}
Precision = Literal["float32", "bfloat16", "float16"]


def batch_size_is_given_once(mini_batch_size: int | None, per_device_train_batch_size: int | None) -> str | None:
    """Say so if both sizes of a batch are given."""
    if mini_batch_size is None or per_device_train_batch_size is None:
        return None
    return (
        f"Hyperparameters 'mini_batch_size' ({mini_batch_size}, over all ranks) and 'per_device_train_batch_size' "
        f"({per_device_train_batch_size}, of each) both say how large a batch is; give one of them."
    )


def precision_is_given_once(precision: str | None, fp16: bool, bf16: bool) -> str | None:
    """Say so if two precisions are asked for."""
    asked = [precision] * (precision is not None) + ["float16"] * fp16 + ["bfloat16"] * bf16
    if len(set(asked)) <= 1:
        return None
    return f"Hyperparameters 'precision', 'fp16' and 'bf16' ask for {' and '.join(map(str, asked))}; give one of them."


def number_of_labels_fits_problem(num_labels: int | None, problem_type: Problem | None) -> str | None:
    """Say so if there is not one number where a number is wanted, or only one label where several are."""
    if num_labels is None or problem_type is None or (num_labels == 1) == (problem_type is Problem.REGRESSION):
        return None
    return (
        f"Hyperparameter 'num_labels' is {num_labels} and 'problem_type' is \"{problem_type}\"; "
        "a regression has one, a classification at least 2."
    )


def metric_fits_problem(
    metric_for_best_model: Metric | None, num_labels: int | None, problem_type: Problem | None
) -> str | None:
    """Say so if a metric is none of the problem's, as far as the problem is stated."""
    problem = Problem.REGRESSION if num_labels == 1 else problem_type
    if metric_for_best_model is None or problem is None or metric_for_best_model in METRICS[problem]:
        return None
    return (
        f"Hyperparameter 'metric_for_best_model' is \"{metric_for_best_model}\"; "
        f"expected, for {problem}: {', '.join(METRICS[problem])}."
    )


def smoothing_needs_one_label(
    label_smoothing: float, num_labels: int | None, problem_type: Problem | None
) -> str | None:
    """Say so if labels are to be smoothed where a text does not have exactly one."""
    is_single = problem_type in (None, Problem.SINGLE_LABEL) and num_labels != 1
    if is_single or label_smoothing == 0:
        return None
    return f"Hyperparameter 'label_smoothing' is {label_smoothing:g}; expected 0 where a text has not just one label."


def metric_of(settings: "Settings", problem: Problem) -> Metric:
    """Return the metric that says which model is best. Raises `HyperparameterError` for one of another problem."""
    wrong = metric_fits_problem(settings.metric_for_best_model, None, problem)
    if wrong is not None:
        raise HyperparameterError([wrong])
    return settings.metric_for_best_model or METRICS[problem][0]


@dataclass(frozen=True)
class Settings:
    """The hyperparameters."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        batch_size_is_given_once,
        precision_is_given_once,
        number_of_labels_fits_problem,
        metric_fits_problem,
        smoothing_needs_one_label,
    )

    model_name_or_path: str | None = limited(
        None,
        aliases=("model_name", "model_id"),
        meaning="where there is no channel `model`: a model's name in the hub, or a folder",
    )
    model_revision: str = limited("main", meaning="branch, tag or commit of a model in the hub")
    text_column: str | None = limited(
        None, aliases=("text_column_name",), meaning="the text's column; else `text` or `sentence`"
    )
    text_pair_column: str | None = limited(None, meaning="the second text's column, where texts come in pairs")
    label_column: str | None = limited(
        None, aliases=("label_column_name",), meaning="the label's column; else `label` or `labels`"
    )
    problem_type: Problem | None = limited(
        None, meaning="else told by the data: lists of labels are multi_label_classification"
    )
    num_labels: int | None = limited(
        None, minimum=1, meaning="how many labels there are, if more than the data have; 1 is a regression"
    )
    validation_split: float = limited(
        0.1,
        minimum=0,
        maximum=0.9,
        aliases=("validation_split_ratio",),
        meaning="share of the training texts to validate with where there is no channel `validation`",
    )
    max_length: int | None = limited(
        None, minimum=4, aliases=("max_seq_length",), meaning="tokens of a text; else what the model takes, at most 512"
    )
    epochs: int = limited(3, minimum=1, aliases=("num_train_epochs",), meaning="passes over the training texts")
    max_steps: int | None = limited(None, minimum=1, meaning="end after so many steps, whatever `epochs` says")
    mini_batch_size: int | None = limited(None, minimum=1, meaning="texts of a step over all ranks; 32 unless told")
    per_device_train_batch_size: int | None = limited(
        None,
        minimum=1,
        aliases=("train_batch_size",),
        meaning="in its place: texts of each rank in each of the `gradient_accumulation_steps`",
    )
    eval_batch_size: int = limited(
        64, minimum=1, aliases=("per_device_eval_batch_size",), meaning="validation texts of each rank at once"
    )
    gradient_accumulation_steps: int = limited(
        1, minimum=1, meaning="parts that a rank's share of a step is computed in, one after the other"
    )
    learning_rate: float = limited(5e-5, above=0, maximum=1, meaning="the highest, after the warm-up")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = limited(
        "linear", meaning="how it falls from there to the end"
    )
    warmup_ratio: float = limited(0.1, minimum=0, maximum=1, meaning="share of the steps in which it rises from 0")
    warmup_steps: int | None = limited(None, minimum=0, meaning="in its place: how many steps")
    weight_decay: float = limited(0.01, minimum=0, maximum=1, meaning="of AdamW; norms and biases have none")
    adam_beta1: float = limited(0.9, minimum=0, maximum=0.9999, meaning="decay of the mean of gradients")
    adam_beta2: float = limited(0.999, minimum=0, maximum=0.99999, meaning="decay of the mean of their squares")
    adam_epsilon: float = limited(1e-8, above=0, maximum=1, meaning="what is added to what AdamW divides by")
    max_grad_norm: float = limited(1.0, minimum=0, meaning="longer gradients are clipped to it; 0: none are")
    label_smoothing: float = limited(
        0.0, minimum=0, maximum=0.9, aliases=("label_smoothing_factor",), meaning="share of a label given to all"
    )
    freeze_base: bool = limited(
        False, aliases=("train_only_top_layer",), meaning="only the classifier on top of the model is trained"
    )
    freeze_layers: int = limited(0, minimum=0, meaning="embeddings and so many of the first layers stay as they are")
    group_by_length: bool = limited(True, meaning="batches of texts of about one length: less padding, faster steps")
    precision: Precision | None = limited(None, meaning="float32 unless told; the others are mixed precision")
    fp16: bool = limited(False, meaning="as `precision=float16`")
    bf16: bool = limited(False, meaning="as `precision=bfloat16`")
    eval_steps: int | None = limited(None, minimum=1, meaning="validate every so many steps; else after each epoch")
    save_steps: int | None = limited(
        None, minimum=1, meaning="steps between checkpoints, beside those after each validation"
    )
    logging_steps: int = limited(50, minimum=1, meaning="steps between reports of loss and learning rate")
    keep_checkpoints: int = limited(
        2, minimum=1, aliases=("save_total_limit",), meaning="how many of the newest stay, beside the best"
    )
    metric_for_best_model: Metric | None = limited(
        None, meaning="of the validation texts; else `accuracy`, `f1` for several labels, `mse` for numbers"
    )
    export_best: bool = limited(
        True, aliases=("load_best_model_at_end",), meaning="export the best model by that metric, not the last"
    )
    early_stopping_patience: int | None = limited(
        None, minimum=1, meaning="end after so many validations in a row without a better one"
    )
    seed: int = limited(0, minimum=0, meaning="of the order, the split, dropout and new layers")

    @property
    def computes_in(self) -> str:
        """The precision, however it was asked for."""
        return self.precision or ("float16" if self.fp16 else "bfloat16" if self.bf16 else "float32")

    def batch_size(self, world_size: int) -> int:
        """Return the texts of a step over all ranks."""
        if self.per_device_train_batch_size is None:
            return self.mini_batch_size or DEFAULT_BATCH
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * world_size


if __name__ == "__main__":
    sys.stdout.write(table(Settings))
