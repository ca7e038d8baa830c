"""The handler for a model that is a whole program of torch's: TorchScript, or what torch.export wrote."""

import io
import logging
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mooring.contract.errors import MooringError
from mooring.handler import codecs
from mooring.handler.errors import ModelLoadError, PredictionError, PredictionInputError
from mooring.handler.media_types import JSON, NPY, NPZ, parse
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import LoadTerms

logger = logging.getLogger(__name__)

INSTEAD = "Save it with torch.export.save or as ONNX or TorchScript, or bring code/inference.py that loads it."
Program = Callable[..., Any]


class TorchProgramHandler:
    """A torch program behind the handler protocol, one request at a time: nothing tells whether rows may be batched."""

    max_batch_rows = 1

    def __init__(self, program: Program, device: torch.device) -> None:
        self._program: Program | None = program
        self._device = device

    @classmethod
    def load(cls, file: Path, terms: LoadTerms) -> "TorchProgramHandler":
        """Load a .pt2 or TorchScript file. Raises `ModelLoadError` saying what the file is, if it is something else."""
        torch.set_num_threads(terms.threads)
        program = _load_exported(file, terms) if file.suffix == ".pt2" else load_torchscript(file, terms)
        return cls(program, _device(terms))

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests one after the other."""
        answers: list[InferenceResponse | Exception] = []
        for request in requests:
            try:
                answers.append(self._respond_to_one(request))
            except (MooringError, MemoryError) as error:
                answers.append(error)
        return answers

    def _respond_to_one(self, request: InferenceRequest) -> InferenceResponse:
        positional, named = self._inputs(request)
        output = self._predict(positional, named)
        return InferenceResponse(*codecs.encode(_plain(output), request.accept))

    def _inputs(self, request: InferenceRequest) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """Return tensors by place or by name: floats from JSON and CSV, which know no types, the array's own else."""
        decoded = codecs.decode(request.body, request.content_type or JSON)
        is_typed = parse(request.content_type or JSON).name in (NPY, NPZ)
        if isinstance(decoded, dict) and set(decoded) & {"inputs", "instances"}:
            decoded = decoded.get("inputs", decoded.get("instances"))
        if isinstance(decoded, dict):
            return [], {name: self._tensor(value, is_typed=is_typed) for name, value in decoded.items()}
        return [self._tensor(decoded, is_typed=is_typed)], {}

    def _tensor(self, value: Any, *, is_typed: bool) -> torch.Tensor:
        try:
            array = np.asarray(value)
            tensor = torch.from_numpy(np.ascontiguousarray(array))
        except (ValueError, TypeError) as error:
            raise PredictionInputError(f"The input is no regular array of numbers: {error}.", ["tensors"]) from error
        return tensor.to(self._device) if is_typed else tensor.to(self._device, torch.float32)

    def _predict(self, positional: list[torch.Tensor], named: dict[str, torch.Tensor]) -> Any:
        assert self._program is not None
        try:
            with torch.inference_mode():
                return self._program(*positional, **named)
        except torch.OutOfMemoryError as error:
            raise MemoryError("The GPU's memory ran out.") from error
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            logger.warning("The model failed.", exc_info=True)
            # Nothing tells a wrong shape from a failure within; a client's input is the usual cause.
            shapes = [" x ".join(map(str, tensor.shape)) for tensor in (*positional, *named.values())]
            problem = f"The model does not run on this input: {_reason(error)}"
            raise PredictionInputError(problem, [f"other shapes than {', '.join(shapes)}"]) from error

    def close(self) -> None:
        """Drop the program."""
        self._program = None


def load_torchscript(file: Path, terms: LoadTerms) -> Any:
    """Return a TorchScript module, ready to be called. Raises `ModelLoadError` saying what else the file is."""
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated; files of it will be served for years.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(file), map_location=_device(terms)).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, EOFError) as error:
        raise ModelLoadError(file, f"{_what_it_is(file)} {INSTEAD}") from error


def _load_exported(file: Path, terms: LoadTerms) -> Program:
    try:
        program = torch.export.load(str(file))
        module: Program = program.module().to(_device(terms))
    except Exception as error:  # torch raises nearly anything for a damaged archive
        raise ModelLoadError(file, f"torch.export.load refuses it: {_reason(error)}") from error
    return module


def _device(terms: LoadTerms) -> torch.device:
    return torch.device("cpu" if terms.gpu_id is None else f"cuda:{terms.gpu_id}")


def _what_it_is(file: Path) -> str:
    """Say what a file is that is not TorchScript, without unpickling it."""
    if not zipfile.is_zipfile(file):
        return "It is no TorchScript file."
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if not pickles:
            return "It is a zip archive, but no TorchScript file."
        operations = pickletools.genops(io.BytesIO(archive.read(pickles[0])))
        names = [str(argument) for operation, argument, _ in operations if operation.name == "GLOBAL"]
    if any("_rebuild_tensor" in name for name in names):
        return "It is a state_dict: weights without the model they belong to."
    return "It is a pickle of Python objects, which is not loaded because that can run any code."


def _reason(error: Exception) -> str:
    """Return the sentence of an error of torch's that says what is wrong: often the last line of many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    chosen = next((line for line in reversed(lines) if line.startswith("RuntimeError:")), lines[0] if lines else "")
    return chosen.removeprefix("RuntimeError:").strip() or type(error).__name__


def _plain(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.detach().cpu().numpy()
    if isinstance(output, dict):
        return {name: _plain(value) for name, value in output.items()}
    if isinstance(output, (list, tuple)):
        return [_plain(value) for value in output]
    if isinstance(output, (int, float, str, bool)) or output is None:
        return output
    raise PredictionError(f"The model returned a {type(output).__name__}, which cannot be written as an answer.")
