"""The machine: what the processor is fast at, how much memory is free, which versions of software are installed."""

import os
import platform
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

VERSIONED = ("brainsegnet", "torch", "lightning", "safetensors", "openvino", "nncf", "numpy", "SimpleITK")
CPUINFO = Path("/proc/cpuinfo")
INTEGER_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Any of these: 8-bit products are faster than those of floats, with AVX2 alone 1.9 times."""
X86 = ("x86_64", "amd64")
"""Names of machines whose processors have had AVX2 for ten years."""
BF16_FLAGS = ("amx_bf16",)
"""Matrix units for bf16. Vector instructions for it (avx512_bf16) do not count, though they halve a training step: in
torch 2.13 the weight gradients of small maps read memory there that nobody wrote (docs/performance.md)."""


def has_integer_units(description: Path = CPUINFO) -> bool:
    """Whether the processor multiplies 8-bit integers faster than floats.

    Where the system does not tell (Windows, macOS), those of x86 are taken to have AVX2.
    """
    if not description.exists():
        return platform.machine().lower() in X86
    return _has_any(INTEGER_FLAGS, description)


def has_bf16_units(description: Path = CPUINFO) -> bool:
    """Whether the processor has matrix units for bf16; False where the system does not tell."""
    return _has_any(BF16_FLAGS, description)


def describe_cpu(description: Path = CPUINFO) -> str:
    """Its name and special units, and the number of cores, for results."""
    try:
        lines = [line.partition(":") for line in description.read_text().splitlines()]
    except OSError:
        lines = []
    names = [value.strip() for key, _, value in lines if key.strip() == "model name"]
    units = [flag for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16") if _has_any([flag], description)]
    name = next(iter(names), platform.processor() or platform.machine())
    return f"{name}{f' ({units[-1]})' if units else ''}, {os.cpu_count()} cores"


def _has_any(flags: Iterable[str], description: Path) -> bool:
    try:
        words = set(description.read_text().split())
    except OSError:
        return False
    return any(flag in words for flag in flags)


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


def find_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a training makes, where they are installed."""
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe_environment() -> str:
    """What a report of a bug needs: versions of the package, of Python, of the libraries, and the machine."""
    versions = find_versions()
    first = f"brainsegnet {versions.pop('brainsegnet', 'not installed')}"
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{first}\n{libraries}\n{platform.platform()}\n{describe_cpu()}"
