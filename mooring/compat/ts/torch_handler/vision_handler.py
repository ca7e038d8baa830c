"""TorchServe's handler for pictures; `image_processing` is the subclass's."""

import abc
import base64
import io
from collections.abc import Callable
from typing import Any

from ..handler_utils.timer import timed  # noqa: TID252 - the package is imported as ts
from .base_handler import BaseHandler


class VisionHandler(BaseHandler, abc.ABC):
    """Decodes pictures, sent as they are or in base64, and stacks what `image_processing` makes of them."""

    image_processing: Callable[[Any], Any]

    @timed
    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """Return the pictures as one tensor."""
        import torch

        return torch.stack([self._tensor(row.get("data") or row.get("body")) for row in data]).to(self.device)

    def _tensor(self, picture: Any) -> Any:
        import torch
        from PIL import Image

        if isinstance(picture, str):
            picture = base64.b64decode(picture)
        if isinstance(picture, (bytes, bytearray)):
            return self.image_processing(Image.open(io.BytesIO(picture)))
        return torch.tensor(picture, dtype=torch.float32)
