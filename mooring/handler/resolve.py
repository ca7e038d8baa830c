"""Which handler a model gets, by what lies in its folder. Looks at names and small files only, never imports anything.

The first rule that applies decides; what the others say is for `mooring doctor` to tell.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from mooring.contract.switches import is_on

from .access import denials_named
from .errors import ModelFolderError
from .model_config import FILE_NAME, ModelConfig
from .service_entry import find_entry
from .tasks import TaskError, task_of_folder

DEFAULT_PROGRAM = "inference.py"
# Variables that name the handler script, in order of precedence.
PROGRAM_VARIABLES = ("SAGEMAKER_PROGRAM", "CUSTOM_SCRIPT_FILENAME")
# Files that an .onnx file may keep its weights in.
WEIGHT_SUFFIXES = frozenset({".data", ".bin", ".weights"})
# Modules that are slow to import, and that a zygote may have imported already.
HEAVY_IMPORT = re.compile(r"^\s*(?:import|from)\s+(torch|transformers)\b", re.MULTILINE)


class HandlerKind(Enum):
    """The handlers there are."""

    FUNCTIONS = "functions"  # code/inference.py
    SERVICE = "service"  # an entry point as multi-model-server's
    TRANSFORMERS = "transformers"
    ONNX = "onnx"
    EXPORTED = "torch.export"
    TORCHSCRIPT = "torchscript"


class Isolation(Enum):
    """Whether a model may share a process with others."""

    SHARED = "shared"
    OWN = "own"


class Backend(Enum):
    """What a host needs to have imported before it is forked."""

    ONNX = "onnx"
    TORCH = "torch"
    TRANSFORMERS = "transformers"


CODE = frozenset({HandlerKind.FUNCTIONS, HandlerKind.SERVICE})
# Their operators can touch files, so they share a process only where somebody vouches for them.
PROGRAMS = frozenset({HandlerKind.EXPORTED, HandlerKind.TORCHSCRIPT})


@dataclass(frozen=True)
class HandlerChoice:
    """The handler for a model folder, the files it will read, and why it was chosen."""

    kind: HandlerKind
    root: Path  # where the model really lies
    files: tuple[Path, ...]
    reason: str
    config: ModelConfig
    entry: str = ""  # of a service: `module:function`
    task: str = ""  # of a transformers model
    isolation: Isolation = Isolation.OWN
    backend: Backend = Backend.ONNX
    requirements: Path | None = None

    @property
    def artifact_bytes(self) -> int:
        """The size of the files that the model reads."""
        return sum(map(_file_bytes, self.files))


@dataclass(frozen=True)
class _Folder:
    """A model's folder as the rules see it."""

    root: Path
    names: Sequence[str]  # what lies in the root itself, sorted: read once, since a load waits for every look
    variables: Mapping[str, str]
    config: ModelConfig

    @classmethod
    def of(cls, model_dir: Path, variables: Mapping[str, str]) -> "_Folder":
        root, names = _listed(model_dir)
        return cls(root, names, variables, ModelConfig.load(root) if FILE_NAME in names else ModelConfig())

    def paths(self, suffix: str) -> list[Path]:
        """What lies in the root and ends so; a Mac packs `._model.onnx` beside each file, which is no model."""
        return [self.root / name for name in self.names if name.endswith(suffix) and not name.startswith(".")]

    def is_true(self, variable: str) -> bool:
        return is_on(self.variables, variable)

    @property
    def program(self) -> str | None:
        """The script that somebody named, None where nobody did."""
        named = (self.variables.get(name) for name in PROGRAM_VARIABLES)
        return self.own_program or next(filter(None, named), None)

    @property
    def own_program(self) -> str | None:
        """The script that the model itself names; an entry point is for another rule."""
        handler = self.config.handler
        return None if handler is None or ":" in handler else handler

    @property
    def code_folders(self) -> Iterator[Path]:
        """Where a script may lie, nearest first: with the model, then baked into the image."""
        if "code" in self.names:
            yield self.root / "code"
        yield self.root
        submitted = self.variables.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
        if submitted.startswith("/"):
            yield Path(submitted)

    def all_files(self) -> tuple[Path, ...]:
        return tuple(path for path in sorted(self.root.rglob("*")) if path.is_file())


