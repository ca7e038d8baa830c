"""The program `image-classification`: SageMaker's built-in algorithm of that name, in PyTorch.

The built-in's channels, hyperparameters and log lines, and a channel `model` to go on from an earlier job's model or a
published one. Also the example of how to write a program: `main` and `train` are all of it. docs/programs.md explains.
"""

import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Subset

from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.errors import HyperparameterError
from mooring.contract.resources import usable_cpus
from mooring.contract.typed import hyperparameters
from mooring.training.checkpoint import Checkpointer
from mooring.training.data.image_channels import ImageChannelError, open_images
from mooring.training.data.image_labels import LabelForm
from mooring.training.data.images import ImageSource, LabelledImages, Prepare, batches, collate
from mooring.training.distributed import Group, prepare, process_group, share_buffers, unwrapped
from mooring.training.export import export
from mooring.training.generators import seed_generators
from mooring.training.retention import Best, Retention
from mooring.training.sampler import DataPosition, GlobalBatchSampler, data_loader
from mooring.training.state import TrainingState
from mooring.training.stop import StopRequest

from .images.augmentation import Plain, Preparation, Varied
from .images.log_lines import EpochLog
from .images.objective import Objective, Tally
from .images.optimizers import make_optimizer, make_schedule
from .images.precision import Precision
from .images.pretrained import Weights, begin_with, given_weights
from .images.progress import Progress
from .images.residual_network import Classifier, ResidualNetwork
from .images.settings import Settings

logger = logging.getLogger(__name__)

# Below this many pixels an image is decoded faster than it is handed over from a worker.
WORKERS_PIXELS = 64 * 64
VALIDATION_BATCH = 256
EXAMPLES = 2  # images that exported and trained model are compared on
KEEP = Retention(last=2, best=Best.HIGHEST)


def main() -> None:
    """Train, and export what was trained."""
    settings = hyperparameters(Settings)
    environment = TrainingEnvironment.load(process_variables())
    settings.tell_what_has_no_effect()
    weights = given_weights(settings, environment.channels)
    form = LabelForm(settings.num_classes, settings.multi_label)
    position = DataPosition()
    preparation = Preparation(settings.shape, settings.resize, settings.augmentation_type)
    source = open_images(environment.channels, "train", form)
    images = labelled(source, preparation, Varied(preparation, settings.seed, position))
    held_out_source = open_images(environment.channels, "validation", form, source.class_names)
    held_out = labelled(held_out_source, preparation, Plain(preparation))
    with process_group() as group:
        batch_size = settings.mini_batch_size * len(environment.cluster.hosts)
        check_replicated(environment.cluster.current_host, train=len(images), validation=len(held_out))
        check_counts(settings, len(images), batch_size, group)
        seed_generators(settings.seed, group.rank)
        network = train(settings, group, batch_size, position, images, held_out, weights)
        if group.rank == 0:
            write_model(settings, network, held_out, environment.paths.model)


