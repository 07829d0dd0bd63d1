"""The machine: units of the processor, free memory, and versions of the installed software."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

VERSIONED = ("brainsegnet", "torch", "lightning", "safetensors", "openvino", "nncf", "numpy", "SimpleITK")
CPUINFO, CGROUP = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup")
INTEGER_FLAGS = {"avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""With any of these, 8-bit products are faster than those of floats, with AVX2 alone 1.9 times."""


def has_integer_units(description: Path = CPUINFO) -> bool:
    """Whether the processor multiplies 8-bit integers faster than floats.

    Windows and macOS give no description; there, x86 processors are assumed to have AVX2.
    """
    if not description.exists():
        return platform.machine().lower() in ("x86_64", "amd64")
    return not INTEGER_FLAGS.isdisjoint(_read(description).split())


def has_bf16_units(description: Path = CPUINFO) -> bool:
    """Whether the processor has matrix units for bf16; False without a description.

    Vector instructions (avx512_bf16) do not count, although they halve a training step. With them, the weight gradients
    of small maps read uninitialised memory in torch 2.13 (lab note of 2026-11-25, eight bits and speed).
    """
    return "amx_bf16" in _read(description).split()


def describe_cpu(description: Path = CPUINFO) -> str:
    """Name and special units of the processor, and the number of cores, for results."""
    text = _read(description)
    named = re.search(r"^model name\s*:(.*)", text, re.MULTILINE)
    name = named[1].strip() if named else platform.processor() or platform.machine()
    units = [flag for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in text.split()]
    return f"{name}{f' ({units[-1]})' if units else ''}, {os.cpu_count()} cores"


def _read(description: Path) -> str:
    with suppress(OSError):
        return description.read_text()
    return ""


def free_memory() -> int | None:
    """Bytes of memory that are free without swapping; None on systems other than Linux."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    """What the machine and the container leave, the latter with the file cache that can be dropped."""
    with suppress(OSError, ValueError, KeyError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])
        most, taken = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        details = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        if most != "max":
            yield max(int(most) - int(taken) + int(details["inactive_file"]), 0)


def find_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages on which the result of a training depends."""
    versions = {"python": platform.python_version()}
    for package in VERSIONED:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def describe_environment() -> str:
    """Text for a bug report: versions of the package, of Python and of the libraries, and the machine."""
    versions = find_versions()
    first = f"brainsegnet {versions.pop('brainsegnet', 'not installed')}"
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join((first, libraries, platform.platform(), describe_cpu()))
