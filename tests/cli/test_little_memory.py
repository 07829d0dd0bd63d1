"""With a small limit on memory, a verb ends in one sentence, whatever library meets the limit."""

import subprocess
import sys

import pytest

MEGABYTE = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to such a limit")
@pytest.mark.parametrize("megabytes", [100, 300, 600, 1200, 1900, 4000])
def test_segment_under_ulimit_v(phantoms, left, tmp_path, megabytes):
    import resource

    limit = megabytes * MEGABYTE

    def hold():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    case, out = phantoms / "phantom0000", tmp_path / "out"
    arguments = ("segment", case, "--model", "tumour", "--out", out, "--device", "cpu", "--threads", 2)
    command = [sys.executable, "-m", "brainsegnet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=hold)
    if done.returncode:
        assert done.returncode == 1 and done.stderr.startswith("brainsegnet: ") and done.stderr.count("\n") == 1
        assert "memory" in done.stderr and "openvino" not in done.stderr.lower() and not left(out)
    assert bool(done.returncode) == (megabytes < 4000)
