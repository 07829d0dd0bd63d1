"""The shipped model of brain extraction: made from weights within its size, and scored on simulated scans."""

import json

import numpy as np
import pytest

from brainsegnet.anatomy.heads import from_synthseg, write_heads
from brainsegnet.errors import ModelError
from brainsegnet.model.brain import BrainNet
from brainsegnet.model.brain_card import BRAIN_HOME, read_brain_card
from brainsegnet.model.network import write_tensors
from brainsegnet.simulation.head import HeadSample
from release import ship_brain
from release.ship_brain import as_scan


def test_the_field_of_view_becomes_a_scan_at_its_place():
    image = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
    seen = np.zeros(image.shape, bool)
    seen[1:5, 2:6, 3:7] = True
    scan, box = as_scan(HeadSample(image, image, seen, seen))
    assert scan.shape == (4, 4, 4) and np.array_equal(scan.array, image[box])
    assert scan.affine[:3, 3].tolist() == [6, 4, 2] and scan.spacing_mm == (2, 2, 2)


@pytest.fixture(scope="module")
def made(onion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ship")
    write_heads([from_synthseg(onion())] * 2, folder / "heads.npz")
    write_tensors(BrainNet().state_dict(), folder / "weights.safetensors", {"step": "7"})
    return folder


def test_a_model_is_made_whole_and_replaces_the_former_one(made):
    home = made / "brain"
    for _ in range(2):
        scores = ship_brain.ship_brain(made / "weights.safetensors", made / "heads.npz", home, (1,), count=1)
    card = read_brain_card(home)
    assert card.steps == 7 and dict(card.scores) == json.loads(json.dumps(scores.to_json()))
    assert {path.name for path in home.iterdir()} == {"brain.json", *card.files}
    assert not list(made.glob(".*"))


def test_a_model_that_is_too_large_is_refused(made, monkeypatch):
    monkeypatch.setattr(ship_brain, "MOST_BYTES", 1000)
    with pytest.raises(ModelError, match="of 1000 at most"):
        ship_brain.ship_brain(made / "weights.safetensors", made / "heads.npz", made / "large", (1,), count=1)
    assert not (made / "large").exists()


@pytest.mark.real
def test_masks_of_others_are_a_little_larger_than_the_tissue(real_data):
    case = real_data / "tumour" / "brats2021" / "BraTS2021_01477"
    found = ship_brain.measure_margins(BRAIN_HOME, [case])
    ratios = [row["volume over theirs"] for row in found.values()]
    assert list(found) == sorted(found, reverse=True) and ratios == sorted(ratios)
    assert ratios[0] < 1 and found[-1.25]["tumour kept"] > 0.98
