from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from jobs import write_config

from mooring.contract.errors import HyperparameterError
from mooring.contract.typed import Rule, hyperparameters, limited, parse_hyperparameters, table


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


def test_rules_are_asked_of_fields_that_are_right_by_themselves() -> None:
    def tall_is_wide(height: int, width: int) -> str | None:
        return f"{height} is over {width}." if height > width else None

    @dataclass
    class Size:
        RULES: ClassVar[tuple[Rule, ...]] = (tall_is_wide,)
        height: int
        width: int = 3
        name: str = ""

    assert parse_hyperparameters(Size, {"height": 2}) == Size(2)
    for given, problems in (
        ({"height": 4}, ["4 is over 3."]),
        ({"height": 4, "nam": "x"}, ["Hyperparameter 'nam' is not known; did you mean 'name'?", "4 is over 3."]),
        ({"height": 4, "width": "x"}, ["Hyperparameter 'width' is \"x\"; expected an integer."]),
        ({"width": 1}, ["Hyperparameter 'height' is missing; expected an integer."]),
    ):
        with pytest.raises(HyperparameterError) as caught:
            parse_hyperparameters(Size, given)
        assert list(caught.value.problems) == problems


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


# --- names, and the table ---------------------------------------------------------------------------------------------


@dataclass
class Spelt:
    size: int
    epochs: int = limited(3, minimum=1, aliases=("num_train_epochs",), meaning="passes over the data")
    steps: tuple[int, ...] = (1, 2)
    limit: int | None = limited(None, above=0)


def test_alias_means_the_same() -> None:
    assert parse_hyperparameters(Spelt, {"size": 1, "num-train-epochs": "7"}).epochs == 7


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"epochs": 2, "num_train_epochs": 3}, "'epochs' and 'num_train_epochs' mean the same; give one of them."),
        ({"num_train_epochs": 0}, "Hyperparameter 'num_train_epochs' is 0; expected at least 1."),
        ({"num_train_epoch": 3}, "did you mean 'num_train_epochs'?"),
        ({"colour": "red"}, "known are: epochs, limit, size, steps."),
    ],
)
def test_alias_is_checked_as_it_was_spelt(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        parse_hyperparameters(Spelt, {"size": 1} | given)
    assert sentence in str(caught.value)


def test_table_says_what_a_dataclass_takes() -> None:
    assert table(Spelt).splitlines()[2:] == [
        "| `size` | an integer | required |  |",
        "| `epochs`, `num_train_epochs` | an integer, at least 1 | 3 | passes over the data |",
        "| `steps` | a list, each of it an integer | 1,2 |  |",
        "| `limit` | an integer, more than 0 |  |  |",
    ]


def test_what_chose_a_ready_made_program_is_none_of_its_hyperparameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, "hyperparameters.json", {"epochs": "7", "algorithm": "text-classification"})
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    with pytest.raises(HyperparameterError, match="'algorithm' is not known"):
        hyperparameters(Settings)
    monkeypatch.setenv("MOORING_ALGORITHM", "text-classification")
    assert hyperparameters(Settings).epochs == 7
