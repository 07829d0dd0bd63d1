"""What the processor is fast at."""

import os

import pytest

from brainsegnet import _machine
from brainsegnet._machine import (
    count_cores,
    describe_cpu,
    find_host,
    free_memory,
    has_bf16_units,
    has_integer_units,
    list_units,
    tells_of_memory,
)


@pytest.mark.parametrize(
    ("flags", "integers", "bf16"),
    [
        ("sse sse4_2", False, False),
        ("sse avx2", True, False),
        ("sse avx512_vnni avx512_bf16", True, False),
        ("amx_tile amx_bf16 amx_int8", True, True),
    ],
)
def test_units_are_read_from_the_description_of_the_processor(tmp_path, flags, integers, bf16):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert (has_integer_units(tmp_path / "cpuinfo"), has_bf16_units(tmp_path / "cpuinfo")) == (integers, bf16)


@pytest.mark.parametrize(("machine", "integers"), [("AMD64", True), ("x86_64", True), ("arm64", False)])
def test_where_the_system_does_not_tell_x86_is_taken_to_have_avx2(tmp_path, monkeypatch, machine, integers):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_integer_units(tmp_path / "absent") == integers and not has_bf16_units(tmp_path / "absent")


def test_results_name_the_processor_and_its_units(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: A Processor @ 2 GHz\nflags\t\t: avx2 avx512_vnni avx512_bf16\n")
    assert describe_cpu(tmp_path / "cpuinfo").startswith("A Processor @ 2 GHz (avx512_bf16), ")
    assert "cores" in describe_cpu(tmp_path / "absent")


def test_the_units_that_decide_the_arithmetic_are_listed(tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : sse avx2 fma avx_vnni avx512f avx512_vnni amx_int8 amx_bf16\n")
    assert list_units(tmp_path / "cpuinfo") == ["amx_bf16", "amx_int8", "avx2", "avx512_vnni", "avx512f", "avx_vnni"]
    assert list_units(tmp_path / "absent") == []


def test_two_machines_of_one_name_are_told_apart(tmp_path, monkeypatch):
    hosts = []
    for number in ("0123", "4567", ""):
        (tmp_path / "machine-id").write_text(f"{number}\n")
        monkeypatch.setattr(_machine, "MACHINE", tmp_path / "machine-id")
        hosts.append(find_host.__wrapped__())
    monkeypatch.setattr(_machine, "MACHINE", tmp_path / "absent")
    assert len({*hosts}) == 3 and hosts[2] == find_host.__wrapped__()
    assert {host.partition("+")[0] for host in hosts} == {find_host().partition("+")[0]}
    assert not any("0123" in host or "~" in host for host in hosts)


def write_group(folder, names, values, cache):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, values, strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{cache} 5\n")


@pytest.mark.parametrize(
    ("line", "root", "names", "cache"),
    [
        ("0::/slurm/job_5/step_0\n", "", ("memory.max", "memory.current"), "inactive_file"),
        (
            "1:cpu:/\n4:memory:/slurm/job_5/step_0\n",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_the_memory_of_a_job_counts(tmp_path, monkeypatch, line, root, names, cache):
    own = tmp_path / root / "slurm" / "job_5"
    write_group(own, names, (1000, 300), cache)
    write_group(own / "step_0", names, ("max", 300), cache)
    write_group(tmp_path / root, names, (10**18, 10), cache)
    (tmp_path / "groups").write_text(line)
    monkeypatch.setattr(_machine, "CGROUP", tmp_path)
    monkeypatch.setattr(_machine, "OWN_GROUPS", tmp_path / "groups")
    assert free_memory() == 705
    (tmp_path / "groups").write_text("0::/elsewhere\n4:memory:/elsewhere\n")
    write_group(tmp_path / root, names, (2000, 300), cache)
    assert free_memory() == 1705, "a container does not see where it lies in the host"


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    assert 1 <= count_cores() <= os.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 7}, raising=False)
    assert count_cores() == 2


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("could not create a primitive", True),  # oneDNN, whose kernels are compiled into memory
        ("could not execute a primitive", True),
        ("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("Exception from src/inference/src/cpp/infer_request.cpp:223: bad allocation; std::bad_alloc", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("Given groups=1, weight of size [8, 4, 3, 3, 3], expected input to have 4 channels, but got 3", False),
    ],
)
def test_what_libraries_say_of_too_little_memory(text, tells):
    assert tells_of_memory(RuntimeError(text)) is tells
