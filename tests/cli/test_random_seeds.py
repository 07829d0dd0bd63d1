"""Cases of seeds that nobody has seen: simulated twice, segmented in one pass and in pieces, and scored.

Seeds follow from the day; BRAINSEGNET_TEST_SEED repeats those of another day.
"""

import json
import os
from datetime import date

import numpy as np
import pytest

from brainsegnet.io.images import read_labels

FIRST_SEED = 10 * int(os.environ.get("BRAINSEGNET_TEST_SEED", date.today().toordinal()))
KINDS = {
    "phantom": ("brats2021", ()),
    "glioma": ("brats2021", ("--realistic", "--anatomy", "procedural", "--shape", "64", "80", "72")),
    "stroke": ("isles2022", ("--stroke", "isles2022")),
}

pytestmark = pytest.mark.nightly


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_a_case_of_any_seed_is_simulated_segmented_and_scored(run, kind, place, tmp_path):
    seed, (task, flags) = FIRST_SEED + place, KINDS[kind]
    folders = [tmp_path / name for name in ("once", "twice")]
    for folder in folders:
        ended = run("simulate", folder, "--cases", 1, "--seed", seed, *flags)
        assert ended.code == 0, f"seed {seed}: {ended.err}"
    assert contents(folders[0]) == contents(folders[1]), f"seed {seed}"

    labels = []
    for name, memory in (("whole", ()), ("pieces", ("--max-memory-gb", "0.1"))):
        ended = run("segment", folders[0], "--out", tmp_path / name, *memory)
        assert ended.code == 0, f"seed {seed}: {ended.err}"
        labels.append(read_labels(next((tmp_path / name).glob("*.nii.gz"))).array)
    np.testing.assert_array_equal(labels[0], labels[1], err_msg=f"seed {seed}")

    ended = run("evaluate", tmp_path / "whole", folders[0], "--task", task, "--out", tmp_path / "scores")
    assert ended.code == 0, f"seed {seed}: {ended.err}"
    (case,) = json.loads((tmp_path / "scores" / "scores.json").read_text())["cases"].values()
    assert all(0 <= region["dice"] <= 1 for region in case.values()), f"seed {seed}"
