"""The launch plan: everything a training run will do, as a value that can be shown before it is performed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from mooring.contract.environment import LEADERS_VARIABLE, TrainingEnvironment
from mooring.contract.errors import SettingError
from mooring.contract.hyperparameters import ALGORITHM_VARIABLE, Dialect, to_arguments
from mooring.contract.sm_variables import MASTER_PORT, distribution_hosts, sm_variables

from .algorithm import program_of
from .entry_point import EntryPoint, EntryPointError, Module

PROCESSES_VARIABLE = "MOORING_PROCESSES_PER_HOST"
GRACE_VARIABLE = "MOORING_GRACE_SECONDS"
# The platform kills 120 s after SIGTERM; 20 of them are left to upload what was saved.
DEFAULT_GRACE_S = 100.0
RESTARTS_VARIABLE = "MOORING_MAX_RESTARTS"
JOIN_VARIABLE = "MOORING_JOIN_SECONDS"
# Hosts of a job may come up minutes apart; the earlier toolkit waits as long for their names.
DEFAULT_JOIN_S = 900.0
DIALECT_VARIABLE = "MOORING_ARGUMENTS"
START_VARIABLE = "MOORING_START_METHOD"
# What SDK v2 can ask for and torch.distributed has taken the place of.
OTHER_LAUNCHERS = {
    "sagemaker_distributed_dataparallel_enabled": "SMDDP",
    "mp_parameters": "SageMaker's model parallelism",
    "sagemaker_pytorch_xla_multi_worker_enabled": "PyTorch/XLA",
    "sagemaker_mpi_enabled": "MPI",
    "sagemaker_parameter_server_enabled": "a parameter server",
    "sagemaker_multi_worker_mirrored_strategy_enabled": "TensorFlow's mirrored strategy",
}
DISTRIBUTED_SWITCHES = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")
LOOPBACK, LOOPBACK_ADDRESS = "lo", "127.0.0.1"
# NCCL's plugin for EFA reads these; RDMAV_FORK_SAFE because DataLoader workers are forked.
EFA_VARIABLES = {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "RDMAV_FORK_SAFE": "1"}


class StartMethod(Enum):
    """How ranks come to be, in multiprocessing's words. A command is executed either way."""

    FORK = "fork"  # from an agent that has imported torch, once for all of them
    SPAWN = "spawn"  # each by an interpreter of its own


@dataclass(frozen=True)
class RankPlan:
    """One process of the run on this host, and the variables that only it gets."""

    rank: int
    local_rank: int
    variables: Mapping[str, str]


Choice = TypeVar("Choice", bound=Enum)


@dataclass(frozen=True)
class LaunchPlan:
    """What will run on this host. `meeting_port` is None if ranks need not meet, 0 if any port will do."""

    entry_point: EntryPoint
    arguments: tuple[str, ...]
    directory: Path | None  # where it runs; None where that does not matter
    variables: Mapping[str, str]  # of every process, whole
    ranks: tuple[RankPlan, ...]
    world_size: int
    start_method: StartMethod
    grace_seconds: float
    hosts: tuple[str, ...]  # those that run together, the first of which holds the store where they meet
    host: str
    max_restarts: int
    join_seconds: float
    meeting_port: int | None


def make_plan(environment: TrainingEnvironment, entry_point: EntryPoint) -> LaunchPlan:
    """Return the plan for this host. Raises `SettingError` for a variable that cannot be used."""
    _refuse_other_launchers(environment)
    program = program_of(entry_point.name) if isinstance(entry_point, Module) else None
    is_distributed = program is not None or _asks_for_ranks(environment)
    per_host = _processes_per_host(environment, is_distributed=is_distributed)
    current = environment.cluster.current_host
    hosts = distribution_hosts(environment)
    if not is_distributed or current not in hosts:
        hosts = (current,)  # each host runs the script by itself
    world_size = per_host * len(hosts)
    first = hosts.index(current) * per_host
    variables = _defaults(environment, hosts, per_host) | _inherited(environment.variables) | sm_variables(environment)
    return LaunchPlan(
        entry_point=entry_point,
        # A ready-made program reads its hyperparameters from the file.
        arguments=()
        if program
        else tuple(
            to_arguments(environment.hyperparameters, _choice(environment.variables, DIALECT_VARIABLE, Dialect.SDK_V2))
        ),
        directory=None if program else environment.paths.code,
        variables=variables | ({ALGORITHM_VARIABLE: program} if program else {}),
        ranks=tuple(
            RankPlan(first + local, local, _rank_variables(first + local, local, world_size, per_host, hosts))
            for local in range(per_host)
        ),
        world_size=world_size,
        start_method=_choice(environment.variables, START_VARIABLE, StartMethod.FORK),
        grace_seconds=seconds(environment.variables, GRACE_VARIABLE, DEFAULT_GRACE_S),
        hosts=hosts,
        host=current,
        max_restarts=_restarts(environment.variables),
        join_seconds=seconds(environment.variables, JOIN_VARIABLE, DEFAULT_JOIN_S),
        meeting_port=(MASTER_PORT if len(hosts) > 1 else 0) if world_size > 1 else None,
    )


