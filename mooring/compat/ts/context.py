"""The context as a handler's own tests make it; when serving, Mooring's own, with the same methods, is given."""

from collections.abc import Mapping
from typing import Any

from mms.context import Context as ServerContext
from mms.context import RequestProcessor

__all__ = ["Context", "RequestProcessor"]


class Context(ServerContext):  # type: ignore[misc]
    """As multi-model-server's, with the model's YAML configuration."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model_name, model_dir, manifest, batch_size, gpu, mms_version)
        self.system_properties["limit_max_image_pixels"] = limit_max_image_pixels
        self.metrics = metrics
        self.model_yaml_config = model_yaml_config or {}
