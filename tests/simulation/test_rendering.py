"""The order of brightness is that of each sequence's physics, and lesions show where they should."""

import numpy as np
import pytest

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.simulation.confounders import Extra
from brainsegnet.simulation.glioma import Part
from brainsegnet.simulation.rendering import EXTRAS, MOTTLE, PARTS, SEQUENCES, draw_palettes

ORDER = {
    "flair": (Tissue.VENTRICLE, Tissue.WHITE, Tissue.GREY),
    "t1": (Tissue.VENTRICLE, Tissue.GREY, Tissue.DEEP_GREY, Tissue.WHITE),
    "t1c": (Tissue.VENTRICLE, Tissue.GREY, Tissue.DEEP_GREY, Tissue.WHITE),
    "t2": (Tissue.WHITE, Tissue.DEEP_GREY, Tissue.GREY, Tissue.VENTRICLE),
}


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_the_order_of_the_tissues_is_the_sequences_own(sequence):
    for seed in range(60):
        palette = draw_palettes(np.random.default_rng(seed), random_share=0.0)[sequence]
        shades = [palette.tissues[tissue] for tissue in ORDER[sequence]]
        assert palette.physical and shades == sorted(shades)
        assert palette.tissues[Tissue.WHITE] == 1.0


def test_a_share_of_the_images_has_a_contrast_of_its_own():
    palettes = [p for seed in range(150) for p in draw_palettes(np.random.default_rng(seed), 0.25).values()]
    assert 0.18 < np.mean([not p.physical for p in palettes]) < 0.32
    shades = [p.tissues for p in palettes if not p.physical and p.sequence == "t1"]
    assert {s[Tissue.GREY] < 1 for s in shades} == {s[Tissue.CSF] < 1 for s in shades} == {True, False}


def test_tumours_look_as_they_do_in_each_sequence():
    for seed in range(60):
        flair, t1, t1c, t2 = draw_palettes(np.random.default_rng(seed), 0.0).values()
        for part in (Part.OEDEMA, Part.NON_ENHANCING):
            assert flair.parts[part] > 1 and t2.parts[part] > 1 > t1.parts[part]
        assert t1c.parts[Part.ENHANCING] > 1.1 > max(t1c.parts[Part.OEDEMA], t1c.parts[Part.NECROSIS])
        assert t2.parts[Part.CYST] > 1.6 and flair.parts[Part.CYST] < 1.15 and t1.parts[Part.CYST] < 0.75


def test_faint_tumours_still_enhance():
    t1c = [draw_palettes(np.random.default_rng(seed), 0.0)["t1c"].parts for seed in range(200)]
    assert min(parts[Part.ENHANCING] for parts in t1c) > 1.1
    assert max(parts[Part.OEDEMA] for parts in t1c) < 1.0


def test_the_hindbrain_may_be_brighter_or_darker_than_the_rest_and_flair_and_t2_agree():
    palettes = [draw_palettes(np.random.default_rng(seed), 0.0) for seed in range(200)]
    flair, t1, t2 = (np.array([p[s].behind for p in palettes]) for s in ("flair", "t1", "t2"))
    assert 0.6 < np.mean(flair > 0) < 0.9 and 0.25 < np.mean((flair > 0.1) & (t2 > 0.1)) < 0.5
    agreement = np.corrcoef([flair, t1, t2])
    assert agreement[0, 2] > 0.5 and agreement[0, 1] < -0.2


def test_tables_have_a_place_for_everything():
    assert set(PARTS) == set(EXTRAS) == set(SEQUENCES) and len(MOTTLE) == len(Part)
    assert all(len(row) == len(Part) - 1 for row in PARTS.values())
    assert all(len(row) == len(Extra) - 1 for row in EXTRAS.values())
    assert min(e for e in Extra if e) == len(Tissue)
