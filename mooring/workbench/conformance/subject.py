"""What is tried, and with what: an image or the installed package, a model with a request, a training job.

What was not given is a sample where Mooring is in the image, and missing elsewhere: rows that need it say so.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mooring.artifact.archive import extract
from mooring.workbench.endpoint import STARTUP_SECONDS
from mooring.workbench.job import TrainingJob

from .finding import NotApplicableError
from .image import MULTI_MODELS, ImageTraits
from .row import Part
from .samples import REQUEST, Request, write_model


@dataclass(frozen=True)
class Given:
    """What an image is to be tried with, beyond what it brings."""

    model: Path | None = None
    request: Request | None = None
    code: Path | None = None
    program: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    channels: Mapping[str, Path] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[Part] = frozenset()
    timeout_seconds: float = STARTUP_SECONDS
    memory: str = "1g"

    @property
    def has_job(self) -> bool:
        """Whether a training job was given."""
        return self.code is not None or bool(self.hyperparameters or self.channels)


@dataclass(frozen=True)
class Subject:
    """What is tried. Without an image it is the installed package, as processes. `folder` is for what is written."""

    image: str
    facts: ImageTraits
    given: Given
    folder: Path

    @cached_property
    def model(self) -> Path | None:
        """The folder of the model to serve, None for what the image brings. Raises `DamagedArchiveError`."""
        model = self.given.model
        if model is None:
            return write_model(self.new_folder()) if self.takes_samples else None
        if model.is_dir():
            return model
        extract(model, unpacked := self.new_folder() / "model")
        return unpacked

    @property
    def request(self) -> Request:
        """A request that the model answers. Raises `NotApplicableError` where none is known."""
        known = self.given.request or (REQUEST if self.takes_samples else None)
        if known is None:
            raise NotApplicableError("It is not known what the model takes; give a request with --request FILE.")
        return known

    @property
    def job(self) -> TrainingJob:
        """The training job that was given."""
        given = self.given
        return TrainingJob(
            given.channels, given.hyperparameters, given.code, given.program, self.image, variables=given.variables
        )

    def check(self) -> None:
        """Raise what is wrong with what was given: `DamagedArchiveError`, `NoProgramError`, `UnfitFilesError`."""
        _ = self.model
        if self.given.has_job:
            self.job.prepare(self.new_folder())

    @property
    def takes_samples(self) -> bool:
        """Whether it is tried with the sample model: nothing was given, and it is an image that serves that."""
        return self.facts.is_ours and self.given.model is None and self.given.request is None

    def need_image(self, what: str) -> None:
        """Raise `NotApplicableError` where processes are tried, which have no such thing."""
        if not self.image:
            raise NotApplicableError(f"Processes of this machine have no {what}; name an image.")

    def why_not(self, part: Part) -> str:
        """Say why no row of a part can be asked, nothing where they can. What was asked for by name, can."""
        if part is Part.IMAGE:
            return "" if self.image else "The installed package has no image; name one."
        if part in self.given.only:
            return ""
        if part is Part.TRAINING:
            return self._why_not_train()
        return self._why_not_serve() or (self._why_not_multi_model() if part is Part.MULTI_MODEL else "")

    def _why_not_train(self) -> str:
        if "train" in self.facts.commands or self.given.has_job:
            return ""
        if self.facts.entrypoint or not self.facts.has_shell:
            return "Whether its ENTRYPOINT trains is not to be seen; try --only training, or give it a job."
        return "It has no command `train` on PATH and no ENTRYPOINT, so it does not train."

    def _why_not_serve(self) -> str:
        if "serve" in self.facts.commands or self.facts.entrypoint or not self.facts.has_shell:
            return ""
        return "It has no command `serve` on PATH and no ENTRYPOINT, so it does not serve."

    def _why_not_multi_model(self) -> str:
        if self.facts.has_label(MULTI_MODELS):
            return ""
        return f"It has no label {MULTI_MODELS}=true, so the platform gives it one model; try --only multi-model."

    def new_folder(self) -> Path:
        """Return an empty folder that nobody else has."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)  # what is mounted of it may be read by whatever user a container has
        return folder
