"""Texts as tokens: made once, by all ranks together, kept flat, and padded batch by batch to their longest."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mooring.training.distributed import Group

from .pretrained import Pretrained
from .records import LabelledText

logger = logging.getLogger(__name__)

CHUNK = 1000
# GPUs compute matrices of such sizes fastest.
GPU_MULTIPLE = 8
# What a tokenizer makes for every text by itself; padding makes it anew.
MASK = "attention_mask"


@dataclass(frozen=True)
class Batch:
    """Padded texts with what the model is to give for them."""

    inputs: Mapping[str, torch.Tensor]
    targets: torch.Tensor

    def on(self, device: torch.device) -> "Batch":
        """Return it on a device."""
        return Batch({name: tensor.to(device) for name, tensor in self.inputs.items()}, self.targets.to(device))


@dataclass(frozen=True)
class _Encoded:
    """Tokens of several texts, one text after the other."""

    columns: Mapping[str, NDArray[np.int32]]
    lengths: NDArray[np.int64]
    cut: int  # texts that were longer than may be

    @classmethod
    def joined(cls, parts: Sequence["_Encoded"]) -> "_Encoded":
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return cls(columns, np.concatenate([part.lengths for part in parts]), sum(part.cut for part in parts))


class TokenizedTexts(Dataset[int]):
    """Tokens and targets of texts. As a dataset it gives the texts' numbers, of which `batch` makes batches."""

    def __init__(self, encoded: _Encoded, targets: torch.Tensor, tokenizer: Any, multiple: int | None) -> None:
        self.lengths = encoded.lengths
        self._columns = encoded.columns
        self._ends = np.cumsum(encoded.lengths)
        self._targets = targets
        self._tokenizer = tokenizer
        self._multiple = multiple

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> int:
        return index

    def batch(self, indexes: Sequence[int]) -> Batch:
        """Return texts padded to the longest of them."""
        texts = {
            name: [tokens[self._ends[index] - self.lengths[index] : self._ends[index]] for index in indexes]
            for name, tokens in self._columns.items()
        }
        inputs = self._tokenizer.pad(texts, return_tensors="pt", pad_to_multiple_of=self._multiple)
        return Batch(dict(inputs), self._targets[list(indexes)])

    def in_parts(self, count: int) -> Callable[[Sequence[int]], list[Batch]]:
        """Return what makes texts into so many batches, or fewer where there are fewer texts."""

        def make(indexes: Sequence[int]) -> list[Batch]:
            size = -(-len(indexes) // count)
            return [self.batch(indexes[start : start + size]) for start in range(0, len(indexes), size)]

        return make

    def by_length(self) -> list[int]:
        """Return the texts' numbers, longest first."""
        order: list[int] = np.argsort(-self.lengths, kind="stable").tolist()
        return order


def tokenize(
    name: str,
    texts: Sequence[LabelledText],
    targets: torch.Tensor,
    pretrained: Pretrained,
    max_length: int,
    group: Group,
) -> TokenizedTexts:
    """Return texts as tokens, and tell about them. Call it on all ranks: each makes a part and gets the others'."""
    share = -(-len(texts) // group.world_size)
    mine = texts[group.rank * share : (group.rank + 1) * share]
    chunks = [mine[start : start + CHUNK] for start in range(0, len(mine), CHUNK)] or [mine]
    encoded = _Encoded.joined([_encode(chunk, pretrained, max_length) for chunk in chunks])
    if group.world_size > 1:
        parts: list[Any] = [None] * group.world_size
        dist.all_gather_object(parts, encoded)
        encoded = _Encoded.joined(parts)
    multiple = GPU_MULTIPLE if group.device.type == "cuda" else None
    _tell(name, encoded, max_length)
    return TokenizedTexts(encoded, targets, pretrained.tokenizer, multiple)


def _encode(texts: Sequence[LabelledText], pretrained: Pretrained, max_length: int) -> _Encoded:
    names = [name for name in pretrained.tokenizer.model_input_names if name != MASK]
    if not texts:
        return _Encoded({name: np.empty(0, np.int32) for name in names}, np.empty(0, np.int64), 0)
    pairs = [text.pair for text in texts]
    encoded = pretrained.tokenizer(
        [text.text for text in texts],
        pairs if pairs[0] is not None else None,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_overflowing_tokens=False,
    )
    cut = sum(bool(one.overflowing) for one in encoded.encodings or ())
    columns = {name: np.concatenate([np.asarray(one, np.int32) for one in encoded[name]]) for name in names}
    return _Encoded(columns, np.array([len(one) for one in encoded["input_ids"]]), cut)


def _tell(name: str, encoded: _Encoded, max_length: int) -> None:
    """Log how many texts there are, how long, and how many of them were cut."""
    count = len(encoded.lengths)
    if count:
        mean, most = encoded.lengths.mean(), encoded.lengths.max()
        logger.info("%s: %d texts of %.0f tokens on average, %d at most", name, count, mean, most)
        if encoded.cut:
            logger.warning(
                "%s: %d of %d texts are longer than max_length (%d) and are cut there",
                name,
                encoded.cut,
                count,
                max_length,
            )
