"""Figures of cases, where they are known."""

import json

import numpy as np
import pytest

from brainsegnet.task import BRATS2015
from brainsegnet.volume import Case, LabelMap, Volume

AFFINE = np.eye(4)


@pytest.fixture(scope="module")
def looks(benchmark_called):
    return benchmark_called("simulated_and_real")


def ball(shape, radius, centre):
    where = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return np.sqrt((where**2).sum(axis=0)) <= radius


def case():
    """A head of 40 mm radius, a lesion of 8 mm that is 4 brighter, and 4 mm of something bright far from it."""
    shape = (90, 90, 90)
    head, lesion, bright = ball(shape, 40, (45, 45, 45)), ball(shape, 8, (45, 45, 25)), ball(shape, 4, (45, 45, 70))
    image = np.where(head, 10 + np.random.default_rng(0).normal(0, 1, shape), 0)
    image += 4 * lesion + 40 * bright
    flair = Volume(np.where(head, image, 0).astype(np.float32), AFFINE)
    return Case("one", {"flair": flair}, LabelMap((2 * lesion).astype(np.uint8), AFFINE)), bright.sum() / 1000


def test_surfaces_are_those_of_cubes_and_balls(looks):
    cube = np.zeros((30, 30, 30), bool)
    cube[5:15, 8:18, 20:30] = True
    assert looks.surface(cube) == pytest.approx(1)
    assert looks.surface(ball((90, 90, 90), 30, (45, 45, 45))) == pytest.approx(1.21, abs=0.02)


def test_figures_of_a_case_are_what_was_put_into_it(looks):
    one, bright_ml = case()
    found = looks.look_at(one, BRATS2015)
    image = one.images["flair"].array
    spread = image[image != 0].std()
    assert found["brain, ml"] == pytest.approx(4 / 3 * np.pi * 40**3 / 1000, rel=0.01)
    assert found["whole, ml"] == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.02)
    assert found["flair, oedema, mean"] == pytest.approx(4 / spread, abs=0.05)
    assert found["flair, ring, mean"] == pytest.approx(0, abs=0.05)
    assert found["flair, bright and healthy, inner, ml"] >= bright_ml - 1e-3
    assert found["flair, noise"] == pytest.approx(1 / spread, rel=0.1)


def test_it_prints_a_table_of_both_and_writes_every_figure(looks, phantoms, tmp_path, monkeypatch, capsys):
    out = tmp_path / "looks.json"
    arguments = ["--real", str(phantoms), "--task", "brats2015", "--cases", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["simulated_and_real.py", str(phantoms), *arguments])
    looks.main()
    printed, written = capsys.readouterr().out, json.loads(out.read_text())
    assert "simulated (1)" in printed and len(written["simulated"]) == 1 < len(written["real"])
    assert written["simulated"][0] == written["real"][0]
