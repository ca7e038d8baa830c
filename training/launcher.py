"""A training job from its start to its exit code: read, plan, run, and leave the outcome where the platform looks."""

import logging
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mooring.contract.debugger_config import read_profiler_config
from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import MooringError
from mooring.contract.paths import ContainerPaths
from mooring.contract.resources import oom_kills
from mooring.contract.secrets_mask import mask_secrets

from .algorithm import choose_program
from .code import needs_preparation, prepare_code
from .entry_point import find_entry_point
from .failure import failure_text, forget_outcome, write_failure, write_success
from .objective import REQUIRE_VARIABLE, ObjectiveMissingError, check_objective, is_required
from .plan import LaunchPlan, make_plan
from .preparation import PreparationError, StoppedError, run_apart
from .profiling.report import finish_report
from .signal_pipe import hold_signals
from .stacks import places_text
from .supervisor import Outcome, Supervisor

logger = logging.getLogger(__name__)


def launch(variables: Mapping[str, str]) -> int:
    """Run the training job that the variables and files describe, and return its exit code.

    What is wrong with them ends in the failure file, like any failure of the job itself, with exit code 1.
    """
    hold_signals()
    paths = ContainerPaths.from_variables(variables)
    try:
        forget_outcome(paths)
        environment = TrainingEnvironment.load(variables)
        is_required(variables)  # so that a setting that cannot be used is said before the job runs
        if choose_program(environment) is None and needs_preparation(environment):
            run_apart(lambda: prepare_code(environment))
        plan = make_plan(environment, find_entry_point(environment))
    except PreparationError as error:
        return _refuse(paths, str(error))
    except (MooringError, OSError) as error:
        return _refuse(paths, f"{type(error).__name__}: {error}")
    except StoppedError as stopped:
        return _refuse(paths, f"The job was stopped by {stopped} while its code was being prepared.", stopped.number)
    _announce(environment, plan)
    kills_before = oom_kills()
    with tempfile.TemporaryDirectory(prefix="mooring-") as folder:
        outcome = Supervisor(plan, Path(folder)).run()
    _finish_profile(environment)
    return _conclude(outcome, plan, environment, out_of_memory=oom_kills() > kills_before)


def _finish_profile(environment: TrainingEnvironment) -> None:
    """Make the report of a profile whose ranks did not come to make it, having been killed, say."""
    try:
        report = finish_report(read_profiler_config(environment.paths, environment.variables).directory)
    except Exception as error:  # noqa: BLE001 - how the job ended is what counts, whatever its profile holds
        logger.warning("The report of the profile could not be made: %s", error)
        return
    if report is not None:
        logger.info("the profile of this run is in %s", report)


def _refuse(paths: ContainerPaths, text: str, signal_number: int = 0) -> int:
    """Leave the failure file of a job that never began, and return its exit code."""
    logger.error("%s", text)
    write_failure(paths, text)
    return 128 + signal_number if signal_number else 1


def _announce(environment: TrainingEnvironment, plan: LaunchPlan) -> None:
    cluster = environment.cluster
    logger.info(
        "%s on %s: %d rank(s) here, %d in all; channels: %s; hyperparameters: %s",
        plan.entry_point,
        cluster.current_host,
        len(plan.ranks),
        plan.world_size,
        ", ".join(environment.channels) or "none",
        mask_secrets(environment.hyperparameters),
    )


def _conclude(outcome: Outcome, plan: LaunchPlan, environment: TrainingEnvironment, *, out_of_memory: bool) -> int:
    """Leave the success marker, or the failure file; returns the exit code."""
    if outcome.exit_code == 0:
        return _succeed(outcome, environment)
    host = environment.cluster.current_host
    if outcome.problem is not None:
        text = " ".join((outcome.problem, places_text(outcome.places))).strip()
    elif outcome.cause is not None:
        text = failure_text(outcome.cause, plan.world_size, host, outcome.places, out_of_memory=out_of_memory)
    elif outcome.stopped_by is not None:
        text = (
            f"The job was stopped by {signal.Signals(outcome.stopped_by).name} before its ranks had started ({host})."
        )
    else:
        reason = "was killed by the kernel: out of memory" if out_of_memory else "ended unexpectedly"
        text = f"The process that starts the ranks {reason} (exit code {outcome.exit_code}, {host})."
    logger.error("%s", text)
    write_failure(environment.paths, text)
    return outcome.exit_code


def _succeed(outcome: Outcome, environment: TrainingEnvironment) -> int:
    """Leave the success marker of a job whose ranks all exited 0, unless it failed its tuning job; return its code."""
    logger.info("every rank exited 0")
    objective, cluster = environment.tuning_objective_metric, environment.cluster
    try:
        # A job that was stopped may not have come so far, and only the first host has what was reported.
        if objective and outcome.stopped_by is None and cluster.host_rank == 0:
            check_objective(environment.paths, str(objective))  # a name such as "5" is decoded
    except ObjectiveMissingError as error:
        if is_required(environment.variables):
            return _refuse(environment.paths, f"{type(error).__name__}: {error}")
        logger.warning("%s %s=true makes this a failure.", error, REQUIRE_VARIABLE)
    write_success(environment.paths)
    return 0
