"""The machine: its name, units of the processor, free memory, and versions of the installed software."""

import ctypes
import hashlib
import mmap
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

VERSIONED = ("brainsegnet", "torch", "lightning", "safetensors", "openvino", "nncf", "numpy", "SimpleITK")
LEAST_SPACE = 600_000_000
"""Address space in bytes without which the libraries cannot be loaded."""
CPUINFO, CGROUP, OWN_GROUPS = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit and use of memory, and the field of memory.stat with the file cache, in control groups of version 2 and 1."""
INTEGER_FLAGS = {"avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""With any of these, 8-bit products are faster than those of floats, with AVX2 alone 1.9 times."""
_UNITS = INTEGER_FLAGS | {"avx512f", "avx512_bf16", "amx_bf16", "i8mm", "bf16", "sve"}
_SHORT_OF_MEMORY = re.compile(
    r"(out of|not enough) memory|bad_?alloc|alloc_failed|(allocate|allocation of) memory|start new thread|"
    r"(failed|unable) to (map segment|allocate)|(cannot|can.t|can not|could not) allocate|"
    r"could not (create|execute) (a )?(memory|thread|primitive)",
    re.IGNORECASE,
)
_FIRST_SPACE = "4026531836"
"""Number that Linux gives to the process space outside all containers."""
_QUERY, _ACCESS_DENIED, _STILL_ACTIVE = 0x1000, 5, 259
"""Numbers of Windows, for `is_running`."""
MACHINE = Path("/etc/machine-id")
"""Holds a number that Linux gives to each machine at its installation."""


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


def list_units(description: Path = CPUINFO) -> list[str]:
    """Units of the processor that decide in which arithmetic a network runs, and how fast; empty if unknown."""
    return sorted(_UNITS & set(_read(description).split()))


def count_cores() -> int:
    """How many cores this process may use; a job or a container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(description: Path) -> str:
    with suppress(OSError):
        return description.read_text()
    return ""


def free_memory() -> int | None:
    """Bytes of memory that are free without swapping, within the limits of this process; None if unknown."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    """What the machine, the container and `ulimit -v` leave, the container with the file cache that can be dropped."""
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        space, _ = resource.getrlimit(resource.RLIMIT_AS)
        if space != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield max(space - pages * resource.getpagesize(), 0)
    with suppress(OSError, ValueError, KeyError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])
    for group in _list_groups():
        for names in _GROUP_FILES:
            with suppress(OSError, ValueError, KeyError):
                most, taken = (int((group / name).read_text()) for name in names[:2])
                details = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(most - taken + int(details[names[2]]), 0)


def _list_groups() -> Iterator[Path]:
    """The control group of this process for memory, as of a container or a job of Slurm, and those that hold it."""
    for line in _read(OWN_GROUPS).splitlines() or ["0::/"]:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        root = CGROUP if number == "0" else CGROUP / "memory"
        own = root / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(root))


def describe_small_limit() -> str:
    """A sentence if the limit on this process (`ulimit -v`) is below what the libraries need; otherwise empty.

    Below it, a library may wait for ever while it is loaded.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        space, _ = resource.getrlimit(resource.RLIMIT_AS)
        if space != resource.RLIM_INFINITY and space < LEAST_SPACE:
            return (
                f"the limit on memory (ulimit -v) is {space / 1e6:.0f} MB, and the libraries alone need "
                f"{LEAST_SPACE / 1e6:.0f} MB; raise it"
            )
    return ""


def require_space(size: int) -> None:
    """Check that so many bytes of address space are left, for a library that ends the process where they are not.

    The C library aborts a process without address space for the variables of a thread; no error can be caught then.

    Raises:
        MemoryError: the limit on this process (`ulimit -v`) leaves less.
    """
    try:
        mmap.mmap(-1, size, access=mmap.ACCESS_READ).close()
    except (OSError, ValueError) as error:
        raise MemoryError(f"the limit on memory (ulimit -v) leaves less than {size / 1e6:.0f} MB") from error


def tells_of_memory(error: BaseException) -> bool:
    """Whether an error of a library means that there was too little memory, or too small a limit on it.

    That oneDNN could not create a primitive may also mean that its input is too large; smaller ones help with both.

    Examples:
        >>> tells_of_memory(ImportError("libtorch.so: failed to map segment from shared object"))
        True
    """
    return isinstance(error, MemoryError) or bool(_SHORT_OF_MEMORY.search(f"{type(error).__name__} {error}"))


@cache
def find_host() -> str:
    """Name of this host, and after a plus what tells it from others of the same name.

    That is a part of the hash of the machine's number, and in a container the number of its process space.

    Examples:
        >>> "~" in find_host() or not find_host()
        False
    """
    parts = [re.sub(r"[^A-Za-z0-9.-]", "", platform.node())[:40] or "host"]
    with suppress(OSError):
        if number := MACHINE.read_bytes().strip():
            parts.append(hashlib.sha256(number).hexdigest()[:6])
    with suppress(OSError):
        if (space := os.readlink("/proc/self/ns/pid").strip("pid:[]")) != _FIRST_SPACE:
            parts.append(space)
    return "+".join(parts)


def is_running(process: int) -> bool:
    """Whether a process with this number runs on this host."""
    if sys.platform == "win32":
        kernel, status = ctypes.windll.kernel32, ctypes.c_ulong()
        if not (handle := kernel.OpenProcess(_QUERY, False, process)):
            return bool(kernel.GetLastError() == _ACCESS_DENIED)
        kernel.GetExitCodeProcess(handle, ctypes.byref(status))
        kernel.CloseHandle(handle)
        return status.value == _STILL_ACTIVE
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to someone else
        return True
    return True


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
