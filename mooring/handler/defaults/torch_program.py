"""The handler for a bare torch program: TorchScript, or what torch.export saved. Requests run one at a time."""

import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mooring.contract.errors import MooringError
from mooring.handler import codecs
from mooring.handler.errors import ModelLoadError, PredictionError, PredictionInputError
from mooring.handler.media_types import JSON
from mooring.handler.open_inference import adds_up, kinds_of, named_kinds
from mooring.handler.open_inference_answers import datatype_of
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.stages import WATCH, timed
from mooring.handler.tensors import InputReader, InputSpec, only_row
from mooring.handler.terms import LoadTerms

from .model_cache import LEAST_MODEL_BYTES, Tier
from .safetensors_cache import SafetensorsCache
from .torch_weights import device_of, first_line, memory_error

logger = logging.getLogger(__name__)

Array = NDArray[Any]

EXPORTED = ".pt2"
PICKLE_BEGINS = b"\x80"
SERVABLE = "Save a TorchScript, torch.export (.pt2), ONNX or safetensors model, or bring code/inference.py"
# What torch says of inputs of another shape, type or number than the program's.
OF_INPUTS = re.compile(
    r"shape|size|dimension|dtype|scalar type|Guard failed|missing value|out of range|out of bounds|same number of"
    r"|Long|Float|Double",
    re.IGNORECASE,
)
NUMBER_KINDS = frozenset({float, int, bool})
OF_TYPES = re.compile(r"scalar type|dtype|Long|Int\b")


class _Program(Protocol):
    """A torch program that is called with a request's body."""

    @property
    def module(self) -> Any:
        """What computes, with its weights."""

    @property
    def inputs(self) -> Sequence[InputSpec]:
        """Its inputs, as far as it knows them."""

    def __call__(self, request: InferenceRequest) -> Any:
        """Return what the program gives back, as arrays and plain values."""


class TorchProgramHandler:
    """A torch program behind the handler protocol."""

    max_batch_rows = 1

    def __init__(self, program: _Program, weights: Mapping[str, int]) -> None:
        self._program = program
        self._weights = weights

    @classmethod
    def load(cls, file: Path, terms: LoadTerms) -> "TorchProgramHandler":
        """Load a program. Raises `ModelLoadError`, for files of weights alone saying what would help; `MemoryError`."""
        torch.set_num_threads(max(1, terms.threads))
        load: Callable[[Path, LoadTerms], _Program] = _Exported.load if file.suffix == EXPORTED else _Script.load
        program = load(file, terms)
        return cls(program, _mapped(program.module, file, terms))

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests, each by itself."""
        answers: list[InferenceResponse | Exception] = []
        for request in requests:
            try:
                with timed("decode"):  # less what the program itself takes
                    before = WATCH.seconds["predict"]
                    value = self._program(request)
                WATCH.seconds["decode"] -= WATCH.seconds["predict"] - before
                with timed("encode"):
                    answers.append(codecs.respond(value, request, request.accept))
            except (MooringError, MemoryError) as error:
                answers.append(error)
            except TypeError as error:
                answers.append(PredictionError(f"The model's output cannot be written: {error}"))
            except Exception as error:  # whatever it is, it is no other request's
                logger.warning("A request failed.", exc_info=True)
                problem = f"The request failed: {type(error).__name__}; the server's log has the details."
                answers.append(PredictionError(problem))
        return answers

    def metadata(self) -> dict[str, Any]:
        """Return what the program takes, in the Open Inference Protocol's words; what it gives is not known."""
        inputs = [_described(spec) for spec in self._program.inputs]
        tier = Tier.MAPPED if self._weights else Tier.INLINE
        return {"platform": "pytorch", "inputs": inputs, "tier": tier.value, "weights": dict(self._weights)}

    def close(self) -> None:
        """Drop the program; its memory goes with the last reference."""
        del self._program


def load_torchscript(file: Path, terms: LoadTerms) -> Any:
    """Return a TorchScript module in evaluation mode on its device. Raises `ModelLoadError`, `MemoryError`."""
    with _load_errors(file), warnings.catch_warnings():
        # torch.jit is deprecated as a whole; those who serve what it wrote know it, or cannot change it.
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=category)
        return torch.jit.load(str(file), map_location=device_of(terms)).eval()  # type: ignore[no-untyped-call]


