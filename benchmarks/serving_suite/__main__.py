"""`make bench-serving`: our server against its peers, every row of the targets that concerns serving.

Those that are compared take turns, so that whatever else the machine does meets all of them; each peer runs in an
environment of its own from PyPI, at the number of workers that suited it best in a first round. Results are written
after each measurement; `python -m benchmarks.report` makes docs/benchmarks.md of them. Load comes from wrk
(`apt-get install wrk`), multi-model-server and TorchServe need a java on PATH (`apt-get install default-jre-headless`).

rows:
  tiny      requests/s of a model that costs nothing: what servers cost
  minilm    a sentence model against onnxruntime called without a server
  resnet    an image model, likewise
  start     start to the first healthy /ping
  load      a model's first and second load, to its first answer
  density   1,000 and 10,000 models in one server; memory after unloading
  fronts    the tiny model behind several processes that speak HTTP
  zipf      four times as many models as fit, some asked far more than others
"""

import argparse
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Protocol

from .cold_load import ColdLoad
from .density import Density
from .fronts import Fronts
from .plan import Plan, unknown
from .progress import Progress
from .record import Results, Row
from .start_up import StartUp
from .throughput import ROWS as THROUGHPUT
from .throughput import Throughput
from .tools import missing_tools
from .zipf import Zipf

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/benchmarks/serving.json"
QUICK_RESULTS = ROOT / "build/bench-quick.json"


class Measurement(Protocol):
    """One row of the table of targets, or several that one run fills."""

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells."""


MEASUREMENTS: dict[str, Measurement] = {
    **{name: Throughput(name) for name in THROUGHPUT},
    "start": StartUp(),
    "load": ColdLoad(),
    "density": Density(),
    "fronts": Fronts(),
    "zipf": Zipf(),
}


def main() -> int:
    """Measure what is asked for; 1 if a row could not be finished."""
    given, plan = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is ended
    results = Results(given.out)
    progress = Progress({name: MEASUREMENTS[name].seconds(plan) for name in given.rows})
    broken = []
    for name in given.rows:
        row = results.row(name, plan.settings(), is_resumed=plan.is_resumed)
        if row.is_complete:
            print(f"{name}: measured already", flush=True)
            progress.end(name)
            continue
        progress.begin(name)
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                MEASUREMENTS[name].measure(plan, row, progress, Path(folder))
            row.complete()
        except Exception:  # noqa: BLE001 - whatever it was, the other rows are still to be measured
            traceback.print_exc()
            broken.append(name)
        progress.end(name)
    print(f"Results are in {given.out}." + "".join(f" {name} is not finished; see above." for name in broken))
    return 1 if broken else 0


def _arguments() -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", help="some of: " + ",".join(MEASUREMENTS))
    parser.add_argument("--only", default="", help="some of those compared, such as mooring,raw-loop,fastapi")
    parser.add_argument("--clients", help="how many at once (1,16,64)")
    parser.add_argument("--rounds", type=int, help="rounds in which all take turns (5)")
    parser.add_argument("--seconds", type=float, help="the length of one measurement of throughput (3)")
    parser.add_argument("--quick", action="store_true", help="short and few, to see that all works")
    parser.add_argument("--resume", action="store_true", help="keep what the file has of a run of the same settings")
    parser.add_argument(
        "--out", type=Path, help=f"the file of results ({_shown(RESULTS)}, quick {_shown(QUICK_RESULTS)})"
    )
    given = parser.parse_args()
    given.rows = given.rows.split(",") if given.rows else list(MEASUREMENTS)
    given.out = given.out or (QUICK_RESULTS if given.quick else RESULTS)
    plan = Plan(
        rounds=given.rounds or (2 if given.quick else 5),
        seconds=given.seconds or (1.0 if given.quick else 3.0),
        clients=tuple(int(number) for number in (given.clients or "1,16,64").split(",")),
        only=tuple(filter(None, given.only.split(","))),
        is_quick=given.quick,
        is_resumed=given.resume,
    )
    contestants = [entry.name for entries in THROUGHPUT.values() for entry in entries]
    problems = [f"There is no row '{name}'." for name in given.rows if name not in MEASUREMENTS]
    problems += [f"There is nobody called '{name}' to compare." for name in unknown(plan.only, contestants)]
    problems += missing_tools()
    if problems:
        parser.error(" ".join(problems))
    return given, plan


def _shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
