"""The tree that the platform mounts at /opt/ml, written for a job that runs here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mooring.contract.cluster import HOMOGENEOUS
from mooring.contract.paths import ContainerPaths


def write_training_inputs(
    base: Path,
    *,
    hyperparameters: Mapping[str, Any],
    channels: Mapping[str, str | None],
    hosts: Sequence[str] = ("algo-1",),
    current_host: str = "algo-1",
    instance_type: str = "local",
    seen_as: Path | None = None,
) -> ContainerPaths:
    """Write a training job's folders and configuration, as SDK v2 and the platform do, and return its paths.

    `channels` maps names to content types; their folders are made, and are the caller's to fill. `seen_as` is what the
    container calls `base`, if it has another name for it.
    """
    paths = ContainerPaths(base)
    for folder in (paths.input_config, paths.model, paths.output_data, paths.checkpoints, paths.code):
        folder.mkdir(parents=True, exist_ok=True)
    for name in channels:
        paths.channel(name).mkdir(parents=True, exist_ok=True)
    # SDK v2 encodes each value as JSON, strings too, and the file holds strings only.
    _write(paths.hyperparameters_file, {key: json.dumps(value) for key, value in hyperparameters.items()})
    _write(paths.input_data_config_file, {name: _channel(kind) for name, kind in channels.items()})
    _write(paths.resource_config_file, _resources(hosts, current_host, instance_type))
    _write(paths.checkpoint_config_file, {"LocalPath": str(ContainerPaths(seen_as or base).checkpoints)})
    return paths


def _channel(content_type: str | None) -> dict[str, str]:
    fields = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    return fields | ({"ContentType": content_type} if content_type else {})


def _resources(hosts: Sequence[str], current_host: str, instance_type: str) -> dict[str, Any]:
    ordered = sorted(hosts)
    group = {"instance_group_name": HOMOGENEOUS, "instance_type": instance_type, "hosts": ordered}
    return {
        "current_host": current_host,
        "current_instance_type": instance_type,
        "current_group_name": HOMOGENEOUS,
        "hosts": ordered,
        "instance_groups": [group],
        "network_interface_name": "eth0",
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
