"""The fine-tuning example, as its reader would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LABELS = ("decimal", "asyncio", "email", "unittest")


@pytest.mark.slow
@pytest.mark.timeout(600)  # a minute, while nobody else computes
def test_example_fine_tunes_serves_and_knows_the_packages_of_its_sentences() -> None:
    command = [sys.executable, "-m", "examples.fine_tuning.fine_tune"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    best = max(float(found) for found in re.findall(r" validation_accuracy=([0-9.]+);", done.stdout))
    assert best > 0.75
    answers = [line.split(" (")[0] for line in done.stdout.splitlines()[-4:]]
    assert sum(answer == label for answer, label in zip(answers, LABELS, strict=True)) >= 3, done.stdout
