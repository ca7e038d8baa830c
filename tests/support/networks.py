"""Addresses: this machine's own, and hosts of their own on it, which are network namespaces joined by a cable."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = Path("/etc/netns")


def can_make() -> bool:
    """Whether this machine lets us make network namespaces."""
    if shutil.which("ip") is None:
        return False
    probe = space("probe")
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode == 0
    if made:
        ip("netns", "delete", probe)
    return made


def own_address() -> str:
    """An address of this machine that is not its loopback, whose clients are taken for strangers; "" if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        address = str(probe.getsockname()[0])
    return "" if address.startswith("127.") else address


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def two_hosts(first: str, second: str) -> Iterator[dict[str, tuple[str, ...]]]:
    """Make two namespaces joined by a cable; yields the words to put before a command to run it on each."""
    addresses = {first: "10.231.77.1", second: "10.231.77.2"}
    table = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())
    try:
        for name in addresses:
            (NAMES / space(name)).mkdir(parents=True, exist_ok=True)
            (NAMES / space(name) / "hosts").write_text(table, encoding="utf-8")
            ip("netns", "add", space(name))
        # A cable, not a bridge: what forwards packets on this machine may drop those of strangers.
        ip("-n", space(first), "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", space(second))
        for name, address in addresses.items():
            ip("-n", space(name), "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", space(name), "link", "set", device, "up")
        yield {name: ("ip", "netns", "exec", space(name)) for name in addresses}
    finally:
        for name in addresses:
            subprocess.run(["ip", "netns", "delete", space(name)], capture_output=True, check=False)
            shutil.rmtree(NAMES / space(name), ignore_errors=True)


def space(name: str) -> str:
    # Tests may run in several processes at once.
    return f"mooring-{os.getpid()}-{name}"
