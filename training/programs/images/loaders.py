"""Batches of a channel's images, whichever way they come: by number out of files, or in the order of a pipe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader, Subset

from mooring.contract.channels import Channel, InputMode
from mooring.contract.environment import process_variables
from mooring.contract.resources import usable_cpus
from mooring.training.data.batches import Batches
from mooring.training.data.channel import InputChannel, channel
from mooring.training.data.image_channels import ImageChannelError, form_of, open_images
from mooring.training.data.image_labels import LabelForm
from mooring.training.data.image_pipe import PipedImages, SampleReader, packing_of
from mooring.training.data.images import ImageSource, LabelledImages, PictureReader, Prepare, Sample, batches, collate
from mooring.training.distributed import Group
from mooring.training.sampler import DataPosition, GlobalBatchSampler, data_loader

from .augmentation import Plain, Preparation, Varied
from .settings import Settings

TRAIN, VALIDATION = "train", "validation"
# Below this many pixels an image is decoded faster than it is handed over from a worker.
WORKERS_PIXELS = 64 * 64
VALIDATION_BATCH = 256
# So many images of a pipe are held, and come in an order of chance: in a .rec file classes may follow one another.
HELD_IMAGES = 1024


@dataclass(frozen=True)
class ImageBatches:
    """This rank's share of an epoch's batches, at each iteration. What is in a pipe is not known before it is read."""

    class_names: tuple[str, ...]
    begin: Callable[[], Iterator[Sample]]
    has_ended: Callable[[], bool]
    source: ImageSource | None = None  # None for a pipe

    def __iter__(self) -> Iterator[Sample]:
        return self.begin()

    @property
    def is_exhausted(self) -> bool:
        """Whether the epoch came to its end: it was neither left before, nor ended by a stop."""
        return self.has_ended()

    @property
    def count(self) -> int | None:
        """How many images there are, over all ranks; None where only the end of a pipe will tell."""
        return None if self.source is None else len(self.source)


@dataclass(frozen=True)
class ImageLoaders:
    """What opens a job's channels: on all ranks alike, once there is a process group."""

    settings: Settings
    channels: Mapping[str, Channel]
    group: Group

    def training(self, batch_size: int, position: DataPosition) -> ImageBatches:
        """Return batches of `batch_size` images over all ranks, from where the position stands, each image varied."""
        opened, seed = channel(TRAIN), self.settings.seed
        varied = Varied(Preparation.of(self.settings), seed, position)
        if opened.mode is InputMode.PIPE:
            return self._piped_training(opened, varied, batch_size, position)
        source = open_images(self.channels, TRAIN, self._form)
        place = {"rank": self.group.rank, "world_size": self.group.world_size}
        sampler = GlobalBatchSampler(len(source), batch_size, position, seed=seed, **place)
        images = LabelledImages(source, self._picture_reader(varied))
        loader = data_loader(images, sampler, collate_fn=collate, num_workers=self._workers)
        return ImageBatches(source.class_names, lambda: batches(loader), lambda: sampler.is_exhausted, source)

    def held_out(self, class_names: Sequence[str]) -> ImageBatches:
        """Return the validation images, each whole and on one rank; `class_names` are the training images'."""
        opened, plain = channel(VALIDATION), Plain(Preparation.of(self.settings))
        if opened.mode is InputMode.PIPE:
            return self._piped_held_out(opened, plain)
        source = open_images(self.channels, VALIDATION, self._form, class_names)
        mine = Subset(
            LabelledImages(source, self._picture_reader(plain)),
            range(self.group.rank, len(source), self.group.world_size),
        )
        loader = DataLoader(mine, VALIDATION_BATCH, collate_fn=collate, num_workers=self._workers)
        return ImageBatches(source.class_names, lambda: batches(loader), lambda: True, source)

    def _piped_training(
        self, opened: InputChannel, varied: Varied, batch_size: int, position: DataPosition
    ) -> ImageBatches:
        packing, seed = packing_of(opened.description), self.settings.seed
        raws = opened.batches(batch_size, position, packing, seed=seed, shuffle=HELD_IMAGES, collate=list)
        piped = self._decoded(opened, raws, varied)

        def begin() -> Iterator[Sample]:
            yield from piped
            if piped.is_exhausted and position.consumed == 0:
                raise ImageChannelError(TRAIN, f"came to its end before a batch of {batch_size} images was full")

        return ImageBatches(self._form.names(), begin, lambda: piped.is_exhausted)

    def _piped_held_out(self, opened: InputChannel, plain: Plain) -> ImageBatches:
        packing, passes = packing_of(opened.description), DataPosition()
        size = VALIDATION_BATCH * self.group.world_size
        piped = self._decoded(opened, opened.batches(size, passes, packing, collate=list, drop_last=False), plain)

        def begin() -> Iterator[Sample]:
            yield from piped
            passes.epoch += 1

        return ImageBatches(self._form.names(), begin, lambda: piped.is_exhausted)

    def _decoded(self, opened: InputChannel, raws: Batches, prepare: Prepare) -> PipedImages:
        description = opened.description
        form = form_of(description, self._form)
        read = SampleReader(packing_of(description), form, self._picture_reader(prepare))
        return PipedImages(raws, read, max(1, self._workers))

    @property
    def _form(self) -> LabelForm:
        return LabelForm(self.settings.num_classes, self.settings.multi_label)

    def _picture_reader(self, prepare: Prepare) -> PictureReader:
        channels, _, _ = self.settings.shape
        return PictureReader(channels, prepare, Preparation.of(self.settings).fit.least_side)

    @property
    def _workers(self) -> int:
        """How many processes, or threads, decode images for this rank; 0 for this one alone."""
        _, height, width = self.settings.shape
        ranks = int(process_variables().get("LOCAL_WORLD_SIZE", self.group.world_size))
        return 0 if height * width <= WORKERS_PIXELS else max(1, usable_cpus() // ranks)
