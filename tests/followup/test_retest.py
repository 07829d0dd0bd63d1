"""The interval of a repeated scan: its law, and the constants that ship."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainsegnet.followup.retest import (
    COVERAGE,
    Repeat,
    find_interval,
    find_radius,
    find_volume,
    judge_volumes,
    read_notes,
)
from brainsegnet.model.store import resolve_model

repeats = st.builds(
    lambda mm, share: Repeat(mm=mm, share=share, coverage=0.95, pairs=9, patients=3), st.floats(0, 3), st.floats(0, 0.5)
)
millilitres = st.floats(0, 500)


@given(millilitres)
def test_radius_and_volume_are_inverse(ml):
    assert find_volume(find_radius(ml)) == pytest.approx(ml, abs=1e-9)


@given(millilitres, millilitres, repeats)
def test_the_verdict_is_that_of_the_interval_and_of_the_reverse(before, after, repeat):
    verdict = judge_volumes(before, after, repeat)
    low, high = find_interval(before, repeat)
    if after < low * (1 - 1e-6) - 1e-6:
        assert verdict == "shrunk"
    elif after > high * (1 + 1e-6) + 1e-6:
        assert verdict == "grown"
    elif low * (1 + 1e-6) + 1e-6 < after < high * (1 - 1e-6) - 1e-6:
        assert verdict == "stable"
    mirrored = {"grown": "shrunk", "shrunk": "grown"}
    assert judge_volumes(after, before, repeat) == mirrored.get(verdict, verdict)


@given(st.floats(0.01, 100), repeats)
def test_a_small_lesion_is_repeated_to_a_larger_share(ml, repeat):
    small, large = (find_interval(volume, repeat)[1] / volume for volume in (ml, 2 * ml))
    assert small >= large * (1 - 1e-9)


def test_what_ships_holds_for_the_regions_of_its_model_and_covers_95_percent():
    notes = read_notes()
    assert "tumour" in notes
    for name, note in notes.items():
        card = resolve_model(name).card
        assert note.volumes.keys() == card.task.regions.keys()
        for repeat in (*note.volumes.values(), *note.lesions.values(), *note.diameters.values()):
            assert repeat.coverage >= COVERAGE and repeat.patients >= 10
