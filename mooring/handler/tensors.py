"""Requests as a model's named inputs, and its outputs as an answer. Shapes are checked here, and named in errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mooring.contract.errors import MooringError

from . import codecs, open_inference
from .errors import PredictionInputError, UnsupportedContentTypeError
from .images import MODES, SCALED, PictureFit, decode_image
from .media_types import CSV, IMAGE, JSON, JSON_LINES, NPY, NPZ, TEXT, TRITON_BINARY, MediaType, parse
from .open_inference import TensorRequest, array_of

Array = NDArray[Any]
IMAGE_RANK = 4
# Types whose values are arrays, whatever the model.
DECODERS = {name: codecs.DECODERS[name] for name in (JSON, JSON_LINES, CSV, NPY, NPZ)}


@dataclass(frozen=True)
class InputSpec:
    """One input of a model. A dimension without a fixed size is None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = " x ".join("any" if size is None else str(size) for size in self.shape)
        return f"'{self.name}', {sizes or 'a scalar'}, {self.dtype}"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape can be the input."""
        if len(shape) != len(self.shape):
            return False
        for wanted, size in zip(self.shape, shape, strict=True):  # noqa: SIM110 - `all` takes three times as long
            if wanted is not None and wanted != size:
                return False
        return True

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, if this input can take a picture: n x 1 or 3 x height x width, of numbers."""
        if len(self.shape) != IMAGE_RANK or self.dtype.kind not in "fu":
            return None
        _, channels, height, width = self.shape
        if channels not in MODES or height is None or width is None:
            return None
        return channels, height, width


class Inputs(NamedTuple):
    """A request's inputs. `is_single` says that it was one row without a batch dimension, as its answer will be."""

    arrays: Mapping[str, Array]
    is_single: bool
    request: TensorRequest | None = None  # how the answer is to be written, if it is to be the protocol's

    @property
    def rows(self) -> int:
        """The size of the batch dimension."""
        for array in self.arrays.values():
            return int(array.shape[0]) if array.ndim else 1
        return 1

    @property
    def agree_in_rows(self) -> bool:
        """Whether all inputs have the same number of rows. Where not, nobody can tell which belong together."""
        sizes = {array.shape[:1] for array in self.arrays.values()}
        return len(sizes) == 1 and () not in sizes


class Alike(NamedTuple):
    """The inputs of several requests as one array, since all bodies have one shape."""

    arrays: Mapping[str, Array]
    rows_each: int
    is_single: bool  # each is one row without a batch dimension


