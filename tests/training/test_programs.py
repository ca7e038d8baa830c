"""Which ready-made program runs is told by its name, or by what only one of them is given."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import ONE_HOST, write_config
from training_jobs import Job

from mooring.contract.channels import Channel
from mooring.contract.environment import TrainingEnvironment
from mooring.training.algorithm import PROGRAMS, AlgorithmError, Choice, choose_program
from mooring.training.entry_point import Module, find_entry_point
from mooring.training.explain import explain
from mooring.training.plan import make_plan


def environment(base: Path, hps: Any = None, channels: Any = (), **variables: str) -> TrainingEnvironment:
    write_config(base, "resourceconfig.json", ONE_HOST)
    write_config(base, "hyperparameters.json", hps or {})
    loaded = TrainingEnvironment.load({"SAGEMAKER_BASE_DIR": str(base), **variables})
    return replace(loaded, channels={name: Channel(name, base / name) for name in channels})


def chosen(base: Path, **given: Any) -> Choice | None:
    return choose_program(environment(base, **given))


@pytest.mark.parametrize(
    ("given", "name", "reason"),
    [
        ({"MOORING_ALGORITHM": "text-classification"}, "text-classification", "MOORING_ALGORITHM names it"),
        ({"hps": {"algorithm": '"text-classification"'}}, "text-classification", "hyperparameter 'algorithm' names it"),
        ({"hps": {"algorithm": "Text_Classification"}}, "text-classification", "hyperparameter 'algorithm' names it"),
        ({"channels": ("train", "train_lst")}, "image-classification", "channel 'train_lst' is given"),
        ({"hps": {"image_shape": "3,28,28"}}, "image-classification", "hyperparameter 'image_shape' is given"),
        ({"hps": {"image-shape": "3,28,28"}}, "image-classification", "hyperparameter 'image_shape' is given"),
        (
            {"hps": {"algorithm": "text-classification"}, "channels": ("train_lst",)},
            "text-classification",
            "names it",
        ),
        (
            {"hps": {"algorithm": "text-classification"}, "MOORING_ALGORITHM": "text_classification"},
            "text-classification",
            "MOORING_ALGORITHM names it",
        ),
    ],
)
def test_program_is_chosen_by_name_or_by_what_it_is_given(tmp_path: Path, given: Any, name: str, reason: str) -> None:
    choice = chosen(tmp_path, **given)
    assert choice is not None
    assert choice.name == name
    assert reason in choice.reason
    assert find_entry_point(environment(tmp_path, **given)) == Module(PROGRAMS[name].module)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "There is nothing to run.*SAGEMAKER_PROGRAM.*MOORING_ALGORITHM"),
        ({"channels": ("train", "validation")}, "There is nothing to run"),
        (
            {"MOORING_ALGORITHM": "txt-classification"},
            "MOORING_ALGORITHM is \"txt-classification\", which is no program. Did you mean 'text-classification'?",
        ),
        ({"hps": {"algorithm": "xgboost"}}, "hyperparameter 'algorithm' is \"xgboost\", which is no program"),
        (
            {"hps": {"algorithm": "text-classification"}, "MOORING_ALGORITHM": "image-classification"},
            'MOORING_ALGORITHM is "image-classification" and the hyperparameter \'algorithm\' is "text-classification"',
        ),
        (
            {"MOORING_ALGORITHM": "image-classification", "SAGEMAKER_PROGRAM": "train.py"},
            'script of its own \\(train.py\\).*MOORING_ALGORITHM is "image-classification"',
        ),
        (
            {"hps": {"algorithm": "text-classification"}, "SAGEMAKER_TRAINING_MODULE": "a.b:c"},
            "script of its own \\(a.b:c\\).*'algorithm' is \"text-classification\"",
        ),
    ],
)
def test_what_asks_for_no_program_or_for_two_is_explained(tmp_path: Path, given: Any, sentence: str) -> None:
    with pytest.raises(AlgorithmError, match=f"(?s){sentence}"):
        chosen(tmp_path, **given)


@pytest.mark.parametrize("given", [{}, {"MOORING_ALGORITHM": "nonsense"}])
def test_error_has_a_line_for_each_program(tmp_path: Path, given: Any) -> None:
    with pytest.raises(AlgorithmError) as caught:
        chosen(tmp_path, **given)
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == list(PROGRAMS)
    assert all(len(line.split(":", 1)[1]) > 20 for line in lines)


def test_hyperparameter_of_this_name_may_be_the_scripts_own(tmp_path: Path) -> None:
    """Scripts for reinforcement learning take `--algorithm ppo`, and did so before there were programs of ours."""
    assert chosen(tmp_path, hps={"algorithm": "ppo"}, SAGEMAKER_PROGRAM="train.py") is None


def test_every_program_is_there() -> None:
    for program in PROGRAMS.values():
        assert importlib.util.find_spec(program.module)


def test_ranks_know_which_program_they_are(tmp_path: Path) -> None:
    given = environment(tmp_path, {"algorithm": "image-classification"})
    made = make_plan(given, find_entry_point(given))
    assert made.variables["MOORING_ALGORITHM"] == "image-classification"
    own = environment(tmp_path, {"algorithm": "ppo"}, SAGEMAKER_PROGRAM="train.py")
    assert "MOORING_ALGORITHM" not in make_plan(own, Module("a")).variables


def test_explained_plan_says_which_program_and_why(tmp_path: Path) -> None:
    Job.write(tmp_path, hyperparameters={"algorithm": "image-classification"})
    told = explain({"SAGEMAKER_BASE_DIR": str(tmp_path)})
    assert told["program"] == "image-classification, because the hyperparameter 'algorithm' names it"
    Job.write(tmp_path, "pass")
    assert explain({"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_PROGRAM": "train.py"})["program"] is None
