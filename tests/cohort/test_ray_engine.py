"""The driver of a Ray cluster, with actors that end before they take a case. On Ray itself, on this machine."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("ray")

PROGRAM = """
import os, sys
from pathlib import Path
from brainsegnet.cohort import CohortOptions, ray_engine
from brainsegnet.cohort.manifest import prepare_manifest
from brainsegnet.cohort.places import open_places
from brainsegnet.cohort.ray_actor import Actor
from brainsegnet.cohort.work import Job
from brainsegnet.inference import SegmentOptions
from brainsegnet.model.store import resolve_model
from brainsegnet.progress import Callback

class Dying(Actor):
    def __call__(self, batch):
        os._exit(1)

class Told(Callback):
    def on_message(self, text):
        Path(sys.argv[3]).write_text(text)

ray_engine.ACTOR = Dying
cases, out, segmenting = Path(sys.argv[1]), Path(sys.argv[2]), SegmentOptions(device="cpu", threads=1)
places = open_places(out, resolve_model("tumour").card, segmenting, "flat")
manifest, options = prepare_manifest([cases], out, rescan=False), CohortOptions(engine="ray", attempts=1)
job = Job(manifest, places, "tumour", segmenting, options)
ray_engine.work_on_ray(job, Told())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ray on Windows is experimental")
def test_actors_that_end_before_they_take_a_case_end_the_run(phantoms, tmp_path):
    arguments = [phantoms, tmp_path / "out", tmp_path / "told.txt"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], timeout=300, env=environment)
    assert done.returncode == 1
    assert "actors started one after another without a case done; see about/ray.log" in arguments[2].read_text()
    assert not [*arguments[1].glob("*/.stop*")]
