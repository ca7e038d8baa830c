"""The steps that a handler class replaces; loading and predicting have no default here."""

from typing import Any

from . import decoder, encoder, errors, utils


class DefaultInferenceHandler:
    """The four steps of an answer. The context is passed to those that take it."""

    def default_model_fn(self, model_dir: str, context: Any = None) -> Any:
        """Load the model: to be replaced."""
        raise NotImplementedError("Please provide a model_fn implementation.")

    def default_input_fn(self, input_data: Any, content_type: str, context: Any = None) -> Any:
        """Return the body as an array."""
        return decoder.decode(input_data, content_type)

    def default_predict_fn(self, data: Any, model: Any, context: Any = None) -> Any:
        """Predict: to be replaced."""
        raise NotImplementedError("Please provide a predict_fn implementation.")

    def default_output_fn(self, prediction: Any, accept: str, context: Any = None) -> Any:
        """Return the prediction as the first type in the Accept header that can be written, and that type."""
        for content_type in utils.parse_accept(accept):
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                return encoder.encode(prediction, content_type), content_type
        raise errors.UnsupportedFormatError(accept)