Rule = Callable[[_Folder], HandlerChoice | str]


def choose_handler(model_dir: Path, variables: Mapping[str, str]) -> HandlerChoice:
    """Return the handler for a model folder.

    Raises `ModelFolderError` saying what was looked for and found, `ModelConfigError` for a bad mooring.toml,
    `UnreadableModelError` for what may not be looked at.
    """
    with denials_named(model_dir):
        try:
            return _chosen(model_dir, variables)
        except RecursionError as error:
            raise ModelFolderError("A file here is nested too deeply to be read.", [], _names(model_dir)) from error


def _chosen(model_dir: Path, variables: Mapping[str, str]) -> HandlerChoice:
    folder = _Folder.of(model_dir, variables)
    problems = []
    for rule in RULES:
        chosen = rule(folder)
        if isinstance(chosen, HandlerChoice):
            requirements = next((file for file in _requirements(folder, chosen) if file.is_file()), None)
            if requirements is None:
                return chosen
            return replace(chosen, requirements=requirements, isolation=Isolation.OWN)
        problems.append(chosen)
    raise ModelFolderError(f"Nothing here is a model: {'; '.join(problems)}.", [], _names(folder.root))


def passed_over(chosen: HandlerChoice, variables: Mapping[str, str]) -> Iterator[str]:
    """Say of each rule that did not choose a folder's handler why it did not."""
    folder = _Folder.of(chosen.root, variables)
    for rule in RULES:
        try:
            result = rule(folder)
        except ModelFolderError as error:
            result = error.problem
        if isinstance(result, str):
            yield result
        elif result.kind is not chosen.kind:
            yield f"{result.reason}, but the other comes first"


def model_root(model_dir: Path) -> Path:
    """Return where the model really lies: an archive packed with its outer folder has one folder at its root."""
    return _listed(model_dir)[0]


def _listed(model_dir: Path) -> tuple[Path, Sequence[str]]:
    """Return where the model really lies, and the names of what lies there."""
    try:
        names = _names_in(model_dir)
    except (NotADirectoryError, FileNotFoundError):
        return model_dir, ()
    packed = [name for name in names if not name.startswith((".", "__MACOSX"))]
    if len(packed) == 1 and packed[0] not in ("code", "MAR-INF") and (model_dir / packed[0]).is_dir():
        return model_dir / packed[0], _names_in(model_dir / packed[0])
    return model_dir, names


