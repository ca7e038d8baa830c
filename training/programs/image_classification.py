"""The program `image-classification`: SageMaker's built-in algorithm of that name, in PyTorch.

Channels `train`, `validation`, `train_lst` and `validation_lst`, and `model` to go on from an earlier job's model; the
built-in's hyperparameters. Also the example of how to write a program: `main` and `train` are all of it.
"""

import logging
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer, RMSprop
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader, Subset

from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.errors import HyperparameterError
from mooring.contract.resources import usable_cpus
from mooring.contract.typed import hyperparameters, limited
from mooring.training.checkpoint import Checkpointer
from mooring.training.distributed import Group, prepare, process_group, share_buffers, unwrapped
from mooring.training.export import export
from mooring.training.generators import seed_generators
from mooring.training.initial_weights import initial_weights, start_from
from mooring.training.metrics import report
from mooring.training.sampler import DataPosition, GlobalBatchSampler, data_loader
from mooring.training.state import TrainingState
from mooring.training.stop import StopRequest

from .listed_images import ListedImages
from .residual_network import Classifier, ResidualNetwork, depths, has_depth

logger = logging.getLogger(__name__)

OPTIMIZERS = ("sgd", "nag", "adam", "rmsprop")
# Below this many pixels an image is decoded faster than it is handed over from a worker.
WORKERS_PIXELS = 64 * 64
VALIDATION_BATCH = 256
EXAMPLES = 2  # images that exported and trained model are compared on


@dataclass(frozen=True)
class Settings:
    """The hyperparameters. `mini_batch_size` counts the images of a step over all ranks."""

    num_classes: int = limited(minimum=2)
    num_training_samples: int | None = limited(None, minimum=1)  # the built-in needs it; here the listing is counted
    num_layers: int = limited(default=152, minimum=8)
    image_shape: tuple[int, ...] = limited(default=(3, 224, 224), minimum=1)
    mini_batch_size: int = limited(default=32, minimum=1)
    epochs: int = limited(default=30, minimum=1)
    learning_rate: float = limited(default=0.1, above=0)
    optimizer: str = "sgd"
    momentum: float = limited(default=0.9, minimum=0, maximum=0.999)
    weight_decay: float = limited(default=0.0001, minimum=0)
    lr_scheduler_factor: float = limited(default=0.1, above=0, maximum=1)
    lr_scheduler_step: tuple[int, ...] = ()
    seed: int = limited(default=0, minimum=0)

    def __post_init__(self) -> None:
        """Check what concerns more than one value. Raises `HyperparameterError`."""
        problems = []
        if len(self.image_shape) != 3 or self.image_shape[0] not in (1, 3):
            problems.append(
                f"Hyperparameter 'image_shape' is {self.image_shape}; expected channels (1 or 3), height and width."
            )
        elif not has_depth(self.num_layers, self.image_shape[1]):
            known = depths(self.image_shape[1])
            problems.append(
                f"Hyperparameter 'num_layers' is {self.num_layers}; "
                f"expected, for a height of {self.image_shape[1]}: {known}."
            )
        if self.optimizer not in OPTIMIZERS:
            problems.append(
                f"Hyperparameter 'optimizer' is \"{self.optimizer}\"; expected one of {', '.join(OPTIMIZERS)}."
            )
        if problems:
            raise HyperparameterError(problems)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.image_shape
        return channels, height, width


def main() -> None:
    """Train, and export what was trained."""
    environment = TrainingEnvironment.load(process_variables())
    settings = hyperparameters(Settings)
    images = ListedImages.open(environment.channels, "train", settings.shape, settings.num_classes)
    held_out = ListedImages.open(environment.channels, "validation", settings.shape, settings.num_classes)
    check_counts(settings, len(images))
    weights = initial_weights(environment.channels)
    with process_group() as group:
        seed_generators(settings.seed, group.rank)
        network = train(settings, group, images, held_out, weights)
        if group.rank == 0:
            example = torch.stack([held_out[index % len(held_out)][0] for index in range(EXAMPLES)])
            labels = [str(label) for label in range(settings.num_classes)]
            texts = {name: str(value) for name, value in asdict(settings).items()}
            export(Classifier(network), example, labels, environment.paths.model, texts)


