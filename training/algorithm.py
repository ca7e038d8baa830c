"""Which ready-made program a job asks for, and why. Pure: it looks at what the job was given, and starts nothing."""

import difflib
from dataclasses import dataclass

from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import UserCodeError
from mooring.contract.hyperparameters import ALGORITHM, ALGORITHM_VARIABLE

IMAGES = "image-classification"
# What only a job for image classification is given.
LISTING_CHANNEL, SHAPE = "train_lst", "image_shape"


@dataclass(frozen=True)
class Program:
    """A program that needs no code of the user's."""

    module: str
    purpose: str


PROGRAMS = {
    IMAGES: Program(
        "mooring.training.programs.image_classification",
        "residual networks on images, with the channels and hyperparameters of SageMaker's built-in algorithm",
    ),
    "text-classification": Program(
        "mooring.training.programs.text_classification",
        "fine-tunes a transformers model from the channel 'model' on texts with labels, CSV or JSON Lines",
    ),
}


@dataclass(frozen=True)
class Choice:
    """A program by its name, and why it is this one."""

    name: str
    reason: str

    @property
    def program(self) -> Program:
        """What runs."""
        return PROGRAMS[self.name]


class AlgorithmError(UserCodeError):
    """The job asks for no program, for two, or for one that there is not."""


def choose_program(environment: TrainingEnvironment) -> Choice | None:
    """Return the ready-made program that the job asks for, None if it runs code of the user's.

    Raises `AlgorithmError` if it asks for both, for neither, or for a program that there is not.
    """
    asked = _asked(environment)
    script = environment.program or environment.training_module
    if script is None:
        return _named(asked) or _told_by_data(environment)
    # A script may have a hyperparameter of this name that is its own, such as "ppo".
    meant = {source: name for source, name in asked.items() if source == ALGORITHM_VARIABLE or _known(name)}
    if meant:
        source, name = next(iter(meant.items()))
        raise AlgorithmError(
            f"The job has a script of its own ({script}) and asks for a ready-made program: {_shown(source)} is "
            f'"{name}". Take out the one that is not meant.'
        )
    return None


def program_of(module: str) -> str | None:
    """Return the name of the ready-made program that a module is, None for any other module."""
    return next((name for name, program in PROGRAMS.items() if program.module == module), None)


def described() -> str:
    """Return a line for each program."""
    return "\n".join(f"  {name}: {program.purpose}" for name, program in PROGRAMS.items())


def _asked(environment: TrainingEnvironment) -> dict[str, str]:
    """Return the program's name by where it was given."""
    given = {
        ALGORITHM_VARIABLE: environment.variables.get(ALGORITHM_VARIABLE),
        ALGORITHM: environment.hyperparameters.get(ALGORITHM),
    }
    return {source: str(name) for source, name in given.items() if name}


def _named(asked: dict[str, str]) -> Choice | None:
    """Return the program that is named, None where none is."""
    if not asked:
        return None
    choices = {source: _choice(source, name) for source, name in asked.items()}
    if len({choice.name for choice in choices.values()}) > 1:
        named = " and ".join(f'{_shown(source)} is "{name}"' for source, name in asked.items())
        raise AlgorithmError(f"Two programs are asked for: {named}. Take out the one that is not meant.")
    return next(iter(choices.values()))


def _choice(source: str, name: str) -> Choice:
    known = _known(name)
    if known is None:
        close = difflib.get_close_matches(_spelt(name), PROGRAMS, n=1, cutoff=0.5)
        hint = f"Did you mean '{close[0]}'? " if close else ""
        raise AlgorithmError(
            f'{_shown(source)} is "{name}", which is no program. {hint}Ready-made programs are:\n{described()}'
        )
    return Choice(known, f"{_shown(source)} names it")


def _told_by_data(environment: TrainingEnvironment) -> Choice:
    """Return the one program whose data speak for themselves."""
    if LISTING_CHANNEL in environment.channels:
        return Choice(IMAGES, f"the channel '{LISTING_CHANNEL}' is given, and nothing else is named")
    if SHAPE in {key.replace("-", "_") for key in environment.hyperparameters}:
        return Choice(IMAGES, f"the hyperparameter '{SHAPE}' is given, and nothing else is named")
    raise AlgorithmError(
        "There is nothing to run. Name a script of yours with the hyperparameter sagemaker_program or the variable "
        f"SAGEMAKER_PROGRAM, or a ready-made program with the hyperparameter {ALGORITHM} or the variable "
        f"{ALGORITHM_VARIABLE}:\n{described()}"
    )


def _known(name: str) -> str | None:
    return _spelt(name) if _spelt(name) in PROGRAMS else None


def _spelt(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _shown(source: str) -> str:
    return source if source == ALGORITHM_VARIABLE else f"the hyperparameter '{source}'"
