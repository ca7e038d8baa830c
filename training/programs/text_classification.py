"""The program `text-classification`: fine-tunes a classifier of transformers on texts with labels.

Channels `train` and `model`, and `validation` if there is one; what is exported serves as it is. `main` and `train` are
all of it, what they are made of is in texts/.
"""

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.typed import hyperparameters
from mooring.training.checkpoint import Checkpointer
from mooring.training.distributed import Group, prepare, process_group, share_buffers, unwrapped
from mooring.training.generators import seed_generators
from mooring.training.metrics import report
from mooring.training.profiling.profiler import Profiler
from mooring.training.retention import Retention
from mooring.training.sampler import DataPosition, GlobalBatchSampler, data_loader
from mooring.training.state import TrainingState
from mooring.training.stop import StopRequest

from .texts.best_step import BestStep, better
from .texts.channels import TRAIN, VALIDATION, check_channels, labelled_texts, split
from .texts.labels import Labels
from .texts.network import freeze, make_optimizer
from .texts.order import LengthGroupedSampler
from .texts.pace import Pace
from .texts.pretrained import Pretrained, pretrained_folder
from .texts.schedule import Schedule
from .texts.scores import Scores, loss_of
from .texts.settings import Metric, Settings, metric_of
from .texts.tokens import Batch, TokenizedTexts, tokenize
from .watching import watches_of_job

PROGRAMS = "mooring.training.programs"
logger = logging.getLogger(f"{PROGRAMS}.text_classification")  # as a program its own name is __main__


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    settings: Settings
    group: Group
    schedule: Schedule
    labels: Labels
    metric: Metric

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in 16 bits, where that is asked for and safe, for the length of a block."""
        kind = self.settings.computes_in
        return nullcontext() if kind == "float32" else torch.autocast(self.group.device.type, getattr(torch, kind))


def main() -> None:
    """Fine-tune, and export what was trained."""
    environment = TrainingEnvironment.load(process_variables())
    settings, channels = hyperparameters(Settings), environment.channels
    with process_group() as group:
        speak_once(group)
        check_channels(channels, settings)
        seed_generators(settings.seed, group.rank)
        with pretrained_folder(channels, settings, group) as folder:
            pretrained = Pretrained.read(folder)
            max_length = pretrained.max_length(settings.max_length)
            texts = labelled_texts(channels[TRAIN], settings, group)
            labels = Labels.of(texts, settings, pretrained.labels)
            if VALIDATION in channels:
                held_out = labelled_texts(channels[VALIDATION], settings, group)
            else:
                texts, held_out = split(texts, settings)
            schedule = Schedule.of(settings, len(texts), group.world_size)
            run = Run(settings, group, schedule, labels, metric_of(settings, labels.problem))
            data = tokenize(TRAIN, texts, labels.targets(texts), pretrained, max_length, group)
            judged = tokenize(VALIDATION, held_out, labels.targets(held_out), pretrained, max_length, group)
            network = pretrained.classifier(labels).to(group.device)
        network = train(run, network, data, judged)
        if group.rank == 0:
            pretrained.export(network, environment.paths.model)


def train(run: Run, network: nn.Module, data: TokenizedTexts, held_out: TokenizedTexts) -> nn.Module:
    """Train from the newest checkpoint to the last step, or until told to stop; returns the network to export."""
    settings, group, schedule = run.settings, run.group, run.schedule
    example = data.batch([0, 1]).on(group.device).inputs["input_ids"]
    freeze(network, settings, example)
    model = prepare(network.train(), group, example)
    optimizer, scheduler = make_optimizer(network, settings, schedule)
    scaler = torch.amp.GradScaler(group.device.type, enabled=settings.computes_in == "float16")
    position, best = DataPosition(), BestStep(better(run.metric))
    state = TrainingState(model, optimizer, scheduler, position, scaler=scaler, progress=best)
    sampler = make_sampler(run, data, position)
    batches = endless(data_loader(data, sampler, collate_fn=data.in_parts(settings.gradient_accumulation_steps)))
    losses: list[torch.Tensor] = []
    keep = Retention(settings.keep_checkpoints, best=better(run.metric))
    with (
        StopRequest() as stop,
        Checkpointer(state, keep=keep) as checkpoints,
        Profiler(by_default=False) as profiler,
        watches_of_job(model, scaler) as watches,
    ):
        checkpoints.resume()
        pace, is_stopping = Pace(state.step), False
        while not is_stopping:
            if schedule.evaluates_after(state.step) and best.judged < state.step:
                with profiler.phase("validation"):
                    scores = judge(run, model, held_out) if len(held_out) else {}
                report(epoch=schedule.epoch(state.step), step=state.step, **named(scores))
                best.add(scores.get(run.metric), state.step)
                with profiler.phase("checkpoint"):
                    checkpoints.save(scores.get(run.metric))
            if state.step >= schedule.steps or best.is_over(settings.early_stopping_patience):
                break
            for parts in profiler.steps(batches, after=state.step):
                optimizer.zero_grad()
                losses.append(accumulate(run, model, scaler, parts, profiler))
                watches.look(losses[-1] * group.world_size / schedule.batch_size, state.step + 1)
                with profiler.phase("optimizer"):
                    norm = update_weights(run, network, optimizer, scaler)
                rate = scheduler.get_last_lr()[0]
                scheduler.step()
                state.step += 1
                position.consumed += schedule.batch_size
                if sampler.is_exhausted:
                    position.epoch, position.consumed = position.epoch + 1, 0
                if state.step % settings.logging_steps == 0:
                    tell(run, state.step, losses, pace, learning_rate=rate, gradient_norm=norm)
                    losses.clear()
                is_stopping = stop.agreed()
                if is_stopping or schedule.saves_after(state.step):
                    with profiler.phase("checkpoint"):
                        checkpoints.save()
                if is_stopping or schedule.evaluates_after(state.step):
                    break
        if settings.export_best and best.step not in (0, state.step):
            logger.info("the best model was that of step %d, by %s", best.step, run.metric)
            checkpoints.wait()
            checkpoints.resume(at_most=best.step)
    return unwrapped(model)


def speak_once(group: Group) -> None:
    """Let the first rank alone say what all of them do."""
    if group.rank != 0:
        logging.getLogger(PROGRAMS).setLevel(logging.ERROR)


def make_sampler(run: Run, data: TokenizedTexts, position: DataPosition) -> GlobalBatchSampler:
    """Return the order of an epoch, and this rank's share of each batch of it."""
    group, size, seed = run.group, run.schedule.batch_size, run.settings.seed
    place = {"rank": group.rank, "world_size": group.world_size}
    if run.settings.group_by_length:
        return LengthGroupedSampler(data.lengths, size, position, seed=seed, **place)
    return GlobalBatchSampler(len(data), size, position, seed=seed, **place)


