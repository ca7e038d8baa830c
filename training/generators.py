"""The states of every random generator a training script may use, as tensors of fixed shape."""

import random

import numpy as np
import torch

State = dict[str, torch.Tensor]


def seed_generators(seed: int, rank: int) -> None:
    """Seed Python's, NumPy's and torch's generators, differently on each rank."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % (1 << 32))  # the legacy generator is what scripts and libraries draw from
    torch.manual_seed(seed + rank)


def generator_states() -> State:
    """Return the states of this process's generators."""
    _, words, next_gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([next_gauss is not None, next_gauss or 0.0], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_gauss": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(states: State) -> None:
    """Put this process's generators where `states` says."""
    has_next, next_gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), next_gauss if has_next else None))
    position, has_gauss, cached = states["numpy_gauss"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
