"""The SM_* variables that a training script finds, derived as the earlier toolkit and SDK v3 derive them."""

from collections.abc import Mapping
from typing import Any

from .cluster import HOMOGENEOUS
from .environment import TrainingEnvironment
from .hyperparameters import compact_text, to_arguments

MASTER_PORT = 7777


def sm_variables(environment: TrainingEnvironment) -> dict[str, str]:
    """Return every SM_* variable of a job. Names keep their dashes, and are given with underscores too."""
    values = {
        **_cluster(environment),
        **_paths(environment),
        **_program(environment),
        "num_cpus": environment.cpus,
        "num_gpus": environment.gpus,
        "num_neurons": environment.neurons,
        "log_level": environment.log_level,
        "training_env": training_env(environment),
    }
    variables = {f"SM_{name.upper()}": compact_text(value) for name, value in values.items()}
    for name, value in environment.hyperparameters.items():
        variables |= _named(f"SM_HP_{name.upper()}", compact_text(value))
    for name, channel in environment.channels.items():
        variables |= _named(f"SM_CHANNEL_{name.upper()}", str(channel.path))
    return variables


def _named(name: str, value: str) -> dict[str, str]:
    """A shell cannot export a name with a dash or a dot, so each such name is also given without."""
    return {name: value, name.replace("-", "_").replace(".", "_"): value}


def _cluster(environment: TrainingEnvironment) -> dict[str, Any]:
    cluster = environment.cluster
    values = {
        "hosts": list(cluster.hosts),
        "current_host": cluster.current_host,
        "network_interface_name": cluster.network_interface,
        "current_instance_type": cluster.instance_type,
        "current_instance_group": cluster.current_group,
        "current_instance_group_hosts": list(cluster.current_group_hosts),
        "instance_groups": _group_names(environment),
        "instance_groups_dict": _groups(environment),
        "distribution_instance_groups": distribution_groups(environment),
        "is_hetero": cluster.is_heterogeneous,
        "resource_config": dict(cluster.raw),
        "host_count": len(cluster.hosts),
        "current_host_rank": cluster.host_rank,
        "master_addr": cluster.leader,
        "master_port": MASTER_PORT,
    }
    return values if cluster.topology is None else values | {"topology": cluster.topology}


def _paths(environment: TrainingEnvironment) -> dict[str, Any]:
    paths = environment.paths
    return {
        "input_dir": str(paths.input),
        "input_config_dir": str(paths.input_config),
        "input_data_dir": str(paths.input_data),
        "input_data_config": dict(environment.input_data_config),
        "output_dir": str(paths.output),
        "output_data_dir": str(paths.output_data),
        "output_intermediate_dir": str(paths.output_intermediate),
        "output_failure": str(paths.failure),
        "model_dir": str(paths.model),
        "channels": sorted(environment.channels),
    }


def _program(environment: TrainingEnvironment) -> dict[str, Any]:
    return {
        "hps": dict(environment.hyperparameters),
        "framework_params": dict(environment.framework_parameters),
        "user_entry_point": environment.program,
        "user_args": to_arguments(environment.hyperparameters),
        "module_name": _module_name(environment.program),
        "module_dir": environment.submit_directory or str(environment.paths.code),
        "framework_module": environment.training_module,
    }


def _module_name(program: str | None) -> str:
    return (program or "").removesuffix(".py")


def _group_names(environment: TrainingEnvironment) -> list[str]:
    return [group.name for group in environment.cluster.groups]


def _groups(environment: TrainingEnvironment) -> dict[str, Any]:
    return {group["instance_group_name"]: group for group in environment.cluster.raw.get("instance_groups", [])}


def distribution_groups(environment: TrainingEnvironment) -> list[str]:
    """Return the instance groups that take part in a distributed run; all where the job names none."""
    given = environment.framework_parameters.get("sagemaker_distribution_instance_groups")
    return list(given) if isinstance(given, list) else [environment.cluster.current_group or HOMOGENEOUS]


def distribution_hosts(environment: TrainingEnvironment) -> tuple[str, ...]:
    """Return the hosts of the groups that take part in a distributed run, in the platform's order."""
    cluster = environment.cluster
    groups = set(distribution_groups(environment))
    chosen = {host for group in cluster.groups if group.name in groups for host in group.hosts}
    return tuple(host for host in cluster.hosts if host in chosen) or cluster.hosts


def training_env(environment: TrainingEnvironment) -> Mapping[str, Any]:
    """Return the object that SM_TRAINING_ENV holds: the whole environment under the earlier toolkit's names."""
    cluster = _cluster(environment)
    for name in ("host_count", "current_host_rank", "master_addr", "master_port"):
        del cluster[name]  # names of SDK v3, which the toolkit's object does not have
    hosts = distribution_hosts(environment)
    paths = _paths(environment)
    program = _program(environment)
    return {
        **cluster,
        **{name: paths[name] for name in paths if name not in ("channels", "input_data_dir", "output_failure")},
        "additional_framework_parameters": program["framework_params"],
        "channel_input_dirs": {name: str(channel.path) for name, channel in environment.channels.items()},
        "distribution_hosts": list(hosts),
        "framework_module": program["framework_module"],
        "hyperparameters": program["hps"],
        "is_master": environment.cluster.current_host == hosts[0],
        "is_modelparallel_enabled": "mp_parameters" in environment.hyperparameters or None,
        "is_smddpmprun_installed": False,
        "is_smddprun_installed": False,
        "job_name": environment.job_name or "",
        "log_level": environment.log_level,
        "master_hostname": hosts[0],
        "module_dir": program["module_dir"],
        "module_name": program["module_name"],
        "num_cpus": environment.cpus,
        "num_gpus": environment.gpus,
        "num_neurons": environment.neurons,
        "user_entry_point": program["user_entry_point"],
    }
