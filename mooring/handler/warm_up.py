"""Trying a model before it is called ready, with the samples its author gave."""

from .errors import WarmUpError
from .model_config import WarmUpSample
from .protocol import Handler, InferenceRequest, InferenceResponse
from .resolve import HandlerChoice


def warm_up(handler: Handler, choice: HandlerChoice) -> None:
    """Answer every sample once. Raises `WarmUpError` naming the sample that fails: the model is not ready then."""
    for index, sample in enumerate(choice.config.warm_up, start=1):
        body = (choice.root / sample.file).read_bytes() if sample.file else sample.body.encode()
        headers = {"content-type": sample.content_type, "accept": sample.accept}
        (answer,) = handler.respond([InferenceRequest(body, sample.content_type, sample.accept, headers)])
        problem = _problem(answer)
        if problem:
            raise WarmUpError(_name(index, sample), problem)


def _problem(answer: InferenceResponse | Exception) -> str:
    if isinstance(answer, Exception):
        return str(answer) or type(answer).__name__
    if answer.chunks is not None:
        for _ in answer.chunks:
            pass
    return "" if answer.status < 400 else f"it was answered with status {answer.status}"


def _name(index: int, sample: WarmUpSample) -> str:
    return sample.file or f"number {index}"
