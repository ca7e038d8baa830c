"""Requests as a model's named inputs, and its outputs as an answer. Shapes are checked here, and named in errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import codecs
from .errors import PredictionInputError, UnsupportedContentTypeError
from .images import MODES, decode_image
from .media_types import IMAGE, JSON, NPZ, MediaType, parse

Array = NDArray[Any]
IMAGE_RANK = 4


@dataclass(frozen=True)
class InputSpec:
    """One input of a model. A dimension without a fixed size is None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = " x ".join("any" if size is None else str(size) for size in self.shape)
        return f"'{self.name}', {sizes or 'a scalar'}, {self.dtype}"

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, if this input can take a picture: n x 1 or 3 x height x width, of numbers."""
        if len(self.shape) != IMAGE_RANK or self.dtype.kind not in "fu":
            return None
        _, channels, height, width = self.shape
        if channels not in MODES or height is None or width is None:
            return None
        return channels, height, width


@dataclass(frozen=True, slots=True)
class Inputs:
    """A request's inputs. `is_single` says that it was one row without a batch dimension, as its answer will be."""

    arrays: Mapping[str, Array]
    is_single: bool

    @property
    def rows(self) -> int:
        """The size of the batch dimension."""
        first = next(iter(self.arrays.values()))
        return int(first.shape[0]) if first.ndim else 1


@dataclass(frozen=True)
class InputReader:
    """Reads request bodies as the inputs of one model."""

    specs: tuple[InputSpec, ...]

    def read(self, body: bytes, content_type: str) -> Inputs:
        """Return a request's inputs.

        Raises `UnsupportedContentTypeError`, `BodyDecodeError`, and `PredictionInputError` naming the model's inputs.
        """
        media_type = parse(content_type or JSON)
        if media_type.is_image:
            return self._read_image(body, media_type)
        if media_type.name not in codecs.DECODERS:
            raise UnsupportedContentTypeError(content_type, self.accepted)
        value = codecs.DECODERS[media_type.name](body, media_type)
        if media_type.name == NPZ:
            return self._named(value)
        if isinstance(value, dict):
            return self._read_object(value)
        return self._single(value)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The content types that this model can be given."""
        takes_images = len(self.specs) == 1 and self.specs[0].image_shape is not None
        return (*codecs.DECODERS, *((IMAGE, "image/*") if takes_images else ()))

    def _read_image(self, body: bytes, media_type: MediaType) -> Inputs:
        spec = self.specs[0]
        if len(self.specs) != 1 or spec.image_shape is None:
            raise UnsupportedContentTypeError(media_type.name, self.accepted)
        pixels = decode_image(body, media_type.name, *spec.image_shape)
        return Inputs({spec.name: pixels[None].astype(spec.dtype)}, is_single=True)

    def _read_object(self, value: Mapping[str, Any]) -> Inputs:
        for key in ("instances", "inputs"):
            if key in value:
                inner = value[key]
                return self._named(inner) if isinstance(inner, dict) else self._single(inner)
        return self._named(value)

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
        singles = {array.ndim == len(spec.shape) - 1 for spec, array in zip(self.specs, arrays.values(), strict=True)}
        is_single = singles == {True}
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
        try:
            array = np.asarray(value)
        except ValueError as error:  # lists of different lengths
            raise self._error(f"Input '{spec.name}' is not a regular array: {error}.") from error
        if array.dtype == spec.dtype:
            return array
        if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and spec.dtype.kind != "f"):
            if array.dtype.kind in "UO" and spec.dtype.kind == "O":
                return array.astype(object)
            raise self._error(f"Input '{spec.name}' holds {array.dtype}, which does not fit {spec.dtype}.")
        return array.astype(spec.dtype)

    def _checked(self, arrays: dict[str, Array], *, is_single: bool) -> Inputs:
        for spec in self.specs:
            shape = arrays[spec.name].shape
            fits = len(shape) == len(spec.shape) and all(
                wanted is None or wanted == size for wanted, size in zip(spec.shape, shape, strict=True)
            )
            if not fits:
                given = " x ".join(map(str, shape)) or "a scalar"
                raise self._error(f"Input '{spec.name}' is {given}, which does not fit.")
        return Inputs(arrays, is_single)

    def _error(self, problem: str) -> PredictionInputError:
        return PredictionInputError(problem, [str(spec) for spec in self.specs])


def answer_value(outputs: Sequence[tuple[str, Array]], *, is_single: bool) -> Any:
    """Return what to encode: the only output as it is, several as an object of outputs by name."""
    taken = {name: array[0] if is_single and array.ndim else array for name, array in outputs}
    return next(iter(taken.values())) if len(taken) == 1 else taken
