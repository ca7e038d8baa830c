"""The GPUs of this machine as hosts are given them, by their index among the visible ones.

What asks for free memory runs the driver's tool, which takes tens of milliseconds: call it in a thread.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mooring.contract.resources import gpu_count, gpu_memory_bytes


@dataclass
class Devices:
    """Hands out devices: none on a machine without a GPU."""

    ids: tuple[int, ...] = ()
    physical: Mapping[int, int] = field(default_factory=dict)  # visible index -> the driver's own
    _turns: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.ids)

    @classmethod
    def visible(cls, variables: Mapping[str, str]) -> "Devices":
        """Return the devices that CUDA_VISIBLE_DEVICES leaves, all where it is not set."""
        count = gpu_count()
        given = variables.get("CUDA_VISIBLE_DEVICES")
        if not count or given in ("", "-1"):
            return cls()
        named = given.split(",") if given is not None else [str(index) for index in range(count)]
        # A UUID is no index; such a device is used all the same, only its free memory is not known.
        physical = {index: int(name) for index, name in enumerate(named) if name.strip().isdecimal()}
        return cls(tuple(range(len(named))), physical)

    def next(self) -> int | None:
        """Return the devices in turn."""
        return next(self._turns, None)

    def emptiest(self) -> int | None:
        """Return the device with the most free memory; the next in turn where nobody can say."""
        free = self._free()
        return max(free, key=lambda index: free[index]) if free else self.next()

    def free_bytes(self) -> int | None:
        """Return the free memory of the emptiest device, None without one or where nobody can say."""
        free = self._free()
        return max(free.values()) if free else None

    def _free(self) -> dict[int, int]:
        if not self.ids:
            return {}
        memory = gpu_memory_bytes()
        return {index: memory[own][1] for index, own in self.physical.items() if own in memory}
