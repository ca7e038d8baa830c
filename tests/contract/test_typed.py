from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from jobs import write_config

from mooring.contract.errors import HyperparameterError
from mooring.contract.typed import hyperparameters, limited, parse_hyperparameters


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Nested:
    depth: int


@dataclass
class Settings:
    epochs: int = 1
    learning_rate: float = 0.1
    use_amp: bool = False
    name: str = "x"
    layers: list[int] = field(default_factory=list)
    steps: tuple[int, ...] = ()
    options: dict[str, float] = field(default_factory=dict)
    mode: Mode = Mode.FAST
    optimizer: Literal["sgd", "adam"] = "sgd"
    limit: int | None = None
    place: Path = Path()
    nested: Nested | None = None


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("epochs", 3, 3),
        ("epochs", 3.0, 3),
        ("epochs", "3", 3),
        ("learning_rate", 1, 1.0),
        ("learning-rate", "1e-3", 1e-3),
        ("use_amp", "True", True),
        ("use_amp", 0, False),
        ("name", 7, "7"),
        ("layers", [1, 2], [1, 2]),
        ("layers", 5, [5]),
        ("steps", "30,60", (30, 60)),
        ("options", {"wd": 1}, {"wd": 1.0}),
        ("mode", "slow", Mode.SLOW),
        ("mode", "SLOW", Mode.SLOW),
        ("optimizer", "adam", "adam"),
        ("limit", None, None),
        ("limit", "", None),
        ("limit", 4, 4),
        ("place", "/data", Path("/data")),
        ("nested", {"depth": "2"}, Nested(2)),
    ],
)
def test_value_is_converted_without_loss(key: str, given: Any, expected: Any) -> None:
    assert getattr(parse_hyperparameters(Settings, {key: given}), key.replace("-", "_")) == expected


@pytest.mark.parametrize(
    ("key", "given", "sentence"),
    [
        ("epochs", "ten", "Hyperparameter 'epochs' is \"ten\"; expected an integer."),
        ("epochs", 3.5, "Hyperparameter 'epochs' is 3.5; expected an integer."),
        ("epochs", True, "Hyperparameter 'epochs' is True; expected an integer."),
        ("use_amp", "perhaps", "Hyperparameter 'use_amp' is \"perhaps\"; expected true or false."),
        ("layers", [1, "a"], "Hyperparameter 'layers' is [1, 'a']; expected a list, each of it an integer."),
        ("optimizer", "lion", 'Hyperparameter \'optimizer\' is "lion"; expected one of "sgd", "adam".'),
        ("mode", "medium", 'Hyperparameter \'mode\' is "medium"; expected one of "fast", "slow".'),
        ("options", 3, "Hyperparameter 'options' is 3; expected an object."),
        ("epoch", 3, "Hyperparameter 'epoch' is not known; did you mean 'epochs'?"),
        ("nested", {"depth": "x"}, "expected an object in which this holds: Hyperparameter 'depth' is \"x\"; expected"),
    ],
)
def test_problem_names_key_given_and_expected(key: str, given: Any, sentence: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        parse_hyperparameters(Settings, {key: given})
    assert sentence in str(caught.value)


def test_every_problem_is_reported_at_once() -> None:
    @dataclass
    class Needed:
        size: int
        rate: float = limited(0.1, above=0, maximum=1)

    with pytest.raises(HyperparameterError) as caught:
        parse_hyperparameters(Needed, {"rate": 2, "colour": "red"})
    assert caught.value.problems == (
        "Hyperparameter 'rate' is 2; expected at most 1.",
        "Hyperparameter 'colour' is not known; known are: rate, size.",
        "Hyperparameter 'size' is missing; expected an integer.",
    )


def test_secret_is_not_shown() -> None:
    @dataclass
    class Login:
        api_key: int

    with pytest.raises(HyperparameterError) as caught:
        parse_hyperparameters(Login, {"api_key": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_script_reads_its_own_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, "hyperparameters.json", {"epochs": "7", "sagemaker_program": "train.py"})
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert hyperparameters(Settings).epochs == 7
