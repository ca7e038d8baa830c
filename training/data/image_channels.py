"""Which images a channel holds: told by its content type, by the channel that lists them, and by what lies in it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mooring.contract.channels import Channel, InputMode, require_channel
from mooring.contract.errors import UserCodeError
from mooring.handler.media_types import JSON_LINES, parse

from .formats import RECORD_IO
from .image_files import MANIFEST_PATTERNS, images_by_folder, images_of_manifest, listed_images
from .image_labels import LabelForm
from .image_records import RECORD_PATTERN, ImageRecords
from .images import ImageSource

logger = logging.getLogger(__name__)

LIST_CHANNEL = "{}_lst"
LABEL_FORMAT = "label-format"
LABEL_FORMATS = ("multi-hot", "class-id")


class ImageChannelError(UserCodeError):
    """A channel of images that is described in a way that is not known."""

    def __init__(self, channel: str, problem: str) -> None:
        self.channel = channel
        super().__init__(f"Channel '{channel}' {problem}.")


def open_images(
    channels: Mapping[str, Channel], name: str, form: LabelForm, class_names: Sequence[str] | None = None
) -> ImageSource:
    """Return the images of channel `name`: in .rec files, listed by channel `name`_lst or a manifest, or by folder.

    `class_names` are the training images', for images that are measured on. Raises `MissingChannelError`,
    `ImageChannelError`, and errors that name the line, the record or the folder that cannot be used.
    """
    channel = require_channel(channels, name)
    if channel.mode is InputMode.PIPE:
        raise ImageChannelError(name, "comes in Pipe mode, where images cannot be reached by number")
    media_type = parse(channel.content_type or "")
    form = form_of(channel, form)
    images: ImageSource
    if media_type.name == RECORD_IO or (LIST_CHANNEL.format(name) not in channels and _holds(channel, RECORD_PATTERN)):
        images = ImageRecords.open(channel.path, form)
    elif LIST_CHANNEL.format(name) in channels:
        images = listed_images(channel.path, channels[LIST_CHANNEL.format(name)].path, form)
    elif media_type.name == JSON_LINES or _holds(channel, *MANIFEST_PATTERNS):
        images = images_of_manifest(channel.path, form)
    else:
        images = images_by_folder(channel.path, form, class_names)
    logger.info("channel %s: %d images of %d classes", name, len(images), form.classes)
    return images


def form_of(channel: Channel, form: LabelForm) -> LabelForm:
    """Return how a channel's labels are written: several may be the numbers of classes, as Ground Truth writes them.

    Raises `ImageChannelError`.
    """
    given = parse(channel.content_type or "").parameters.get(LABEL_FORMAT, LABEL_FORMATS[0])
    if given not in LABEL_FORMATS:
        problem = f'has the {LABEL_FORMAT} "{given}"; expected {" or ".join(LABEL_FORMATS)}'
        raise ImageChannelError(channel.name, problem)
    return replace(form, lists_classes=given == LABEL_FORMATS[1])


def _holds(channel: Channel, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in channel.path.glob(pattern))
