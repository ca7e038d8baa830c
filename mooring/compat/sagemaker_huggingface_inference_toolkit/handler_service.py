"""The service class of the Hugging Face toolkit, whose steps subclasses replace."""

from typing import Any

from sagemaker_inference.default_handler_service import (  # type: ignore[import-not-found]
    DefaultHandlerService,
)
from sagemaker_inference.default_inference_handler import (  # type: ignore[import-not-found]
    DefaultInferenceHandler,
)
from sagemaker_inference.transformer import Transformer  # type: ignore[import-not-found]

from mooring.contract.environment import process_variables

from . import decoder_encoder


class HuggingFaceHandlerService(DefaultHandlerService):  # type: ignore[misc]
    """Serves a pipeline, with the functions of the user's module where it has any."""

    def __init__(self) -> None:
        super().__init__(transformer=Transformer(default_inference_handler=_Steps(self)))
        self.context: Any = None
        self.model_dir: str | None = None
        self.device: int = -1

    def initialize(self, context: Any) -> None:
        """Load the model in the context's folder."""
        self.context = context
        self.model_dir = context.system_properties["model_dir"]
        self.device = self.get_device()
        super().initialize(context)

    def get_device(self) -> int:
        """Return the index of the GPU to use, -1 for the CPU."""
        gpu_id = self.context.system_properties.get("gpu_id")
        return -1 if gpu_id is None else int(gpu_id)

    def load(self, model_dir: str, context: Any = None) -> Any:
        """Return a pipeline for HF_TASK. Raises `ValueError` where no task is named."""
        from transformers import pipeline

        task: Any = process_variables().get("HF_TASK")
        if not task:
            raise ValueError("Set HF_TASK to what the model is for, such as text-classification.")
        return pipeline(task, model=model_dir, device=self.device)

    def preprocess(self, input_data: Any, content_type: str, context: Any = None) -> Any:
        """Return a body as inputs."""
        return decoder_encoder.decode(input_data, content_type)

    def predict(self, data: Any, model: Any, context: Any = None) -> Any:
        """Return what a pipeline makes of `inputs`, called with the body's `parameters`."""
        if not isinstance(data, dict):
            return model(data)
        rest = dict(data)
        inputs = rest.pop("inputs", None)
        parameters = rest.pop("parameters", None) or {}
        return model(rest if inputs is None else inputs, **parameters)

    def postprocess(self, prediction: Any, accept: str, context: Any = None) -> Any:
        """Return a prediction as a body."""
        return decoder_encoder.encode(prediction, accept)


class _Steps(DefaultInferenceHandler):  # type: ignore[misc]
    """The service's own steps, where the user's module has none."""

    def __init__(self, service: HuggingFaceHandlerService) -> None:
        self.default_model_fn = service.load
        self.default_input_fn = service.preprocess
        self.default_predict_fn = service.predict
        self.default_output_fn = service.postprocess
