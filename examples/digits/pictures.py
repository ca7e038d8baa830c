"""The two pictures the demo leaves: the training curve, and test images with what the endpoint said of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")

from matplotlib import pyplot as plt

ROWS, COLUMNS = 6, 10


def training_curve(epochs: Sequence[Mapping[str, Any]], resumed_at: int, path: Path) -> None:
    """Draw loss and validation accuracy over steps, with the interruption marked."""
    steps = [row["step"] for row in epochs]
    figure, losses = plt.subplots(figsize=(9, 4.5), layout="constrained")
    losses.plot(
        steps, [row["train:cross-entropy"] for row in epochs], color="tab:blue", marker=".", label="training loss"
    )
    losses.set_xlabel("step")
    losses.set_ylabel("training loss", color="tab:blue")
    accuracies = losses.twinx()
    accuracies.plot(
        steps, [100 * row["validation:accuracy"] for row in epochs], color="tab:green", marker=".", label="accuracy"
    )
    accuracies.set_ylabel("validation accuracy, %", color="tab:green")
    losses.axvline(resumed_at, color="tab:red", linestyle="--")
    losses.annotate(
        f"SIGTERM after step {resumed_at}, resumed",
        (resumed_at, sum(losses.get_ylim()) / 2),
        (5, 0),
        textcoords="offset points",
        color="tab:red",
    )
    losses.set_title("Handwritten digits, two ranks, interrupted once")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def prediction_sheet(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], answers: Sequence[tuple[int, float]], path: Path
) -> None:
    """Draw test images with the endpoint's answers: wrong ones first, in red, then the rest in order."""
    wrong = [index for index, (label, answer) in enumerate(zip(labels, answers, strict=True)) if label != answer[0]]
    right = [index for index in range(len(labels)) if index not in set(wrong)]
    figure, axes = plt.subplots(ROWS, COLUMNS, figsize=(COLUMNS, ROWS * 1.25), layout="constrained")
    for axis, index in zip(axes.flat, wrong + right, strict=False):
        answer, probability = answers[index]
        axis.imshow(pixels[index], cmap="gray_r", vmin=0, vmax=255)
        is_right = answer == labels[index]
        title = f"{answer} ({probability:.0%})" if is_right else f"{answer} ({probability:.0%}), is {labels[index]}"
        axis.set_title(title, fontsize=7, color="black" if is_right else "tab:red")
        axis.axis("off")
    figure.suptitle(f"{len(right)} of {len(labels)} validation images recognised over HTTP; mistakes first")
    figure.savefig(path, dpi=110)
    plt.close(figure)
