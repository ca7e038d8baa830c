"""The launch plan in words and as JSON, for `mooring explain`. Nothing is fetched, installed or started."""

import json
from collections.abc import Mapping
from typing import Any

from mooring.contract.environment import TrainingEnvironment
from mooring.contract.secrets_mask import MASK, is_secret, mask_secrets

from .algorithm import choose_program
from .code import needs_preparation
from .entry_point import Command, EntryPoint, EntryPointError, Script, find_entry_point
from .plan import LaunchPlan, make_plan


def explain(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return what `train` would do, secrets masked. Raises what `train` would report as wrong with the job."""
    environment = TrainingEnvironment.load(variables)
    plan = make_plan(environment, _entry_point(environment))
    added = {key: value for key, value in plan.variables.items() if variables.get(key) != value}
    return {
        "runs": str(plan.entry_point),
        "program": _program(environment),
        "arguments": _masked_arguments(plan, environment),
        "directory": str(plan.directory) if plan.directory else None,
        "prepares": _preparation(environment),
        "host": environment.cluster.current_host,
        "hosts": list(environment.cluster.hosts),
        "world_size": plan.world_size,
        "start_method": plan.start_method.value,
        "ranks_meet": _meeting(plan),
        "devices": {"cpus": environment.cpus, "gpus": environment.gpus, "neurons": environment.neurons},
        "channels": {name: str(channel.path) for name, channel in environment.channels.items()},
        "hyperparameters": mask_secrets(environment.hyperparameters),
        "checkpoints": str(environment.checkpoint_directory),
        "grace_seconds": plan.grace_seconds,
        "variables": _masked_variables(added, environment),
        "ranks": [
            {"rank": rank.rank, "local_rank": rank.local_rank, "variables": dict(rank.variables)} for rank in plan.ranks
        ],
    }


def _entry_point(environment: TrainingEnvironment) -> EntryPoint:
    """Return what would run; of code that is still elsewhere only the name is known."""
    try:
        return find_entry_point(environment)
    except EntryPointError:
        given, program = environment.submit_directory, environment.program
        if given is None or program is None or given == str(environment.paths.code):
            raise
        path = environment.paths.code / program
        return Script(path) if path.suffix == ".py" else Command((str(path),))


def _program(environment: TrainingEnvironment) -> str | None:
    """Say which ready-made program runs and why, None for code of the user's."""
    choice = choose_program(environment)
    return None if choice is None else f"{choice.name}, because {choice.reason}"


def _preparation(environment: TrainingEnvironment) -> str | None:
    if environment.program is None or not needs_preparation(environment):
        return None
    given = environment.submit_directory
    return f"fetches code from {given}" if given else "installs what the code requires"


def _meeting(plan: LaunchPlan) -> str | None:
    if plan.meeting_port is None:
        return None
    address = plan.ranks[0].variables["MASTER_ADDR"]
    return f"{address}:{plan.meeting_port}" if plan.meeting_port else f"{address}, any free port"


def _masked_arguments(plan: LaunchPlan, environment: TrainingEnvironment) -> list[str]:
    secrets = {str(value) for key, value in environment.hyperparameters.items() if is_secret(key)}
    return [MASK if argument in secrets else argument for argument in plan.arguments]


def _masked_variables(variables: Mapping[str, str], environment: TrainingEnvironment) -> dict[str, str]:
    """Mask variables by their names, and those that hold every hyperparameter if one of them is a secret."""
    has_secret = any(is_secret(key) for key in environment.hyperparameters)
    whole = ("SM_HPS", "SM_USER_ARGS", "SM_TRAINING_ENV") if has_secret else ()
    return {key: MASK if key in whole else value for key, value in mask_secrets(variables).items()}


def in_words(plan: Mapping[str, Any]) -> str:
    """Return an explained plan as lines of text."""
    lines = [f"{key:<16} {_shown(value)}" for key, value in plan.items() if key not in ("variables", "ranks")]
    lines.append("variables")
    lines += [f"  {key}={value}" for key, value in sorted(plan["variables"].items())]
    for rank in plan["ranks"]:
        given = " ".join(f"{key}={value}" for key, value in rank["variables"].items())
        lines.append(f"rank {rank['rank']:<11} {given or 'no variables of its own'}")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, default=str)
