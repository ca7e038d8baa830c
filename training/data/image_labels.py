"""What a job's labels mean: one class for each image, or any number of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LabelError(Exception):
    """Numbers that are no label; the message is what is wrong with them."""


@dataclass(frozen=True)
class LabelForm:
    """How labels are written. Several for an image are a 0 or 1 for each class, or the numbers of its classes."""

    classes: int
    is_multi: bool = False
    lists_classes: bool = False

    def read(self, numbers: Sequence[float]) -> Any:
        """Return a class's number, or 0 or 1 for each class. Raises `LabelError`."""
        if self.is_multi and not self.lists_classes:
            return self._one_for_each(numbers)
        classes = [self._class(number) for number in numbers]
        if self.is_multi:
            label = np.zeros(self.classes, np.float32)
            label[classes] = 1
            return label
        if len(classes) != 1:
            raise LabelError(f"has {len(classes)} labels; expected one, or the hyperparameter multi_label to be 1")
        return classes[0]

    def _one_for_each(self, numbers: Sequence[float]) -> NDArray[np.float32]:
        if len(numbers) != self.classes:
            raise LabelError(
                f"has {len(numbers)} labels; expected a 0 or 1 for each of num_classes, which is {self.classes}, "
                "or the channel's content type to end in '; label-format=class-id'"
            )
        if any(number not in (0, 1) for number in numbers):
            raise LabelError(f"has the labels {_shown(numbers)}; expected a 0 or 1 for each class")
        return np.array(numbers, np.float32)

    def _class(self, number: float) -> int:
        if not float(number).is_integer():
            raise LabelError(f"label {number:g} is not the number of a class")
        if not 0 <= number < self.classes:
            raise LabelError(f"label {number:g} is not below num_classes, which is {self.classes}")
        return int(number)

    def together(self, labels: Sequence[Any]) -> NDArray[Any]:
        """Return the labels of many images as one array."""
        if not self.is_multi:
            return np.array(labels, np.int64)
        return np.stack(labels) if labels else np.zeros((0, self.classes), np.float32)

    def names(self) -> tuple[str, ...]:
        """Return what classes are called where nobody named them: by their numbers."""
        return tuple(str(number) for number in range(self.classes))


def _shown(numbers: Sequence[float]) -> str:
    text = ", ".join(f"{number:g}" for number in numbers[:8])
    return text + (", ..." if len(numbers) > 8 else "")