def train(
    settings: Settings,
    group: Group,
    batch_size: int,
    position: DataPosition,
    images: LabelledImages,
    held_out: LabelledImages,
    weights: Weights | None,
) -> ResidualNetwork:
    """Train from the newest checkpoint until the run is over, or told to stop; returns the best epoch's network."""
    precision = Precision.of(settings.precision_dtype, group.device)
    objective = Objective.of(settings, images.source.labels)
    progress = Progress()
    model = build(settings, group, weights)
    optimizer = make_optimizer(settings, model.parameters())
    scheduler = make_schedule(settings, optimizer)
    state = TrainingState(model, optimizer, scheduler, position, scaler=precision.scaler, progress=progress)
    sampler = GlobalBatchSampler(
        len(images), batch_size, position, seed=settings.seed, rank=group.rank, world_size=group.world_size
    )
    loader = data_loader(images, sampler, collate_fn=collate, num_workers=workers(settings, group))
    with StopRequest() as stop, Checkpointer(state, keep=KEEP) as checkpoints:
        checkpoints.resume()
        is_stopping = False
        while not is_stopping and not progress.is_over(settings, position.epoch):
            log = EpochLog(position.epoch, position.consumed // batch_size, batch_size, objective, group.device)
            model.train()
            for pixels, labels in batches(loader):
                answers = labels.to(group.device)
                with precision.autocast():
                    logits = model(pixels.to(group.device))
                loss = objective.loss(logits.float(), answers)
                optimizer.zero_grad()
                # DDP averages over ranks, whose shares may differ by one image; this makes it the batch's mean.
                torch.autograd.backward(precision.scaler.scale(loss * group.world_size / batch_size))
                precision.scaler.step(optimizer)
                precision.scaler.update()
                state.step += 1
                position.consumed += batch_size
                log.add(logits, answers, loss)
                is_stopping = stop.agreed()
                if is_stopping:
                    break
            if not sampler.is_exhausted:  # told to stop within an epoch, which is not measured then
                checkpoints.save()
                break
            position.epoch, position.consumed = position.epoch + 1, 0
            scheduler.step()
            measured = measure(settings, group, model, held_out, objective)
            progress.add(measured["accuracy"], state.step, settings.early_stopping_tolerance)
            started = time.perf_counter()
            if is_checkpoint_due(settings, state.step, position.epoch, progress):
                checkpoints.save(metric=measured["accuracy"])
            log.tell(state.step, measured, checkpoint_ms=1000 * (time.perf_counter() - started))
        checkpoints.wait()
        if progress.best_step not in (0, state.step):
            checkpoints.resume(at_most=progress.best_step)  # what is exported is the best there was
    network = unwrapped(model)
    assert isinstance(network, ResidualNetwork)
    return network


def build(settings: Settings, group: Group, weights: Weights | None) -> nn.Module:
    """Return the model on this rank's device, with the weights it begins with."""
    network = ResidualNetwork(settings.num_layers, settings.shape, settings.num_classes).to(group.device)
    if weights is not None:
        begin_with(network, weights, is_pretrained=settings.use_pretrained_model)
    return prepare(network, group, torch.zeros(2, *settings.shape, device=group.device))


@torch.no_grad()
def measure(
    settings: Settings, group: Group, model: nn.Module, held_out: LabelledImages, objective: Objective
) -> dict[str, float]:
    """Return accuracy and loss on the validation images, of which each rank judges some."""
    share_buffers(model)
    network = unwrapped(model).eval()
    mine = Subset(held_out, range(group.rank, len(held_out), group.world_size))
    count = workers(settings, group)
    tally = Tally(objective, group.device)
    for pixels, labels in batches(DataLoader(mine, VALIDATION_BATCH, collate_fn=collate, num_workers=count)):
        answers = labels.to(group.device)
        logits = network(pixels.to(group.device))
        tally.add(logits, answers, objective.loss(logits, answers))
    return tally.of_all_ranks()


def is_checkpoint_due(settings: Settings, step: int, epoch: int, progress: Progress) -> bool:
    """Whether a checkpoint is saved after an epoch: each, or every so many; the best and the last in any case."""
    is_turn = epoch % (settings.checkpoint_frequency or 1) == 0
    return is_turn or progress.best_step == step or progress.is_over(settings, epoch)


def write_model(settings: Settings, network: ResidualNetwork, held_out: LabelledImages, directory: Path) -> None:
    """Write what serves as it is: probabilities from pixels."""
    some = Subset(held_out, [index % len(held_out) for index in range(EXAMPLES)])
    example, _ = next(batches(DataLoader(some, EXAMPLES, collate_fn=collate)))
    texts = {name: str(value) for name, value in asdict(settings).items()}
    classifier, simplified = (
        Classifier(each, is_multi_label=settings.multi_label) for each in (network, network.folded())
    )
    names, weights = held_out.source.class_names, network.state_dict()
    export(classifier, example.float(), names, directory, texts, weights=weights, simplified=simplified)


def labelled(source: ImageSource, preparation: Preparation, prepare: Prepare) -> LabelledImages:
    """Return a source's images as the network takes them."""
    channels, _, _ = preparation.image_shape
    return LabelledImages(source, channels, prepare, least_side=preparation.least_side)


def check_counts(settings: Settings, images: int, batch_size: int, group: Group) -> None:
    """Compare the settings with the images and the ranks there are. Raises `HyperparameterError`."""
    if not group.world_size <= batch_size <= images:
        least, most = group.world_size, images
        problem = f"{batch_size} in all; expected {least} (the ranks) to {most} (the training images) in all"
        raise HyperparameterError([f"Hyperparameter 'mini_batch_size' is {settings.mini_batch_size}, {problem}."])
    if settings.num_training_samples not in (None, images):
        logger.warning(
            "num_training_samples is %d, but there are %d training images; all of them are used",
            settings.num_training_samples,
            images,
        )


def check_replicated(host: str, **images: int) -> None:
    """Compare how many images each host has: all have to have all. Raises `ImageChannelError` on all ranks."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, (host, images))
    for name in images:
        counts = {each: there[name] for each, there in found}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{count} on {each}" for each, count in counts.items())
            problem = (
                f"holds other images on other hosts ({shown}); its S3DataDistributionType has to be FullyReplicated"
            )
            raise ImageChannelError(name, problem)


def workers(settings: Settings, group: Group) -> int:
    """Return how many processes decode images for this rank."""
    _, height, width = settings.shape
    ranks = int(process_variables().get("LOCAL_WORLD_SIZE", group.world_size))
    return 0 if height * width <= WORKERS_PIXELS else max(1, usable_cpus() // ranks)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    is_first = process_variables().get("RANK", "0") == "0"
    logging.getLogger("mooring").setLevel(logging.INFO if is_first else logging.WARNING)
    main()
