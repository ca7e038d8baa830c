"""The files that the platform writes for a job, as small as a test needs them."""

import json
from pathlib import Path
from typing import Any

HOMOGENEOUS = {
    "current_host": "algo-1",
    "current_instance_type": "ml.g5.2xlarge",
    "current_group_name": "homogeneousCluster",
    "hosts": ["algo-1", "algo-2"],
    "instance_groups": [
        {"instance_group_name": "homogeneousCluster", "instance_type": "ml.g5.2xlarge", "hosts": ["algo-1", "algo-2"]}
    ],
    "network_interface_name": "eth0",
}
ONE_HOST = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}


def write_config(base: Path, name: str, content: Any) -> Path:
    """Write a file below input/config: text as it is, everything else as JSON."""
    folder = base / "input/config"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file