def _names_in(folder: Path) -> Sequence[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208 - without a path object for each of perhaps many files


def _file_bytes(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        facts = file.stat()
        return facts.st_size if stat.S_ISREG(facts.st_mode) else 0
    return 0


# --- rules, in order --------------------------------------------------------------------------------------------------


def _service(folder: _Folder) -> HandlerChoice | str:
    entry = find_entry(folder.root, folder.config, folder.variables)
    if entry is None:
        return f"no entry point module:function in {FILE_NAME}, SAGEMAKER_HANDLER or MAR-INF/MANIFEST.json"
    return HandlerChoice(
        HandlerKind.SERVICE,
        folder.root,
        folder.all_files(),
        f"{entry.source} names the entry point {entry.target}",
        folder.config,
        entry=entry.target,
        backend=_backend_of_code(folder.root),
    )


def _functions(folder: _Folder) -> HandlerChoice | str:
    program = folder.program
    name = program or DEFAULT_PROGRAM
    for code in folder.code_folders:
        if not program and code == folder.root:
            continue  # in the root itself a script has to be named
        script = code / name
        if script.is_file():
            others = (path for path in folder.all_files() if path != script)
            reason = f"its code is {_shown(script, folder.root)}"
            backend = _backend_of_code(code)
            config = folder.config
            return HandlerChoice(HandlerKind.FUNCTIONS, folder.root, (script, *others), reason, config, backend=backend)
    # A container's SAGEMAKER_PROGRAM is for all of its models; one without a code folder is meant to need none.
    if program and ((folder.root / "code").is_dir() or folder.own_program or folder.is_true("MOORING_STRICT")):
        raise ModelFolderError(f"The handler script {program} is named but not there.", [program], _names(folder.root))
    return f"no code/{name}"


def _transformers(folder: _Folder) -> HandlerChoice | str:
    root = folder.root
    pickled = (path for path in folder.paths(".bin") if path.name.startswith("pytorch_model"))
    weights = sorted((*folder.paths(".safetensors"), *pickled))
    if not weights or not (root / "config.json").is_file():
        return "no config.json with *.safetensors"
    try:
        task = task_of_folder(root, folder.config.task or folder.variables.get("HF_TASK"))
    except TaskError as error:
        raise ModelFolderError(str(error), ["a task"], _names(root)) from error
    is_code = folder.is_true("HF_TRUST_REMOTE_CODE") and bool(folder.paths(".py"))
    return HandlerChoice(
        HandlerKind.TRANSFORMERS,
        root,
        (*weights, *folder.paths(".json")),
        f"it holds config.json and {weights[0].name}, for {task}",
        folder.config,
        task=task,
        isolation=Isolation.OWN if is_code else Isolation.SHARED,
        backend=Backend.TRANSFORMERS,
    )


def _onnx(folder: _Folder) -> HandlerChoice | str:
    file = _only(folder, ".onnx", "model.onnx")
    if isinstance(file, str):
        return file
    weights = (path for suffix in WEIGHT_SUFFIXES for path in folder.paths(suffix) if path.is_file())
    reason = f"it holds {file.name} and no code"
    return HandlerChoice(
        HandlerKind.ONNX, folder.root, (file, *weights), reason, folder.config, isolation=Isolation.SHARED
    )


def _exported(folder: _Folder) -> HandlerChoice | str:
    return _torch_program(folder, HandlerKind.EXPORTED, _only(folder, ".pt2", "model.pt2"))


def _torchscript(folder: _Folder) -> HandlerChoice | str:
    file = _only(folder, ".pt", "model.pt")
    if isinstance(file, str) and not folder.paths(".pt"):
        file = _only(folder, ".pth", "model.pth")
    return _torch_program(folder, HandlerKind.TORCHSCRIPT, file)


def _torch_program(folder: _Folder, kind: HandlerKind, file: Path | str) -> HandlerChoice | str:
    if isinstance(file, str):
        return file
    is_trusted = folder.config.trusted or folder.is_true("MOORING_TRUST_TORCH_PROGRAMS")
    return HandlerChoice(
        kind,
        folder.root,
        (file,),
        f"it holds {file.name} and no code",
        folder.config,
        isolation=Isolation.SHARED if is_trusted else Isolation.OWN,
        backend=Backend.TORCH,
    )


RULES: tuple[Rule, ...] = (_service, _functions, _onnx, _transformers, _exported, _torchscript)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _only(folder: _Folder, suffix: str, preferred: str) -> Path | str:
    """Return the one file of a kind, or the one with the preferred name; else say why there is none."""
    files = folder.paths(suffix)
    chosen = [file for file in files if file.name == preferred] or files
    if len(chosen) == 1:
        return chosen[0]
    return f"{len(files)} *{suffix} files and none is called {preferred}" if files else f"no *{suffix} file"


def _backend_of_code(code: Path) -> Backend:
    """Return what code imports, by its text: a zygote that has it already saves seconds, a wrong guess costs them."""
    found: set[str] = set()
    for file in code.rglob("*.py"):
        with contextlib.suppress(OSError):
            found.update(HEAVY_IMPORT.findall(file.read_text(encoding="utf-8", errors="replace")))
    if "transformers" in found:
        return Backend.TRANSFORMERS
    return Backend.TORCH if found else Backend.ONNX


def _requirements(folder: _Folder, chosen: HandlerChoice) -> Iterator[Path]:
    if chosen.kind in CODE:
        yield folder.root / "code" / "requirements.txt"
        yield folder.root / "requirements.txt"


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
