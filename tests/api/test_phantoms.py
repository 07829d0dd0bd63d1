import hashlib

import numpy as np
import pytest

from brainsegnet.api.phantoms import grow
from brainsegnet.errors import BrainSegNetError, TaskError
from brainsegnet.scans.datasets import find_cases, load_case
from brainsegnet.task import BRATS2015

SHAPE = (24, 40, 40)


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(phantoms, tmp_path):
    grow(tmp_path / "again", 3, 0, SHAPE)
    assert hashes(tmp_path / "again") == hashes(phantoms) and len(hashes(phantoms)) == 15
    grow(tmp_path / "other", 1, 7, SHAPE)
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(phantoms).values())


def test_case_i_is_grown_from_seed_plus_i(phantoms, tmp_path):
    (folder,) = grow(tmp_path, 1, 2, SHAPE)
    assert folder.name == "phantom0002" and hashes(folder) == hashes(phantoms / "phantom0002")


def test_a_phantom_is_a_case_of_brats_2015(phantoms):
    cases = find_cases([phantoms])
    assert [case.name for case in cases] == ["phantom0000", "phantom0001", "phantom0002"]
    case = load_case(cases[0], BRATS2015.sequences, BRATS2015, lesion=True)
    assert case.reference.shape == SHAPE and set(np.unique(case.lesion.array)) == {0, 1, 2, 3, 4}


def test_each_case_is_told(tmp_path):
    told = []
    assert (
        [folder.name for folder in grow(tmp_path, 2, 5, SHAPE, told.append)] == told == ["phantom0005", "phantom0006"]
    )


@pytest.mark.parametrize(("cases", "seed", "shape"), [(0, 0, SHAPE), (-3, 0, SHAPE), (1, -1, SHAPE), (1, 0, (3, 4, 5))])
def test_what_cannot_be_grown_is_refused_and_nothing_is_left(tmp_path, cases, seed, shape):
    with pytest.raises(BrainSegNetError) as caught:
        grow(tmp_path / "out", cases, seed, shape)
    assert isinstance(caught.value, TaskError) or "too coarse" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
