"""The PyTorch toolkit's defaults: TorchScript in, tensors through, JSON, CSV or .npy out."""

from pathlib import Path
from typing import Any

from sagemaker_inference import (  # type: ignore[import-not-found]
    content_types,
    decoder,
    default_inference_handler,
    encoder,
    errors,
    utils,
)

DEFAULT_MODEL_FILENAME = "model.pt"


class ModelLoadError(Exception):
    """The model's file holds no TorchScript."""


class DefaultPytorchInferenceHandler(default_inference_handler.DefaultInferenceHandler):  # type: ignore[misc]
    """The steps that users' handler classes inherit."""

    VALID_CONTENT_TYPES = (content_types.JSON, content_types.NPY)

    def default_model_fn(self, model_dir: str) -> Any:
        """Return the TorchScript model in model.pt, or in the only .pt or .pth file.

        Raises `ValueError` where neither is there, `ModelLoadError` for a file of another kind.
        """
        import torch

        file = Path(model_dir) / DEFAULT_MODEL_FILENAME
        if not file.is_file():
            files = sorted(path for path in Path(model_dir).iterdir() if path.suffix in (".pt", ".pth"))
            if len(files) != 1:
                names = [path.name for path in files]
                raise ValueError(f"Exactly one .pth or .pt file is required for PyTorch models: {names}")
            file = files[0]
        try:
            model = torch.jit.load(str(file), map_location=_device())  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            problem = f"Failed to load {file.name}. Please ensure model is saved using torchscript."
            raise ModelLoadError(problem) from error
        return model.eval()

    def default_input_fn(self, input_data: Any, content_type: str) -> Any:
        """Return the body as a tensor: of floats for JSON and CSV, of the array's own type for .npy."""
        import torch

        array = decoder.decode(input_data, content_type)
        if array.dtype.names:  # a table whose columns are of several types
            array = array.tolist()
        is_text = content_type.partition(";")[0].strip().lower() in content_types.UTF8_TYPES
        try:
            tensor = torch.as_tensor(array, dtype=torch.float32 if is_text else None)
        except (TypeError, ValueError) as error:  # an array of text, or of rows of different lengths
            raise errors.UnreadableBodyError(content_type, "it holds no regular array of numbers") from error
        return tensor.to(_device())

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        """Return what the model makes of a tensor."""
        import torch

        with torch.no_grad():
            model.to(_device()).eval()
            return model(data.to(_device()))

    def default_output_fn(self, prediction: Any, accept: str) -> Any:
        """Return the prediction as the first type in the Accept header that can be written."""
        if hasattr(prediction, "detach"):
            prediction = prediction.detach().cpu().numpy().tolist()
        for content_type in utils.parse_accept(accept):
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                encoded = encoder.encode(prediction, content_type)
                return encoded.encode() if content_type == content_types.CSV else encoded
        raise errors.UnsupportedFormatError(accept)


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
