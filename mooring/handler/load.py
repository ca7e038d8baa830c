"""Loading the handler that was chosen, with the heavy library that it needs."""

from pathlib import Path

from .protocol import Handler
from .resolve import HandlerChoice, HandlerKind, model_root
from .terms import LoadTerms


def load_handler(choice: HandlerChoice, model_dir: Path, terms: LoadTerms) -> Handler:
    """Return a loaded model.

    Raises `ModelLoadError` for a damaged file, `HandlerError` for code that fails.
    """
    if choice.kind is HandlerKind.ONNX:
        from .defaults.onnx import OnnxHandler

        return OnnxHandler.load(choice.files[0], terms.threads)
    from .functions import FunctionHandler

    return FunctionHandler.load(choice.files[0], model_root(model_dir))
