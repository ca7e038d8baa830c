"""The hosts of a training job, as resourceconfig.json lists them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config_files import read_required_object, take, take_strings
from .errors import ConfigurationFileError
from .paths import ContainerPaths

HOMOGENEOUS = "homogeneousCluster"
DEFAULT_INTERFACE = "eth0"
INTERFACES = Path("/sys/class/net")


@dataclass(frozen=True)
class InstanceGroup:
    """One group of a heterogeneous cluster."""

    name: str
    instance_type: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """All hosts, and which of them this is. Hosts are in the platform's order, which is the order of their names."""

    current_host: str
    hosts: tuple[str, ...]
    network_interface: str = DEFAULT_INTERFACE  # as the platform named it
    instance_type: str = "local"
    current_group: str = HOMOGENEOUS
    groups: tuple[InstanceGroup, ...] = ()
    topology: Any = None
    raw: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def host_rank(self) -> int:
        """This host's place among all hosts."""
        return self.hosts.index(self.current_host)

    @property
    def leader(self) -> str:
        """The host where ranks meet."""
        return self.hosts[0]

    @property
    def is_heterogeneous(self) -> bool:
        """Whether any group has a name of its own."""
        return any(group.name != HOMOGENEOUS for group in self.groups)

    @property
    def current_group_hosts(self) -> tuple[str, ...]:
        """The hosts of this host's group; all of them in a homogeneous cluster."""
        for group in self.groups:
            if group.name == self.current_group:
                return group.hosts
        return self.hosts

    def usable_interface(self, interfaces: Path = INTERFACES) -> str | None:
        """Return the network interface to bind to: the platform's if it exists here, else eth0 if that does.

        Local mode names an interface that is not there; None leaves the choice to the library that asks.
        """
        for name in (self.network_interface, DEFAULT_INTERFACE):
            if (interfaces / name).exists():
                return name
        return None


def read_cluster(paths: ContainerPaths) -> Cluster:
    """Return the cluster of this job. Raises `ConfigurationFileError`."""
    file = paths.resource_config_file
    content = read_required_object(file)
    current, hosts = take(content, "current_host", str, file), take_strings(content, "hosts", file)
    if current not in hosts:
        raise ConfigurationFileError(
            file, "current_host", f'is "{current}", which is not among the hosts {list(hosts)}'
        )
    return Cluster(
        current_host=current,
        hosts=hosts,
        network_interface=take(content, "network_interface_name", str, file, DEFAULT_INTERFACE),
        instance_type=take(content, "current_instance_type", str, file, "local"),
        current_group=take(content, "current_group_name", str, file, HOMOGENEOUS),
        groups=tuple(_group(fields, file) for fields in take(content, "instance_groups", list, file, [])),
        topology=content.get("topology"),
        raw=content,
    )


def _group(fields: Any, file: Path) -> InstanceGroup:
    if not isinstance(fields, dict):
        raise ConfigurationFileError(file, "instance_groups", "holds something that is not an object")
    return InstanceGroup(
        name=take(fields, "instance_group_name", str, file),
        instance_type=take(fields, "instance_type", str, file),
        hosts=take_strings(fields, "hosts", file),
    )
