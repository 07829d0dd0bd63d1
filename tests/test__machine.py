"""What the processor is fast at."""

import pytest

from brainsegnet._machine import describe_cpu, has_bf16_units, has_integer_units


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
