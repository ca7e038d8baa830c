"""The service of the PyTorch toolkit: its default handler behind a `Transformer`."""

from sagemaker_inference.default_handler_service import (  # type: ignore[import-not-found]
    DefaultHandlerService,
)
from sagemaker_inference.transformer import Transformer  # type: ignore[import-not-found]

from .default_pytorch_inference_handler import DefaultPytorchInferenceHandler


class HandlerService(DefaultHandlerService):  # type: ignore[misc]
    """Serves TorchScript models, with the functions of the user's module where it has any."""

    def __init__(self) -> None:
        super().__init__(transformer=Transformer(default_inference_handler=DefaultPytorchInferenceHandler()))
