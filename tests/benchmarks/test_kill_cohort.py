"""Three disturbances of each kind; `python benchmarks/kill_cohort.py` does twenty."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_cohort.py"


@pytest.mark.skipif(sys.platform != "linux", reason="processes with all libraries loaded are forked")
@pytest.mark.parametrize("way", ["worker", "run", "stop", "end", "write", "disk", "hang", "crash", "fault", "broken"])
def test_a_disturbed_cohort_ends_as_a_calm_one(way, tmp_path):
    disturb([way], tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="processes with all libraries loaded are forked")
def test_so_it_does_on_a_ray_cluster(tmp_path):
    pytest.importorskip("ray")
    disturb(["ray-actor", "ray-raylet", "ray-driver", "ray-fault", "ray-broken"], tmp_path)


def disturb(ways, folder):
    counts = folder / "kills.json"
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--ways", *ways, "--out", str(counts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(counts.read_text())["passed"] == dict.fromkeys(ways, 3)
