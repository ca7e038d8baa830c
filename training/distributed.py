"""The process group a training script runs in, whatever started it: our launcher, torchrun, or a bare interpreter."""

import copy
import ctypes
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import HashStore  # type: ignore[attr-defined]  # missing from its __all__
from torch.nn.parallel import DistributedDataParallel

from mooring.contract.environment import process_variables

# DDP settles its buckets, and with them the order in which gradients are summed, in its first two backward passes, and
# rebuilds them as the third forward begins. That pass is whole, too: a forward alone would leave DDP waiting for its
# gradients, and it would sum those of the first backward pass that is told not to (`no_sync`), which rounds otherwise.
WARM_UP_PASSES = 3
# What gloo's threads do after the last collective takes microseconds, once they get the interpreter's lock.
LAST_WORK_S = 0.02


@dataclass(frozen=True)
class Group:
    """This process's place among the ranks, and the device it computes on."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device


@contextmanager
def process_group(timeout: timedelta | None = None) -> Iterator[Group]:
    """Join the other ranks for the length of the block: NCCL on GPUs, gloo on CPUs.

    Without the launcher's variables this is a group of one, so that a script is the same alone and distributed.

        with process_group() as group:
            model = prepare(model.to(group.device), group, example)
    """
    variables = process_variables()
    local_rank = int(variables.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if "RANK" in variables:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, timeout=timeout, store=HashStore(), rank=0, world_size=1)
    yield Group(dist.get_rank(), dist.get_world_size(), local_rank, device)
    # Only after a block that ended well: after an error peers may be gone, and leaving would wait for them.
    _leave()


def _leave() -> None:
    """Leave the group for good, and let nobody be the one to destroy it.

    DDP's reducer owns it too. If it is the last one to, it joins gloo's threads while it holds the interpreter's lock,
    for which a thread that drops its last piece of work may be waiting: one run in four hung as it ended
    (https://github.com/pytorch/pytorch/issues/56297). So one reference is kept, and the threads get a moment.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(dist.group.WORLD))
    dist.destroy_process_group()
    time.sleep(LAST_WORK_S)


def prepare(
    model: nn.Module, group: Group, example: torch.Tensor, *, shard: Iterable[nn.Module] | None = None
) -> nn.Module:
    """Return the model made distributed, so that a resumed run sums gradients in the order of an uninterrupted one.

    `example` is one batch of inputs on the model's device. Each rank holds the whole model (DDP), unless `shard` names
    the modules, such as a transformer's blocks, that are to be spread over all ranks and gathered one by one (FSDP2);
    what is in none of them is spread as one more. Call this before the optimizer is made and state is restored.
    """
    if group.world_size == 1:
        return model
    if shard is not None:
        from torch.distributed.fsdp import fully_shard  # here, since it takes a second

        for module in (*shard, model):
            fully_shard(module)
        return model
    return _replicated(model, group, example)


def _replicated(model: nn.Module, group: Group, example: torch.Tensor) -> nn.Module:
    devices = [group.device.index] if group.device.type == "cuda" else None
    distributed = DistributedDataParallel(model, device_ids=devices)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    with torch.random.fork_rng(devices=devices or []):
        for _ in range(WARM_UP_PASSES):
            torch.autograd.backward(_total(distributed(example)))
            model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return distributed


def _total(output: Any) -> torch.Tensor:
    """Reduce whatever a model returns to one number that depends on all of it."""
    if isinstance(output, torch.Tensor):
        return output.float().sum()
    parts = output.values() if isinstance(output, dict) else output
    return torch.stack([_total(part) for part in parts]).sum()


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model that `prepare` was given."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a prepared model under the names of the unprepared one, whole and on the CPU.

    Call it on all ranks; the first gets them, the others an empty dictionary.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    share_buffers(model)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)
    return {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}


def share_buffers(model: nn.Module) -> None:
    """Give every rank the first rank's buffers, such as running statistics, as the next training step would.

    Before a model is measured or saved, so that what is measured and saved is one model.
    """
    if dist.get_world_size() > 1:
        for buffer in unwrapped(model).buffers():
            dist.broadcast(buffer, src=0)