def endless(loader: DataLoader[list[Batch]]) -> Iterator[list[Batch]]:
    """Yield batches, epoch after epoch; each begins where the position stands."""
    while True:
        yield from loader


def accumulate(
    run: Run, model: nn.Module, scaler: torch.amp.GradScaler, parts: Sequence[Batch], profiler: Profiler
) -> torch.Tensor:
    """Add up the gradients of this rank's share of a batch, part by part; returns the sum of its texts' losses."""
    loss_sum = loss_of(run.labels.problem, run.settings.label_smoothing)
    total = torch.zeros((), device=run.group.device)
    for number, part in enumerate(parts, start=1):
        batch = part.on(run.group.device)
        # Ranks add their gradients to one another's once, with the last part.
        waits = number < len(parts) and isinstance(model, DistributedDataParallel)
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]  # a module may have any attribute
            with profiler.phase("forward"), run.autocast():
                loss = loss_sum(model(**batch.inputs).logits, batch.targets)
            with profiler.phase("backward"):
                # DDP averages over ranks, whose shares may differ by one text; this makes it the batch's mean.
                torch.autograd.backward(scaler.scale(loss * run.group.world_size / run.schedule.batch_size))
        total += loss.detach()
    return total


def update_weights(run: Run, network: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> torch.Tensor:
    """Take the step that the gradients ask for; returns their norm as it was before they were clipped."""
    scaler.unscale_(optimizer)
    norm = clip_grad_norm_(network.parameters(), run.settings.max_grad_norm or math.inf)
    scaler.step(optimizer)
    scaler.update()
    return norm


def tell(run: Run, step: int, losses: Sequence[torch.Tensor], pace: Pace, **measured: Any) -> None:
    """Report and log the steps since the last time. Call it on all ranks."""
    report(epoch=run.schedule.epoch(step), step=step, train_loss=mean(run, losses), **measured)
    logger.info("%s", pace.told(step, run.schedule))


def mean(run: Run, losses: Sequence[torch.Tensor]) -> float:
    """Return the mean loss of a text in the last steps, over all ranks."""
    total = torch.stack(list(losses)).sum()
    dist.all_reduce(total)
    return float(total) / (len(losses) * run.schedule.batch_size)


def named(scores: Mapping[Metric, float]) -> dict[str, float]:
    """Return the validation's metrics under the names that they are reported by."""
    return {f"{VALIDATION}_{metric}": score for metric, score in scores.items()}


@torch.no_grad()
def judge(run: Run, model: nn.Module, held_out: TokenizedTexts) -> dict[Metric, float]:
    """Return the metrics of the validation texts; each rank judges some."""
    share_buffers(model)
    network = unwrapped(model).eval()
    loss_sum = loss_of(run.labels.problem, 0)
    scores = Scores(run.labels.problem, run.labels.count, run.group.device)
    mine = held_out.by_length()[run.group.rank :: run.group.world_size]
    for start in range(0, len(mine), run.settings.eval_batch_size):
        batch = held_out.batch(mine[start : start + run.settings.eval_batch_size]).on(run.group.device)
        with run.autocast():
            logits = network(**batch.inputs).logits
        scores.add(logits, batch.targets, loss_sum(logits, batch.targets))
    network.train()
    return scores.together()


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mooring").setLevel(logging.INFO)
    main()
