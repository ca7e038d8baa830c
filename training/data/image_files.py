"""Images in files, with labels from a .lst file, from the folders they lie in, or from an augmented manifest."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from mooring.contract.errors import UserCodeError

from .image_labels import LabelError, LabelForm
from .images import ImageError

LIST_PATTERN = "*.lst"
MANIFEST_PATTERNS = ("*.manifest", "*.jsonl", "*.jsonlines")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
# How many lines an error names.
SHOWN_PROBLEMS = 10
REFERENCE_SUFFIX = "-ref"
METADATA_SUFFIX = "-metadata"


class ImageListError(UserCodeError):
    """A list of images that cannot be used. Names the first lines that are wrong, and how many more there are."""

    def __init__(self, place: Path, problems: Sequence[str]) -> None:
        self.place = place
        self.problems = tuple(problems)
        shown = [f"{place}, {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            shown.append(f"and {len(self.problems) - SHOWN_PROBLEMS:,} more.")
        super().__init__("\n".join(shown))


@dataclass(frozen=True)
class ImageFiles:
    """Images that are files."""

    files: tuple[Path, ...]
    labels: NDArray[Any]
    class_names: tuple[str, ...]
    remedy: str

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        """Return a file's content."""
        return self.files[index].read_bytes()

    def error(self, index: int, problem: str) -> ImageError:
        """Return the error that names a file."""
        return ImageError(str(self.files[index]), problem, self.remedy)


def listed_images(folder: Path, lists: Path, form: LabelForm) -> ImageFiles:
    """Return what .lst files list: index, label (or labels) and path, separated by tabs. Raises `ImageListError`."""
    lines = [
        (file, number, line)
        for file in sorted(lists.glob(LIST_PATTERN))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise ImageListError(lists, ["there is no .lst file with images here."])
    remedy = "Replace the file, or take its line out of the .lst file."
    return _read_lines(lines, lambda line: _listed(line, folder, form), form, form.names(), remedy)


def _listed(line: str, folder: Path, form: LabelForm) -> tuple[Path, Any]:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) < 3:
        raise LabelError(f"has {len(fields)} fields; expected index, label and path, separated by tabs")
    try:
        numbers = [float(field) for field in fields[1:-1]]
    except ValueError as error:
        raise LabelError(f'label "{" ".join(fields[1:-1])}" is not a number') from error
    return _existing(folder / fields[-1]), form.read(numbers)


def images_by_folder(folder: Path, form: LabelForm, class_names: Sequence[str] | None = None) -> ImageFiles:
    """Return the images in the folders of a folder, each of which is a class; classes are in the order of their names.

    `class_names` are those of the training images, for images that are measured on. Raises `ImageListError`.
    """
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    names = tuple(found if class_names is None else class_names)
    if form.is_multi:
        raise ImageListError(folder, ["folders give an image one label; expected a .lst file where multi_label is 1."])
    if class_names is None and len(names) != form.classes:
        shown = ", ".join(names[:SHOWN_PROBLEMS]) + (", ..." if len(names) > SHOWN_PROBLEMS else "")
        problem = f"where no .lst file labels images, there are {len(names)} folders ({shown or 'none'})"
        raise ImageListError(folder, [f"{problem}; expected one for each of num_classes, which is {form.classes}."])
    strangers = sorted(set(found) - set(names))
    if strangers:
        raise ImageListError(folder, [f"there is a folder {strangers[0]}, a class that no training image has."])
    files = [(path, number) for number, name in enumerate(names) for path in _pictures(folder / name)]
    if not files:
        raise ImageListError(folder, ["there is no picture in any folder here."])
    labels = form.together([number for _, number in files])
    return ImageFiles(tuple(path for path, _ in files), labels, names, "Replace or remove the file.")


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def images_of_manifest(folder: Path, form: LabelForm) -> ImageFiles:
    """Return what an augmented manifest in a folder lists: a JSON object a line, as Ground Truth writes them.

    `source-ref` names the image, another attribute its class or classes. Images lie in the folder, by the end of their
    S3 key. Raises `ImageListError`.
    """
    lines = [
        (file, number, line)
        for pattern in MANIFEST_PATTERNS
        for file in sorted(folder.glob(pattern))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise ImageListError(folder, [f"there is no manifest ({', '.join(MANIFEST_PATTERNS)}) with images here."])
    names: dict[int, str] = {}
    remedy = "Replace the file, or take its line out of the manifest."
    images = _read_lines(lines, lambda line: _of_manifest(line, folder, form, names), form, (), remedy)
    class_names = tuple(names.get(number, str(number)) for number in range(form.classes))
    return ImageFiles(images.files, images.labels, class_names, remedy)


def _of_manifest(line: str, folder: Path, form: LabelForm, names: dict[int, str]) -> tuple[Path, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise LabelError(f"is no JSON: {error}") from error
    if not isinstance(entry, dict):
        raise LabelError("is no object; expected source-ref and a label")
    references = [key for key in entry if key.endswith(REFERENCE_SUFFIX)]
    attributes = [key for key in entry if not key.endswith((REFERENCE_SUFFIX, METADATA_SUFFIX))]
    if len(references) != 1 or len(attributes) != 1:
        held = ", ".join(entry) or "nothing"
        raise LabelError(f"holds {held}; expected source-ref, one attribute with the label, and that one's metadata")
    file = _downloaded(str(entry[references[0]]), folder)
    numbers = label_numbers(entry[attributes[0]])
    _learn_names(entry.get(attributes[0] + METADATA_SUFFIX), numbers, names)
    return file, form.read(numbers)


def label_numbers(label: Any) -> list[float]:
    """Return the numbers that an attribute of a manifest holds. Raises `LabelError`."""
    try:
        return [float(number) for number in (label if isinstance(label, list) else [label])]
    except (TypeError, ValueError) as error:
        raise LabelError(f"label {json.dumps(label)} is no number, nor a list of numbers") from error


def _learn_names(metadata: Any, numbers: Sequence[float], names: dict[int, str]) -> None:
    """Take the names of classes from what Ground Truth writes beside a label."""
    if not isinstance(metadata, Mapping):
        return
    if isinstance(metadata.get("class-name"), str) and len(numbers) == 1:
        names[int(numbers[0])] = metadata["class-name"]
    class_map = metadata.get("class-map")
    if isinstance(class_map, Mapping):
        names.update({int(number): str(name) for number, name in class_map.items() if str(number).isdecimal()})


def _downloaded(reference: str, folder: Path) -> Path:
    """Return the file that an S3 address became: the longest end of its key that is there."""
    parts = PurePosixPath(reference.partition("://")[2] or reference).parts
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        if path.is_file():
            return path
    raise LabelError(f"there is no image {reference} in {folder}")


def _read_lines(
    lines: Sequence[tuple[Path, int, str]],
    read: Callable[[str], tuple[Path, Any]],
    form: LabelForm,
    class_names: tuple[str, ...],
    remedy: str,
) -> ImageFiles:
    """Return the images that lines name. Raises `ImageListError` with all that is wrong in the first list."""
    files, labels = [], []
    problems: dict[Path, list[str]] = {}
    for place, number, line in lines:
        try:
            file, label = read(line)
        except LabelError as error:
            problems.setdefault(place, []).append(f"line {number}: {error}")
        else:
            files.append(file)
            labels.append(label)
    for place, found in problems.items():
        raise ImageListError(place, found)
    return ImageFiles(tuple(files), form.together(labels), class_names, remedy)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise LabelError(f"there is no image {file}")
    return file
