"""The program `image-classification`: SageMaker's built-in algorithm of that name, in PyTorch.

The built-in's channels, hyperparameters and log lines, and a channel `model` to go on from an earlier job's model or a
published one. Also the example of how to write a program: `main`, `train` and `Learner`. docs/programs.md explains.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.errors import HyperparameterError
from mooring.contract.typed import hyperparameters
from mooring.training.checkpoint import Checkpointer
from mooring.training.data.image_channels import ImageChannelError
from mooring.training.distributed import Group, prepare, process_group, share_buffers, unwrapped
from mooring.training.export import export
from mooring.training.generators import seed_generators
from mooring.training.profiling.profiler import Profiler
from mooring.training.retention import Best, Retention
from mooring.training.sampler import DataPosition
from mooring.training.state import TrainingState
from mooring.training.stop import StopRequest

from .images.augmentation import Preparation
from .images.best_epoch import BestEpoch
from .images.loaders import VALIDATION, ImageBatches, ImageLoaders
from .images.log_lines import EpochLog
from .images.objective import Objective, Tally
from .images.optimizers import make_optimizer, make_schedule
from .images.precision import Precision
from .images.pretrained import Weights, begin_with, given_weights
from .images.residual_network import Classifier, ResidualNetwork
from .images.settings import Settings
from .watching import watches_of_job

logger = logging.getLogger(__name__)

EXAMPLES = 2  # made-up images that exported and trained model are compared on
KEEP = Retention(last=2, best=Best.HIGHEST)


def main() -> None:
    """Train, and export what was trained."""
    settings = hyperparameters(Settings)
    environment = TrainingEnvironment.load(process_variables())
    settings.tell_what_has_no_effect()
    weights = given_weights(settings, environment.channels)
    with process_group() as group:
        batch_size = settings.mini_batch_size * len(environment.cluster.hosts)
        position, loaders = DataPosition(), ImageLoaders(settings, environment.channels, group)
        images = loaders.training(batch_size, position)
        held_out = loaders.held_out(images.class_names)
        check_replicated(environment.cluster.current_host, train=images.count, validation=held_out.count)
        check_counts(settings, images.count, batch_size, group)
        seed_generators(settings.seed, group.rank)
        network = train(settings, group, batch_size, position, images, held_out, weights)
        if group.rank == 0:
            write_model(settings, network, images.class_names, environment.paths.model)


def train(
    settings: Settings,
    group: Group,
    batch_size: int,
    position: DataPosition,
    images: ImageBatches,
    held_out: ImageBatches,
    weights: Weights | None,
) -> ResidualNetwork:
    """Train from the newest checkpoint until the run is over, or told to stop; returns the best epoch's network."""
    objective = Objective.of(settings, None if images.source is None else images.source.labels)
    learner = Learner.begin(settings, group, batch_size, objective, weights)
    model, optimizer, scaler = learner.model, learner.optimizer, learner.precision.scaler
    scheduler, best = make_schedule(settings, optimizer), BestEpoch()
    state = TrainingState(model, optimizer, scheduler, position, scaler=scaler, progress=best)
    with (
        StopRequest() as stop,
        Checkpointer(state, keep=KEEP) as checkpoints,
        Profiler(by_default=False) as profiler,
        watches_of_job(model, scaler) as watches,
    ):
        checkpoints.resume()
        is_stopping = False
        while not is_stopping and not best.is_over(settings, position.epoch):
            log = EpochLog(position.epoch, position.consumed // batch_size, batch_size, objective, group.device)
            model.train()
            for pixels, labels in profiler.steps(images, after=state.step):
                answers = labels.to(group.device)
                logits, loss = learner.add_gradients(pixels, answers, profiler)
                watches.look(learner.mean(loss), state.step + 1)
                learner.update_weights(profiler)
                state.step += 1
                position.consumed += batch_size
                log.add(logits, answers, loss)
                is_stopping = stop.agreed()
                if is_stopping:
                    break
            with profiler.phase("validation"):
                measured = measure(group, model, held_out, objective) if images.is_exhausted else {}
            if not measured:  # told to stop within the epoch, which is gone on with, or measured, by the next run
                stop.agree()
                checkpoints.save()
                break
            position.epoch, position.consumed = position.epoch + 1, 0
            scheduler.step()
            best.add(measured["accuracy"], state.step, settings.early_stopping_tolerance)
            started = time.perf_counter()
            if is_checkpoint_due(settings, state.step, position.epoch, best):
                with profiler.phase("checkpoint"):
                    checkpoints.save(metric=measured["accuracy"])
            log.tell(state.step, measured, checkpoint_ms=1000 * (time.perf_counter() - started))
        checkpoints.wait()
        if best.step not in (0, state.step):
            checkpoints.resume(at_most=best.step)  # what is exported is the best there was
    network = unwrapped(model)
    assert isinstance(network, ResidualNetwork)
    return network


@dataclass(frozen=True)
class Learner:
    """A model with all that a step of it takes. A batch is that of all ranks."""

    model: nn.Module
    optimizer: Optimizer
    precision: Precision
    objective: Objective
    group: Group
    batch_size: int

    @classmethod
    def begin(
        cls, settings: Settings, group: Group, batch_size: int, objective: Objective, weights: Weights | None
    ) -> "Learner":
        """Return a model that has not learnt yet, but for the weights it begins with."""
        precision = Precision.of(settings.precision_dtype, group.device)
        model = build(settings, group, weights)
        return cls(model, make_optimizer(settings, model.parameters()), precision, objective, group, batch_size)

    def mean(self, loss: torch.Tensor) -> torch.Tensor:
        """Return what gradients are taken of, by the sum of the losses of this rank's images.

        DDP averages over ranks, whose shares may differ by one image; this makes it the batch's mean.
        """
        return loss * self.group.world_size / self.batch_size

    def add_gradients(
        self, pixels: torch.Tensor, answers: torch.Tensor, profiler: Profiler
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the batch's gradients in the model; returns logits, and the sum of the losses of this rank's images."""
        with profiler.phase("forward"):
            with self.precision.autocast():
                logits = self.model(pixels.to(self.group.device))
            loss = self.objective.loss(logits.float(), answers)
        with profiler.phase("backward"):
            self.optimizer.zero_grad()
            torch.autograd.backward(self.precision.scaler.scale(self.mean(loss)))
        return logits, loss

    def update_weights(self, profiler: Profiler) -> None:
        """Take the step that the gradients ask for."""
        with profiler.phase("optimizer"):
            self.precision.scaler.step(self.optimizer)
            self.precision.scaler.update()


def build(settings: Settings, group: Group, weights: Weights | None) -> nn.Module:
    """Return the model on this rank's device, with the weights it begins with."""
    network = ResidualNetwork(settings.num_layers, settings.shape, settings.num_classes).to(group.device)
    if weights is not None:
        begin_with(network, weights, is_pretrained=settings.use_pretrained_model)
    return prepare(network, group, torch.zeros(2, *settings.shape, device=group.device))


@torch.no_grad()
def measure(group: Group, model: nn.Module, held_out: ImageBatches, objective: Objective) -> dict[str, float]:
    """Return accuracy and loss on the validation images, of which each rank judges some; empty if told to stop."""
    share_buffers(model)
    network = unwrapped(model).eval()
    tally = Tally(objective, group.device)
    for pixels, labels in held_out:
        answers = labels.to(group.device)
        logits = network(pixels.to(group.device))
        tally.add(logits, answers, objective.loss(logits, answers))
    were_all_judged = torch.tensor(int(held_out.is_exhausted), device=group.device)
    dist.all_reduce(were_all_judged, dist.ReduceOp.MIN)
    if not were_all_judged:
        return {}
    measured = tally.of_all_ranks()
    if not measured:
        raise ImageChannelError(VALIDATION, "came to its end without an image")
    return measured


def is_checkpoint_due(settings: Settings, step: int, epoch: int, best: BestEpoch) -> bool:
    """Whether a checkpoint is saved after an epoch: each, or every so many; the best and the last in any case."""
    is_turn = epoch % (settings.checkpoint_frequency or 1) == 0
    return is_turn or best.step == step or best.is_over(settings, epoch)


def write_model(settings: Settings, network: ResidualNetwork, class_names: Sequence[str], directory: Path) -> None:
    """Write what serves as it is: probabilities from pixels."""
    chance = torch.Generator().manual_seed(settings.seed)
    example = torch.randint(0, 256, (EXAMPLES, *settings.shape), generator=chance).float()
    texts = {name: str(value) for name, value in asdict(settings).items()}
    classifier, simplified = (
        Classifier(each, is_multi_label=settings.multi_label) for each in (network, network.folded())
    )
    export(
        classifier,
        example,
        class_names,
        directory,
        texts,
        weights=network.state_dict(),
        simplified=simplified,
        metadata=Preparation.of(settings).fit.metadata(),
    )


def check_counts(settings: Settings, images: int | None, batch_size: int, group: Group) -> None:
    """Compare the settings with the images, if they can be counted, and the ranks. Raises `HyperparameterError`."""
    most = batch_size if images is None else images
    if not group.world_size <= batch_size <= most:
        limits = f"expected {group.world_size} (the ranks) to {most} (the training images) in all"
        problem = f"{batch_size} in all; {limits}"
        raise HyperparameterError([f"Hyperparameter 'mini_batch_size' is {settings.mini_batch_size}, {problem}."])
    if images is not None and settings.num_training_samples not in (None, images):
        logger.warning(
            "num_training_samples is %d, but there are %d training images; all of them are used",
            settings.num_training_samples,
            images,
        )


def check_replicated(host: str, **images: int | None) -> None:
    """Compare how many images each host has: all have to have all, but for what comes through a pipe.

    Raises `ImageChannelError` on all ranks.
    """
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


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    is_first = process_variables().get("RANK", "0") == "0"
    logging.getLogger("mooring").setLevel(logging.INFO if is_first else logging.WARNING)
    main()
