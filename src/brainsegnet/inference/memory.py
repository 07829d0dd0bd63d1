"""How much memory is free on this machine, within the limits that a scheduler or container sets."""

from collections.abc import Iterator
from pathlib import Path

GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not tell (it is not Linux)."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])
        most, taken = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        reclaimable = next(int(line.split()[1]) for line in (GROUP / "memory.stat").read_text().splitlines()
                           if line.startswith("inactive_file "))  # fmt: skip
        if most != "max":
            yield max(int(most) - int(taken) + reclaimable, 0)
    except (OSError, ValueError, StopIteration):
        return
