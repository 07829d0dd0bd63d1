"""Three kills of each verb; the page on what was tried has the counts of twenty."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill.py"


@pytest.mark.skipif(sys.platform != "linux", reason="processes with all libraries loaded are forked")
def test_killed_verbs_leave_whole_files_and_run_again(tmp_path):
    counts = tmp_path / "kill.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "3", "--out", str(counts)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    verbs = json.loads(counts.read_text())["verbs"]
    assert list(verbs) == ["segment", "train", "export", "simulate", "report"]
    for verb, found in verbs.items():
        assert found["kills"] == found["whole"] == found["ran again"] == found["left nothing"] == 3, verb
    assert sum(found["killed at work"] for found in verbs.values()) >= 5