def _mapped(module: Any, file: Path, terms: LoadTerms) -> dict[str, int]:
    """Have a large program's weights mapped from the cache where there is one; returns them by content."""
    size = file.stat().st_size
    if terms.gpu_id is not None or size < LEAST_MODEL_BYTES:
        return {}
    cache = SafetensorsCache.open(terms.variables)
    if cache is None or not cache.has_room(size):
        return {}
    return cache.map_in_place([*module.parameters(), *module.buffers()])


@contextmanager
def _load_errors(file: Path) -> Iterator[None]:
    """Refuse what is no program before torch looks into it, and turn what torch raises into `ModelLoadError`."""
    problem = _what_it_is(file)
    if problem:
        raise ModelLoadError(file, problem)
    try:
        yield
    except Exception as error:  # torch raises whatever its parts do
        logger.debug("Loading %s failed.", file, exc_info=True)
        raise memory_error(error) or ModelLoadError(file, first_line(error, file.parent)) from error


@dataclass(frozen=True)
class _Exported:
    """A program of torch.export, which knows its inputs' names, types and shapes."""

    module: Any
    reader: InputReader
    dtypes: Sequence[torch.dtype]
    arrange: Callable[[list[torch.Tensor]], Any]  # tensors -> arguments and keyword arguments
    device: torch.device

    @property
    def inputs(self) -> Sequence[InputSpec]:
        return self.reader.specs

    @classmethod
    def load(cls, file: Path, terms: LoadTerms) -> "_Exported":
        device = device_of(terms)
        with _load_errors(file):
            program = torch.export.load(str(file))
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
        nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        values = {
            str(name): nodes[str(name)].meta["val"] for name in program.graph_signature.user_inputs if name in nodes
        }
        fixed = [name for name, value in values.items() if not isinstance(value, torch.Tensor)]
        if fixed or len(values) != len(program.graph_signature.user_inputs):
            raise ModelLoadError(file, "some of its inputs are no tensors, which no body can carry")
        specs = tuple(InputSpec(name, _numpy_dtype(value.dtype), _shape(value)) for name, value in values.items())
        arrange = program.call_spec.in_spec.unflatten
        return cls(program.module(), InputReader(specs), [value.dtype for value in values.values()], arrange, device)

    def __call__(self, request: InferenceRequest) -> Any:
        inputs = self.reader.read(request.body, request.content_type)
        arrays = (inputs.arrays[spec.name] for spec in self.reader.specs)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)
            for array, dtype in zip(arrays, self.dtypes, strict=True)
        ]
        arguments, named = self.arrange(tensors)
        output = _run(lambda: self.module(*arguments, **named), [str(spec) for spec in self.reader.specs])
        return _plain(output, is_single=inputs.is_single)


@dataclass(frozen=True)
class _Script:
    """A TorchScript program, which knows its inputs' names only."""

    module: Any
    names: Sequence[str]
    required: int
    device: torch.device
    inputs: Sequence[InputSpec] = ()

    @classmethod
    def load(cls, file: Path, terms: LoadTerms) -> "_Script":
        module = load_torchscript(file, terms)
        arguments = module.forward.schema.arguments[1:]  # the first is the module
        required = sum(not argument.has_default_value() for argument in arguments)
        return cls(module, [argument.name for argument in arguments], required, device_of(terms))

    def __call__(self, request: InferenceRequest) -> Any:
        arrays = self._arrays(codecs.decode(request.body, request.content_type or JSON))
        try:
            return self._run(arrays, as_given=False)
        except PredictionInputError as error:
            # Whole numbers go in as floats, as the earlier toolkit's did; a program that looks them up says so.
            if any(array.dtype.kind == "i" for array in arrays.values()) and OF_TYPES.search(error.problem):
                return self._run(arrays, as_given=True)
            raise

    def _run(self, arrays: Mapping[str, Array], *, as_given: bool) -> Any:
        tensors = {name: self._tensor(array, as_given=as_given) for name, array in arrays.items()}
        return _plain(_run(lambda: self.module(**tensors), self._described), is_single=False)

    def _tensor(self, array: Array, *, as_given: bool) -> torch.Tensor:
        is_json_number = array.dtype in (np.int64, np.float64)
        wanted = np.float32 if is_json_number and not (as_given and array.dtype.kind == "i") else array.dtype
        return torch.from_numpy(np.ascontiguousarray(array, dtype=wanted)).to(self.device)

    def _arrays(self, value: Any) -> dict[str, Array]:
        for key in ("instances", "inputs"):
            if isinstance(value, dict) and key in value and key not in self.names:
                value = value[key]
        if not isinstance(value, dict):
            if self.required > 1:
                raise self._error(
                    'The body is one array, but there are several inputs: send {"inputs": {name: array}}.'
                )
            value = {self.names[0]: value} if self.names else {}
        unknown, missing = sorted(set(value) - set(self.names)), sorted({*self.names[: self.required]} - set(value))
        if unknown or missing:
            raise self._error(
                f"The inputs' names do not match: missing {missing or 'none'}, unknown {unknown or 'none'}."
            )
        return {name: self._array(name, inner) for name, inner in value.items()}

    def _array(self, name: str, value: Any) -> Array:
        kinds = set() if isinstance(value, np.ndarray) or adds_up(value) else kinds_of(value)
        if not kinds <= NUMBER_KINDS | {list}:  # of texts numpy would make an array that gives all the longest's room
            raise self._error(f"Input '{name}' holds {named_kinds(kinds - {list})}, which is no number.")
        try:
            array = np.asarray(value)
        except ValueError as error:  # lists of different lengths
            raise self._error(f"Input '{name}' is not a regular array.") from error
        if array.dtype.kind not in "biuf":
            raise self._error(f"Input '{name}' holds {array.dtype}, which is no number.")
        return array

    def _error(self, problem: str) -> PredictionInputError:
        return PredictionInputError(problem, self._described)

    @property
    def _described(self) -> list[str]:
        return [f"'{name}', an array" for name in self.names] or ["no inputs"]


