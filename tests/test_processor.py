"""What the processor is fast at."""

import pytest

from brainsegnet.processor import has_bf16_units, has_integer_units


@pytest.mark.parametrize(
    ("flags", "integers", "bf16"),
    [
        ("sse avx2", False, False),
        ("sse avx512_vnni avx512_bf16", True, False),
        ("amx_tile amx_bf16 amx_int8", True, True),
    ],
)
def test_units_are_read_from_the_description_of_the_processor(tmp_path, flags, integers, bf16):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert (has_integer_units(tmp_path / "cpuinfo"), has_bf16_units(tmp_path / "cpuinfo")) == (integers, bf16)


def test_where_the_system_does_not_tell_there_are_none(tmp_path):
    assert not has_integer_units(tmp_path / "absent") and not has_bf16_units(tmp_path / "absent")