@dataclass(frozen=True)
class InputReader:
    """Reads request bodies as the inputs of one model; pictures come to its size as `fit` says."""

    specs: tuple[InputSpec, ...]
    fit: PictureFit = SCALED

    def read(self, body: bytes, content_type: str) -> Inputs:
        """Return a request's inputs.

        Raises `UnsupportedContentTypeError`, `BodyDecodeError`, `TensorRequestError`, and `PredictionInputError`
        naming the model's inputs.
        """
        media_type = parse(content_type or JSON)
        decoder = DECODERS.get(media_type.name)
        if decoder is None:
            return self._read_other(body, media_type, content_type)
        value = decoder(body, media_type)
        if isinstance(value, dict):
            return self._named(value) if media_type.name == NPZ else self._read_object(value)
        return self._single(value)

    def read_alike(self, bodies: Sequence[bytes], content_type: str) -> Alike | None:
        """Return several JSON bodies as one array: a step for all instead of a dozen for each.

        None where they are not all arrays of numbers of one shape that fits: then they are to be read one by one,
        which also finds out whose fault it is.
        """
        media_type = parse(content_type or JSON)
        if len(self.specs) != 1 or media_type.name != JSON or self.specs[0].dtype.kind == "O":
            return None
        spec = self.specs[0]
        try:
            array = array_of(codecs.decode_json_each(bodies, media_type), spec.dtype)
        except (MooringError, ValueError):
            return None
        is_single = array.ndim == len(spec.shape)
        if not is_single and array.ndim == len(spec.shape) + 1:
            array = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
        if not spec.fits(array.shape) or not len(array):
            return None
        return Alike({spec.name: array}, len(array) // len(bodies), is_single)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The content types that this model can be given."""
        return (
            *DECODERS,
            *((TEXT,) if self._takes_text else ()),
            *((IMAGE, "image/*") if self._image_shape is not None else ()),
            TRITON_BINARY,
        )

    @property
    def _takes_text(self) -> bool:
        return len(self.specs) == 1 and self.specs[0].dtype.kind == "O"

    @property
    def _image_shape(self) -> tuple[int, int, int] | None:
        return self.specs[0].image_shape if len(self.specs) == 1 else None

    def _read_other(self, body: bytes, media_type: MediaType, content_type: str) -> Inputs:
        """Take what is no plain array: tensors of the protocol, a picture, text."""
        if media_type.name in open_inference.TYPES:
            return self._tensors(open_inference.decode_request(body, media_type))
        if media_type.is_image and self._image_shape is not None:
            spec = self.specs[0]
            pixels = decode_image(body, media_type.name, self._image_shape, self.fit)
            return Inputs({spec.name: pixels[None].astype(spec.dtype)}, is_single=True)
        if media_type.name == TEXT and self._takes_text:
            return self._single(codecs.decode_text(body, media_type))
        raise UnsupportedContentTypeError(content_type, self.accepted)

    def _read_object(self, value: Mapping[str, Any]) -> Inputs:
        for key in ("instances", "inputs"):
            if key in value:
                if open_inference.is_tensor_request(value):
                    return self._tensors(open_inference.read_request(value))
                inner = value[key]
                return self._named(inner) if isinstance(inner, dict) else self._single(inner)
        return self._named(value)

    def _tensors(self, request: TensorRequest) -> Inputs:
        inputs = self._named(request.arrays)
        return Inputs(inputs.arrays, inputs.is_single, request)

    def _named(self, given: Mapping[str, Any]) -> Inputs:
        """Take inputs by name: all of them, and no others."""
        names = {spec.name for spec in self.specs}
        if set(given) != names:
            missing, extra = sorted(names - set(given)), sorted(set(given) - names)
            problem = "; ".join(
                f"{what} {', '.join(map(repr, which))}"
                for what, which in (("missing:", missing), ("not an input:", extra))
                if which
            )
            raise self._error(f"The inputs' names do not match: {problem}.")
        arrays = {spec.name: self._array(spec, given[spec.name]) for spec in self.specs}
        is_single = all(arrays[spec.name].ndim == len(spec.shape) - 1 for spec in self.specs)
        if is_single:
            arrays = {name: array[None] for name, array in arrays.items()}
        return self._checked(arrays, is_single=is_single)

    def _single(self, value: Any) -> Inputs:
        """Take the one input of a model that has one."""
        if len(self.specs) != 1:
            raise self._error('The body is one array, but there are several inputs: send {"inputs": {name: array}}.')
        spec = self.specs[0]
        array = self._array(spec, value)
        is_single = array.ndim == len(spec.shape) - 1
        return self._checked({spec.name: array[None] if is_single else array}, is_single=is_single)

    def _array(self, spec: InputSpec, value: Any) -> Array:
        """Return a value as the array that an input takes; a number is never rounded, wrapped or cut to fit."""
        dtype = spec.dtype
        try:
            if not isinstance(value, np.ndarray):
                return array_of(value, dtype)
            if value.dtype == dtype:
                return value if dtype.kind != "O" else _texts(value)
            return _cast(value, dtype)
        except ValueError as error:
            raise self._error(f"Input '{spec.name}': {error}.") from error

    def _checked(self, arrays: dict[str, Array], *, is_single: bool) -> Inputs:
        for spec in self.specs:
            shape = arrays[spec.name].shape
            if not spec.fits(shape):
                given = " x ".join(map(str, shape)) or "a scalar"
                raise self._error(f"Input '{spec.name}' is {given}, which does not fit.")
        return Inputs(arrays, is_single)

    def _error(self, problem: str) -> PredictionInputError:
        return PredictionInputError(problem, [str(spec) for spec in self.specs])


def _texts(array: Array) -> Array:
    """Return an array of text, whose elements may have come as bytes. Raises `ValueError`."""
    items = array.ravel().tolist()
    if not all(isinstance(item, (str, bytes)) for item in items):
        raise ValueError("it holds objects, which do not fit text")
    texts = np.empty(len(items), dtype=object)
    texts[:] = [item.decode() if isinstance(item, bytes) else item for item in items]
    return texts.reshape(array.shape)


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array as another type that its values fit. Raises `ValueError`."""
    kind = array.dtype.kind
    if dtype.kind == "O" and kind == "U":
        return array.astype(object)
    if kind not in "biuf" or (kind == "f" and dtype.kind != "f") or dtype.kind == "O":
        raise ValueError(f"it holds {'text' if kind in 'OUS' else array.dtype}, which does not fit {dtype}")
    try:
        with np.errstate(over="raise"):
            cast = array.astype(dtype)
    except FloatingPointError as error:
        raise ValueError(f"it holds numbers beyond the range of {dtype}") from error
    if dtype.kind in "biu" and not np.can_cast(array.dtype, dtype) and not np.array_equal(cast, array):
        raise ValueError(f"it holds numbers beyond the range of {dtype}")
    return cast


def answer_values(names: Sequence[str], outputs: Sequence[Any], *, is_single: bool) -> dict[str, Any]:
    """Return outputs by name, each without its batch dimension if there was one row."""
    if is_single:
        outputs = [only_row(output) for output in outputs]
    return dict(zip(names, outputs, strict=True))


def answers_each(names: Sequence[str], outputs: Sequence[Array], rows_each: int, *, is_single: bool) -> list[Any]:
    """Return what to encode for each of several requests of so many rows, whose rows stand together in the outputs."""
    begins = range(0, len(outputs[0]), rows_each)
    columns: list[list[Any]] = [
        [*output] if is_single else [output[begin : begin + rows_each] for begin in begins] for output in outputs
    ]
    if len(columns) == 1:
        return columns[0]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def answer_value(names: Sequence[str], outputs: Sequence[Any], *, is_single: bool) -> Any:
    """Return what to encode: the only output as it is, several as an object of outputs by name."""
    if len(outputs) == 1:
        (only,) = outputs
        return only_row(only) if is_single else only
    return answer_values(names, outputs, is_single=is_single)


def only_row(output: Any) -> Any:
    """Return the output for a single row without its batch dimension.

    One whose first dimension is not of size one has none: it counts what was found in a picture, say.
    """
    has_items = output.ndim > 0 if isinstance(output, np.ndarray) else isinstance(output, list)
    return output[0] if has_items and len(output) == 1 else output