def _run(call: Callable[[], Any], inputs: Sequence[str]) -> Any:
    """Call a program. Raises `PredictionInputError` for inputs that do not fit it, `PredictionError`, `MemoryError`."""
    try:
        with torch.inference_mode(), timed("predict"):
            return call()
    except Exception as error:  # a program may raise anything
        memory = memory_error(error)
        if memory is not None:
            raise memory from error
        problem = _last_line(error)
        if isinstance(error, (RuntimeError, IndexError, AssertionError)) and OF_INPUTS.search(problem):
            raise PredictionInputError(f"The inputs do not fit: {problem}.", inputs) from error
        logger.warning("The model failed.", exc_info=error)
        raise PredictionError(
            f"The model failed on this input: {type(error).__name__}; the server's log has the details."
        ) from error


def _plain(output: Any, *, is_single: bool) -> Any:
    """Return a program's outputs as arrays, in the lists and objects that they came in."""
    if isinstance(output, torch.Tensor):
        tensor = output.detach().cpu()
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        return only_row(array) if is_single else array
    if isinstance(output, Mapping):
        return {name: _plain(inner, is_single=is_single) for name, inner in output.items()}
    if isinstance(output, (list, tuple)):
        return [_plain(inner, is_single=is_single) for inner in output]
    return output


def _described(spec: InputSpec) -> dict[str, Any]:
    shape = [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": shape}


def _shape(value: torch.Tensor) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype == torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype


def _last_line(error: Exception) -> str:
    """Return the line that says what is wrong: TorchScript puts its own code and its places above it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    if isinstance(error, AssertionError) and lines:  # a guard's first line says which, the last how to look further
        line = lines[0]
    line = re.sub(r"^\w*(?:Error|Exception): ", "", line).rstrip(".")
    return re.sub(r"\S*/\S*\.(?:py|cpp|h)\S*", "…", line)


def _what_it_is(file: Path) -> str:
    """Say what a file is that holds no program, nothing if it looks like one."""
    if not file.is_file():
        return "it is not there"
    if not zipfile.is_zipfile(file):
        with file.open("rb") as opened:
            begins = opened.read(1)
        what = "a pickle of an old torch.save" if begins == PICKLE_BEGINS else "no file that torch wrote, or cut short"
        return f"it is {what}. {SERVABLE}"
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    parts = {name.partition("/")[2] for name in names}
    if any(part.startswith("code/") for part in parts) and "constants.pkl" in parts and file.suffix != EXPORTED:
        return ""
    if "constants.pkl" in parts:
        return "it is a TorchScript file; it has to end in .pt"
    if "data.pkl" in parts:
        return f"it holds a state_dict or a pickled object, which is no program. {SERVABLE}"
    if file.suffix != EXPORTED and "archive_format" in parts:
        return "it is a torch.export file; it has to end in .pt2"
    return ""