def _defaults(environment: TrainingEnvironment, hosts: tuple[str, ...], per_host: int) -> dict[str, str]:
    """Return what every process of a run gets, but for what the user has chosen himself.

    A single process, which gets no rank, may meet those of the other hosts by itself, as the earlier PyTorch image's.
    """
    is_single = len(hosts) * per_host == 1
    met = environment.cluster.hosts if is_single else hosts
    variables = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(max(1, environment.cpus // per_host))}
    variables |= _interface_variables(environment.cluster.usable_interface() if len(met) > 1 else LOOPBACK)
    if is_single:
        variables |= {"MASTER_ADDR": _meeting_address(met), "MASTER_PORT": str(MASTER_PORT)}
    if environment.has_efa:
        variables |= EFA_VARIABLES
    return variables


def _inherited(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what ranks get of our own variables; who started us is to signal us, not them."""
    return {name: value for name, value in variables.items() if name != LEADERS_VARIABLE}


def _refuse_other_launchers(environment: TrainingEnvironment) -> None:
    """End at once, with what to use instead, where a script expects a launcher that is not here."""
    for key, launcher in OTHER_LAUNCHERS.items():
        if environment.framework_parameters.get(key) or environment.hyperparameters.get(key):
            raise EntryPointError(
                f"The job asks for {launcher} ({key}), which is not in this image. Use "
                'distribution={"torch_distributed": {"enabled": True}} and torch.distributed with DDP or FSDP2.'
            )


def _choice(variables: Mapping[str, str], name: str, default: Choice) -> Choice:
    given = variables.get(name, default.value)
    try:
        return type(default)(given)
    except ValueError as error:
        raise SettingError(name, given, f"one of {', '.join(one.value for one in type(default))}") from error


def _asks_for_ranks(environment: TrainingEnvironment) -> bool:
    """Whether a user's script is to be started once per device. Without being asked it runs once on each host."""
    switches = (environment.framework_parameters.get(key) for key in DISTRIBUTED_SWITCHES)
    return PROCESSES_VARIABLE in environment.variables or any(switches)


def _processes_per_host(environment: TrainingEnvironment, *, is_distributed: bool) -> int:
    asked = environment.variables.get(PROCESSES_VARIABLE)
    if asked is None:
        return max(1, environment.gpus) if is_distributed else 1
    if not asked.isdecimal() or int(asked) == 0:
        raise SettingError(PROCESSES_VARIABLE, asked, "a whole number, at least 1")
    return int(asked)


def seconds(variables: Mapping[str, str], name: str, default: float) -> float:
    """Return a variable that is a number of seconds. Raises `SettingError`."""
    given = variables.get(name)
    if given is None:
        return default
    try:
        seconds = float(given)
    except ValueError as error:
        raise SettingError(name, given, f"a number of seconds such as {default:g}") from error
    if not 0 <= seconds < float("inf"):
        raise SettingError(name, given, f"a number of seconds such as {default:g}")
    return seconds


def _restarts(variables: Mapping[str, str]) -> int:
    given = variables.get(RESTARTS_VARIABLE, "0")
    if not given.isdecimal():
        raise SettingError(RESTARTS_VARIABLE, given, "a whole number such as 3")
    return int(given)


def _interface_variables(interface: str | None) -> dict[str, str]:
    """gloo picks the wrong interface where there are several."""
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}


def _meeting_address(hosts: Sequence[str]) -> str:
    """Return where processes of these hosts meet: on the first of them, in the order of their names."""
    return hosts[0] if len(hosts) > 1 else LOOPBACK_ADDRESS


def _rank_variables(rank: int, local: int, world_size: int, per_host: int, hosts: tuple[str, ...]) -> dict[str, str]:
    """Return what torch.distributed reads. One process alone gets no rank: some scripts would think it distributed."""
    if world_size == 1:
        return {}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(per_host),
        "GROUP_RANK": str(rank // per_host),
        "GROUP_WORLD_SIZE": str(len(hosts)),
        "MASTER_ADDR": _meeting_address(hosts),
        # The agent of the first host holds the store where ranks meet, not rank 0.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "mooring",
    }
