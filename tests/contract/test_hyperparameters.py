"""Hyperparameters against the vectors that the earlier toolkit and SDK v3 were observed to give."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import write_config

from mooring.contract.errors import ConfigurationFileError
from mooring.contract.hyperparameters import Dialect, decode, read_hyperparameters, to_arguments
from mooring.contract.paths import ContainerPaths
from mooring.contract.secrets_mask import MASK, mask_secrets

GOLDEN: dict[str, Any] = {
    "learning-rate": 0.001,
    "epochs": 3,
    "use_amp": True,
    "dbg": False,
    "b": "x y",
    "layers": [1, 2, "a"],
    "opt": {"wd": 0.1, "beta": [1, 2]},
    "nothing": None,
    "s": "adam",
    "u": "é",
    "big": 1e-7,
    "k": 5,
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_sdk_v2_arguments_are_the_toolkits() -> None:
    assert to_arguments(GOLDEN) == [
        *("-b", "x y"),
        *("--big", "1e-07"),
        *("--dbg", "False"),
        *("--epochs", "3"),
        *("-k", "5"),
        *("--layers", "[1, 2, 'a']"),
        *("--learning-rate", "0.001"),
        *("--nothing", ""),
        *("--opt", "beta=[1, 2],wd=0.1"),
        *("-s", "adam"),
        *("-u", "é"),
        *("--use_amp", "True"),
    ]


def test_sdk_v3_arguments_keep_order_and_write_json() -> None:
    assert to_arguments(GOLDEN, Dialect.SDK_V3) == [
        *("--learning-rate", "0.001"),
        *("--epochs", "3"),
        *("--use_amp", "true"),
        *("--dbg", "false"),
        *("--b", "x y"),
        *("--layers", '[1, 2, "a"]'),
        *("--opt", '{"wd": 0.1, "beta": [1, 2]}'),
        *("--nothing", "null"),
        *("--s", "adam"),
        *("--u", "é"),
        *("--big", "1e-07"),
        *("--k", "5"),
    ]


@pytest.mark.parametrize(
    ("value", "argument"),
    [
        ([1, [2]], "[1, [2]]"),
        (["1", ["2"]], "['1', ['2']]"),
        ({"b": 2, "a": 1}, "a=1,b=2"),
        (b"caf\xe9", "café"),
        (None, ""),
        (True, "True"),
        (1.5, "1.5"),
        ("", ""),
    ],
)
def test_sdk_v2_value_is_written_as_python_writes_it(value: Any, argument: str) -> None:
    assert to_arguments({"name": value}) == ["--name", argument]


def test_no_hyperparameters_are_no_arguments() -> None:
    assert to_arguments({}) == to_arguments({}, Dialect.SDK_V3) == []


@given(st.dictionaries(st.text(min_size=1), JSON_VALUES, max_size=5), st.sampled_from([Dialect.SDK_V2, Dialect.SDK_V3]))
def test_any_json_becomes_two_arguments_each(values: dict[str, Any], dialect: Dialect) -> None:
    arguments = to_arguments(values, dialect)
    assert len(arguments) == 2 * len(values)
    assert all(isinstance(argument, str) for argument in arguments)


@pytest.mark.parametrize(
    ("given", "decoded"),
    [
        ("1e-3", 1e-3),
        ("true", True),
        ("True", "True"),
        ("007", "007"),
        ("123456789012345678901", 123456789012345678901),
        ("[1,2]", [1, 2]),
        ("null", None),
        ('"adam"', "adam"),
        ("adam", "adam"),
        ("", ""),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_value_is_decoded_as_json_where_it_is_json(given: str, decoded: Any) -> None:
    assert decode(given) == decoded


def test_not_a_number_is_a_float() -> None:
    assert decode("NaN") != decode("NaN")


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (Dialect.STORE_TRUE, ["--amp", "--layers", "[1, 2]", "--name", "x"]),
        (Dialect.NARGS, ["--amp", "True", "--debug", "False", "--layers", "1", "2", "--name", "x"]),
        (Dialect.HYDRA, ["name=x", "layers=[1,2]", "amp=true", "debug=false"]),
    ],
)
def test_other_dialects_suit_other_parsers(dialect: Dialect, expected: list[str]) -> None:
    assert to_arguments({"name": "x", "layers": [1, 2], "amp": True, "debug": False}, dialect) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("adam", "adam"),
        ("1", "'1'"),
        ("True", "'True'"),
        ("it's", "'it\\'s'"),
        ({"a": ["b c"]}, "{a:['b c']}"),
        ("", "''"),
    ],
)
def test_hydra_reads_a_string_as_the_string_it_was(value: Any, text: str) -> None:
    assert to_arguments({"k": value}, Dialect.HYDRA) == [f"k={text}"]


def test_file_is_sorted_into_users_frameworks_and_reserved(tmp_path: Path) -> None:
    write_config(
        tmp_path,
        "hyperparameters.json",
        {
            "epochs": "3",
            "sagemaker_program": '"train.py"',
            "sagemaker_torch_distributed_enabled": "true",
            "_tuning_objective_metric": "val:loss",
            "a": "1",
        },
    )
    given = read_hyperparameters(ContainerPaths(tmp_path))
    assert list(given.user.items()) == [("epochs", 3), ("a", 1)]
    assert given.framework == {"sagemaker_torch_distributed_enabled": True}
    assert given.reserved == {"sagemaker_program": "train.py", "_tuning_objective_metric": "val:loss"}


def test_no_file_means_none_given(tmp_path: Path) -> None:
    assert read_hyperparameters(ContainerPaths(tmp_path)).user == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1', "is not JSON: Expecting ',' delimiter at line 1, column 8"),
        ("[1]", "holds [1]; expected an object"),
        ({"sagemaker_program": "3"}, "field 'sagemaker_program': is 3; expected a string"),
    ],
)
def test_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, content: Any, message: str) -> None:
    file = write_config(tmp_path, "hyperparameters.json", content)
    with pytest.raises(ConfigurationFileError) as caught:
        read_hyperparameters(ContainerPaths(tmp_path))
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_secrets_are_masked_by_words_of_their_names() -> None:
    values = {"HF_TOKEN": "x", "api-key": "x", "dbPassword1": "y", "tokenizer": "bert", "monkey": "m", "secret": "s"}
    masked = mask_secrets(values)
    assert {key for key, value in masked.items() if value == MASK} == {"HF_TOKEN", "api-key", "secret", "dbPassword1"}
