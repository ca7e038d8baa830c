"""Which handler a model gets, by what lies in its folder. Looks at names only: the front door can afford it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .errors import ModelFolderError

DEFAULT_PROGRAM = "inference.py"
# Files that an .onnx file may keep its weights in.
WEIGHT_SUFFIXES = frozenset({".data", ".bin", ".weights"})
LOOKED_FOR = (f"code/{DEFAULT_PROGRAM}", "model.onnx", "any one .onnx file")


class HandlerKind(Enum):
    """The handlers there are."""

    FUNCTIONS = "functions"  # code/inference.py
    ONNX = "onnx"


class Isolation(Enum):
    """Whether a model may share a process with others."""

    SHARED = "shared"
    OWN = "own"


@dataclass(frozen=True)
class HandlerChoice:
    """The handler for a model folder, the files it will read, and why it was chosen."""

    kind: HandlerKind
    files: tuple[Path, ...]
    reason: str

    @property
    def isolation(self) -> Isolation:
        """A model that brings code gets a process of its own: module names, globals and crashes stay its own."""
        return Isolation.OWN if self.kind is HandlerKind.FUNCTIONS else Isolation.SHARED


def choose_handler(model_dir: Path, variables: Mapping[str, str]) -> HandlerChoice:
    """Return the handler for a model folder. Raises `ModelFolderError` saying what was looked for and found."""
    folder = model_root(model_dir)
    program = variables.get("SAGEMAKER_PROGRAM")
    script = folder / "code" / (program or DEFAULT_PROGRAM)
    if script.is_file():
        others = (path for path in folder.rglob("*") if path.is_file() and path != script)
        return HandlerChoice(HandlerKind.FUNCTIONS, (script, *others), f"its code is {script.relative_to(folder)}")
    if program and (folder / "code").is_dir():
        problem = f"SAGEMAKER_PROGRAM names code/{program}, which is not there."
        raise ModelFolderError(problem, [f"code/{program}"], _names(folder))
    return _choose_onnx(folder)


def _choose_onnx(folder: Path) -> HandlerChoice:
    files = _onnx_files(folder)
    preferred = [file for file in files if file.name == "model.onnx"] or files
    if len(preferred) == 1:
        model = preferred[0]
        weights = (path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())
        return HandlerChoice(HandlerKind.ONNX, (model, *weights), f"it holds {model.name} and no code")
    problem = (
        f"There are {len(files)} .onnx files and none is called model.onnx." if files else "Nothing here is a model."
    )
    raise ModelFolderError(problem, LOOKED_FOR, _names(folder))


def model_root(model_dir: Path) -> Path:
    """Return where the model really lies: an archive packed with its outer folder has one folder at its root."""
    if not model_dir.is_dir():
        return model_dir
    entries = list(model_dir.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and entries[0].name != "code":
        return entries[0]
    return model_dir


def _onnx_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx"))


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
