"""The hyperparameters of image-classification: names, ranges and defaults are those of SageMaker's built-in algorithm.

https://docs.aws.amazon.com/sagemaker/latest/dg/IC-Hyperparameter.html; docs/programs.md holds the table, generated.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

from mooring.contract.typed import Rule, limited, table

from .residual_network import LARGE_STAGES, SMALL_HEIGHT

logger = logging.getLogger(__name__)

AugmentationType = Literal["crop", "crop_color", "crop_color_transform"]
CHANNELS = (1, 3)


def image_shape_is_one(image_shape: tuple[int, ...]) -> str | None:
    """Say what is wrong with an image shape."""
    if len(image_shape) == 3 and image_shape[0] in CHANNELS:
        return None
    shown = ",".join(map(str, image_shape))
    return f"Hyperparameter 'image_shape' is \"{shown}\"; expected channels (1 or 3), height, width, as in 3,224,224."


def depth_fits_height(num_layers: int, image_shape: tuple[int, ...]) -> str | None:
    """Say so if there is no network of a depth for images of a height."""
    if num_layers in LARGE_STAGES or len(image_shape) != 3 or image_shape[1] <= SMALL_HEIGHT:
        return None
    large = ", ".join(map(str, LARGE_STAGES))
    return (
        f"Hyperparameter 'num_layers' is {num_layers}, a network for images of at most {SMALL_HEIGHT} pixels in "
        f"height; expected, for a height of {image_shape[1]}: {large}."
    )


def top_k_fits_classes(top_k: int | None, num_classes: int) -> str | None:
    """Say so if there are no k classes."""
    if top_k is None or top_k <= num_classes:
        return None
    return f"Hyperparameter 'top_k' is {top_k}; expected at most num_classes, which is {num_classes}."


def betas_forget(optimizer: str, beta_1: float, beta_2: float) -> str | None:
    """Say so if one of adam's means would never change."""
    wrong = [f"'beta_{number}'" for number, beta in ((1, beta_1), (2, beta_2)) if beta >= 1]
    if optimizer != "adam" or not wrong:
        return None
    return f"Hyperparameter {' and '.join(wrong)} is 1; expected less, or adam's mean keeps what it begins with."


def checkpoints_fit_epochs(checkpoint_frequency: int | None, epochs: int) -> str | None:
    """Say so if a checkpoint would never be due."""
    if checkpoint_frequency is None or checkpoint_frequency <= epochs:
        return None
    return f"Hyperparameter 'checkpoint_frequency' is {checkpoint_frequency}; expected at most epochs, {epochs}."


@dataclass(frozen=True)
class Settings:
    """The hyperparameters."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        image_shape_is_one,
        depth_fits_height,
        top_k_fits_classes,
        betas_forget,
        checkpoints_fit_epochs,
    )

    num_classes: int = limited(minimum=1, meaning="how many classes there are")
    num_training_samples: int | None = limited(
        None, minimum=1, meaning="how many training images there are; compared with those found, which count"
    )
    num_layers: Literal[18, 34, 50, 101, 152, 200, 20, 32, 44, 56, 110] = limited(
        152, meaning="depth of the network; 20, 32, 44, 56 and 110 only for heights of at most 32"
    )
    image_shape: tuple[int, ...] = limited((3, 224, 224), minimum=1, meaning="channels (1 or 3), height and width")
    multi_label: bool = limited(False, meaning="an image may have several classes, or none")
    use_weighted_loss: bool = limited(False, meaning="with multi_label: rare classes count more in the loss")
    use_pretrained_model: bool = limited(
        False, meaning="start from the weights in the channel `model`, with a last layer of its own if classes differ"
    )
    epochs: int = limited(30, minimum=1, meaning="passes over the training images")
    mini_batch_size: int = limited(32, minimum=1, meaning="images of a step on each host, shared by its ranks")
    resize: int | None = limited(None, minimum=1, meaning="pixels of an image's shorter side before it is cropped")
    augmentation_type: Literal["crop", "crop_color", "crop_color_transform"] | None = limited(
        None, meaning="what varies the training images"
    )
    optimizer: Literal["sgd", "adam", "rmsprop", "nag"] = limited(
        "sgd", meaning="`nag` is sgd with Nesterov's momentum"
    )
    learning_rate: float = limited(0.1, minimum=0, maximum=1, meaning="the rate that training begins with")
    lr_scheduler_step: tuple[int, ...] = limited((), minimum=1, meaning="after how many epochs the rate is lowered")
    lr_scheduler_factor: float = limited(0.1, minimum=0, maximum=1, meaning="what the rate is multiplied by then")
    momentum: float = limited(0.9, minimum=0, maximum=1, meaning="of sgd and nag")
    weight_decay: float = limited(0.0001, minimum=0, maximum=1, meaning="of sgd and nag")
    beta_1: float = limited(0.9, minimum=0, maximum=1, meaning="of adam: decay of the mean of gradients")
    beta_2: float = limited(0.999, minimum=0, maximum=1, meaning="of adam: decay of the mean of their squares")
    eps: float = limited(1e-8, minimum=0, maximum=1, meaning="of adam and rmsprop: added to what they divide by")
    gamma: float = limited(0.9, minimum=0, maximum=1, meaning="of rmsprop: decay of the mean of squared gradients")
    precision_dtype: Literal["float32", "float16"] = limited(
        "float32", meaning="float16: mixed precision; on a CPU in bfloat16"
    )
    top_k: int | None = limited(
        None, minimum=2, meaning="report, too, how often the right class is among the k likeliest"
    )
    early_stopping: bool = limited(False, meaning="end when validation accuracy no longer rises")
    early_stopping_min_epochs: int = limited(10, minimum=1, meaning="epochs that are run in any case")
    early_stopping_patience: int = limited(5, minimum=1, meaning="epochs without improvement that are waited for")
    early_stopping_tolerance: float = limited(
        0.0, minimum=0, maximum=1, meaning="a rise by a smaller part of the best accuracy is none"
    )
    checkpoint_frequency: int | None = limited(
        None, minimum=1, meaning="epochs between checkpoints, beside that of the best epoch; default: every epoch"
    )
    kv_store: Literal["dist_sync", "dist_async"] | None = limited(
        None, meaning="without effect: hosts always train in step"
    )
    seed: int = limited(0, minimum=0, meaning="of weights, order and augmentation")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.image_shape
        return channels, height, width

    def tell_what_has_no_effect(self) -> None:
        """Log which of the hyperparameters that were given change nothing."""
        if self.kv_store is not None:
            logger.info("kv_store is %s, which has no effect: hosts always train in step", self.kv_store)
        if self.top_k is not None and self.multi_label:
            logger.info("top_k has no effect with multi_label")
        if self.use_weighted_loss and not self.multi_label:
            logger.info("use_weighted_loss has no effect without multi_label")


if __name__ == "__main__":
    print(table(Settings))  # noqa: T201 - what this module is run for