def train(
    settings: Settings,
    group: Group,
    images: ListedImages,
    held_out: ListedImages,
    weights: dict[str, torch.Tensor] | None,
) -> nn.Module:
    """Train from the newest checkpoint to the last epoch, or until told to stop; returns the network."""
    state, scheduler = build(settings, group, weights)
    model, optimizer, position = state.model, state.optimizer, state.position
    batch_size = settings.mini_batch_size
    sampler = GlobalBatchSampler(
        len(images), batch_size, position, seed=settings.seed, rank=group.rank, world_size=group.world_size
    )
    loader = data_loader(images, sampler, num_workers=workers(settings, group))
    with StopRequest() as stop, Checkpointer(state) as checkpoints:
        checkpoints.resume()
        is_stopping = False
        while position.epoch < settings.epochs and not is_stopping:
            losses, seconds = [], []
            model.train()
            for pixels, labels in loader:
                started = time.perf_counter()
                logits = model(pixels.to(group.device))
                loss = cross_entropy(logits, labels.to(group.device), reduction="sum")
                # DDP averages over ranks, whose shares may differ by one image; this makes it the batch's mean.
                loss = loss * group.world_size / batch_size
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                state.step += 1
                position.consumed += batch_size
                losses.append(loss.detach())
                seconds.append(time.perf_counter() - started)
                is_stopping = stop.agreed()
                if is_stopping:
                    break
            if sampler.is_exhausted:
                position.epoch, position.consumed = position.epoch + 1, 0
                scheduler.step()
            started = time.perf_counter()
            checkpoints.save()
            held_up = time.perf_counter() - started
            report(
                epoch=position.epoch,
                step=state.step,
                train_loss=mean(losses, group),
                validation_accuracy=accuracy(model, held_out, group),
                step_ms=1000 * statistics.median(seconds),
                checkpoint_ms=1000 * held_up,
            )
    return unwrapped(model)


def build(
    settings: Settings, group: Group, weights: dict[str, torch.Tensor] | None
) -> tuple[TrainingState, MultiStepLR]:
    """Return the model on this rank's device with what trains it, and its learning rate's schedule."""
    network = ResidualNetwork(settings.num_layers, settings.shape, settings.num_classes).to(group.device)
    if weights is not None:
        start_from(Classifier(network), weights)  # as it was exported
    example = torch.zeros(2, *settings.shape, device=group.device)
    model = prepare(network, group, example)
    optimizer = make_optimizer(settings, model.parameters())
    scheduler = MultiStepLR(optimizer, list(settings.lr_scheduler_step), settings.lr_scheduler_factor)
    return TrainingState(model, optimizer, scheduler, DataPosition()), scheduler


def make_optimizer(settings: Settings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the optimizer that the settings name."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adam":
        return Adam(parameters, rate, weight_decay=decay)
    if settings.optimizer == "rmsprop":
        return RMSprop(parameters, rate, momentum=settings.momentum, weight_decay=decay)
    is_nesterov = settings.optimizer == "nag"
    return SGD(parameters, rate, momentum=settings.momentum, weight_decay=decay, nesterov=is_nesterov)


def mean(losses: list[torch.Tensor], group: Group) -> float:
    """Return the mean loss of the steps of this epoch so far, over all ranks."""
    total = torch.stack(losses).mean()
    dist.all_reduce(total)
    return float(total) / group.world_size


@torch.no_grad()
def accuracy(model: nn.Module, held_out: ListedImages, group: Group) -> float:
    """Return the share of validation images that the model gets right; each rank judges some."""
    share_buffers(model)
    network = unwrapped(model).eval()
    mine = Subset(held_out, range(group.rank, len(held_out), group.world_size))
    right = torch.zeros((), dtype=torch.int64, device=group.device)
    for pixels, labels in DataLoader(mine, batch_size=VALIDATION_BATCH):
        right += (network(pixels.to(group.device)).argmax(1) == labels.to(group.device)).sum()
    dist.all_reduce(right)
    return int(right) / len(held_out)


def check_counts(settings: Settings, images: int) -> None:
    """Compare the settings with the images there are. Raises `HyperparameterError`."""
    if settings.mini_batch_size > images:
        problem = f"expected at most {images}, the number of training images"
        raise HyperparameterError([f"Hyperparameter 'mini_batch_size' is {settings.mini_batch_size}; {problem}."])
    if settings.num_training_samples not in (None, images):
        logger.warning("num_training_samples is %d, but %d images are listed", settings.num_training_samples, images)


def workers(settings: Settings, group: Group) -> int:
    """Return how many processes decode images for this rank."""
    _, height, width = settings.shape
    return 0 if height * width <= WORKERS_PIXELS else max(1, usable_cpus() // group.world_size)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mooring").setLevel(logging.INFO)
    main()
