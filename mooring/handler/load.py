"""Loading the handler that was chosen, with the heavy library that it needs."""

from .access import denials_named
from .protocol import Handler
from .resolve import CODE, HandlerChoice, HandlerKind
from .terms import LoadTerms


def load_handler(choice: HandlerChoice, terms: LoadTerms) -> Handler:
    """Return a loaded model.

    Raises `ModelLoadError` for a damaged file, `HandlerError` for code that fails, `UnreadableModelError`.
    """
    # Of a model with code only what the code asked for: it may lie beside much that nobody reads.
    with denials_named(choice.root, () if choice.kind in CODE else choice.files):
        return _load(choice, terms)


def _load(choice: HandlerChoice, terms: LoadTerms) -> Handler:
    match choice.kind:
        case HandlerKind.ONNX:
            from .defaults.onnx import OnnxHandler

            return OnnxHandler.load(choice.files[0], terms)
        case HandlerKind.TRANSFORMERS:
            from .defaults.transformers import TransformersHandler

            return TransformersHandler.load(choice.root, terms)
        case HandlerKind.EXPORTED | HandlerKind.TORCHSCRIPT:
            from .defaults.torch_program import TorchProgramHandler

            return TorchProgramHandler.load(choice.files[0], terms)
        case HandlerKind.SERVICE:
            from .service import load_service

            return load_service(choice.entry, choice.root, terms)
        case HandlerKind.FUNCTIONS:
            from .service import load_user_code

            return load_user_code(choice.files[0], choice.root, terms)
