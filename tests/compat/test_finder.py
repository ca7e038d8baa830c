"""Stand-ins are found where nothing else is."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mooring.compat import finder
from mooring.compat.finder import NAMES, Room, install

PACKAGE = Path(finder.__file__).parent
# Some real packages may be here: the extra `mms` brings one.
ABSENT = {name for name in NAMES[Room.SERVING] if importlib.util.find_spec(name) is None}


def test_nothing_is_found_before_it_is_installed() -> None:
    assert [name for name in ABSENT if importlib.util.find_spec(name)] == []


def test_every_module_of_every_stand_in_can_be_imported_by_its_name() -> None:
    install(Room.SERVING)
    files = sorted(
        file.relative_to(PACKAGE) for folder in PACKAGE.iterdir() if folder.is_dir() for file in folder.rglob("*.py")
    )
    names = [str(file.with_suffix("")).replace("/", ".").removesuffix(".__init__") for file in files]
    assert {name.partition(".")[0] for name in names} == set(NAMES[Room.SERVING])
    for name in [name for name in names if name.partition(".")[0] in ABSENT]:
        assert importlib.import_module(name).__name__ == name


def test_training_scripts_are_offered_no_names_that_may_mean_something_else() -> None:
    install(Room.TRAINING)
    assert importlib.util.find_spec("sagemaker_training") is not None
    assert [name for name in ("mms", "ts") if name in ABSENT and importlib.util.find_spec(name)] == []


def test_package_that_is_there_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "ts.py").write_text("real = True\n", encoding="utf-8")
    install(Room.SERVING)
    sys.path.insert(0, str(tmp_path))
    assert importlib.import_module("ts").real


def test_installing_twice_adds_one_finder() -> None:
    assert install(Room.SERVING) is install(Room.SERVING) is install(Room.TRAINING)
    assert sum(isinstance(each, finder.StandInFinder) for each in sys.meta_path) == 1


def test_serving_adds_to_what_training_offers() -> None:
    install(Room.TRAINING)
    install(Room.SERVING)
    assert importlib.util.find_spec("ts") is not None


@pytest.mark.parametrize("name", ["sagemaker_inference.model_server", "sagemaker_inference.no_such", "mms.nothing"])
def test_what_no_stand_in_has_is_missing_as_usual(name: str) -> None:
    install(Room.SERVING)
    with pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)


def test_importing_stand_ins_loads_no_framework() -> None:
    code = (
        "import sys, importlib; from mooring.compat.finder import Room, install; install(Room.SERVING); "
        "[importlib.import_module(name) for name in ('sagemaker_pytorch_serving_container.handler_service', "
        "'sagemaker_huggingface_inference_toolkit.handler_service', 'ts.torch_handler.vision_handler', "
        "'sagemaker_training.environment')]; print({'torch', 'transformers', 'scipy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
