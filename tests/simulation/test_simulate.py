import hashlib

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, TaskError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.simulation.simulate import simulate
from brainsegnet.task import BRATS2015

SHAPE = (24, 40, 40)


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(phantoms, tmp_path):
    simulate(tmp_path / "again", 3, 0, SHAPE)
    assert hashes(tmp_path / "again") == hashes(phantoms) and len(hashes(phantoms)) == 15
    simulate(tmp_path / "other", 1, 7, SHAPE)
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(phantoms).values())


def test_case_i_is_grown_from_seed_plus_i(phantoms, tmp_path):
    (folder,) = simulate(tmp_path, 1, 2, SHAPE)
    assert folder.name == "phantom0002" and hashes(folder) == hashes(phantoms / "phantom0002")


def test_a_phantom_is_a_case_of_brats_2015(phantoms):
    cases = find_cases([phantoms])
    assert [case.name for case in cases] == ["phantom0000", "phantom0001", "phantom0002"]
    case = load_case(cases[0], BRATS2015.sequences, BRATS2015, lesion=True)
    assert case.reference.shape == SHAPE and set(np.unique(case.lesion.array)) == {0, 1, 2, 3, 4}


def test_each_case_is_told(tmp_path):
    told = []
    assert (
        [folder.name for folder in simulate(tmp_path, 2, 5, SHAPE, told.append)]
        == told
        == ["phantom0005", "phantom0006"]
    )


@pytest.mark.parametrize(("cases", "seed", "shape"), [(0, 0, SHAPE), (-3, 0, SHAPE), (1, -1, SHAPE), (1, 0, (3, 4, 5))])
def test_what_cannot_be_grown_is_refused_and_nothing_is_left(tmp_path, cases, seed, shape):
    with pytest.raises(BrainSegNetError) as caught:
        simulate(tmp_path / "out", cases, seed, shape)
    assert isinstance(caught.value, TaskError) or "too coarse" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


SMALL = (32, 44, 40)


def test_realistic_cases_are_cases_of_brats_2015_and_repeat(tmp_path):
    for name in ("a", "b"):
        folders = simulate(tmp_path / name, 2, 4, SMALL, anatomy="procedural")
    assert [folder.name for folder in folders] == ["glioma0004", "glioma0005"]
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") and len(set(hashes(tmp_path / "a").values())) == 10
    for found in find_cases([tmp_path / "a"]):
        case = load_case(found, BRATS2015.sequences, BRATS2015, lesion=True)
        assert case.lesion.array.any()


def test_label_maps_of_a_folder_are_taken_in_turn(tmp_path):
    from brainsegnet.anatomy.label_maps import FREESURFER, from_seed, open_anatomies, pack_anatomies
    from brainsegnet.io.images import write_image
    from brainsegnet.volume import LabelMap

    table = np.array([0, *(FREESURFER[tissue][0] for tissue in sorted(FREESURFER))], np.int16)
    for number in range(2):
        head = from_seed(np.random.default_rng(number), SMALL)
        write_image(LabelMap(np.pad(table[head.tissue], 3), head.affine), tmp_path / f"head{number}.nii.gz")
    heads = open_anatomies(tmp_path)
    assert heads(0) is heads(2) and heads(1) is heads(3) and heads(0) is not heads(1)
    assert np.array_equal(heads(2).tissue, heads(0).tissue)
    assert pack_anatomies(tmp_path, tmp_path / "packed.npz") == 2
    packed = open_anatomies(tmp_path / "packed.npz")
    for number in range(3):
        assert np.array_equal(packed(number).tissue, heads(number).tissue)
        assert np.array_equal(packed(number).affine, heads(number).affine)
        assert packed(number).spacing_mm == pytest.approx(heads(number).spacing_mm)


@pytest.mark.parametrize("content", [None, b"", b"not packed"])
def test_a_file_without_packed_heads_is_refused(tmp_path, content):
    from brainsegnet.anatomy.label_maps import open_anatomies

    if content is not None:
        (tmp_path / "heads.npz").write_bytes(content)
    with pytest.raises(BrainSegNetError, match=r"heads.npz holds no packed heads; write it with benchmarks/pack.py"):
        open_anatomies(tmp_path / "heads.npz")


@pytest.mark.parametrize(
    ("anatomy", "sentence"), [("nowhere", "nowhere holds no label maps"), ("tests", "tests holds no label maps")]
)
def test_a_folder_without_label_maps_is_refused(tmp_path, anatomy, sentence):
    with pytest.raises(BrainSegNetError, match=sentence):
        simulate(tmp_path / "out", 1, 0, anatomy=anatomy)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("anatomy", ["icbm152", "tests"])
def test_a_shape_is_for_procedural_heads_alone(tmp_path, anatomy):
    with pytest.raises(BrainSegNetError, match=f"heads of {anatomy} keep their own grid; leave the shape out"):
        simulate(tmp_path / "out", 1, 0, SMALL, anatomy=anatomy)
    assert not (tmp_path / "out").exists()


def test_the_template_of_nilearn_or_the_sentence_that_names_the_extra(tmp_path):
    from importlib.util import find_spec

    from brainsegnet.anatomy.label_maps import default_anatomy, open_anatomies
    from brainsegnet.anatomy.procedural import Tissue
    from brainsegnet.errors import MissingExtra

    if find_spec("nilearn") is None:
        assert default_anatomy() == "procedural"
        with pytest.raises(MissingExtra, match=r"brainsegnet\[synthesis\]"):
            simulate(tmp_path / "out", 1, 0, anatomy="icbm152")
        return
    assert default_anatomy() == "icbm152"
    tissue = open_anatomies("icbm152")(0).tissue
    shares = np.bincount(tissue.ravel(), minlength=8)[1:] / np.count_nonzero(tissue)
    assert shares.min() > 0.005 and shares[Tissue.GREY - 1] > 0.3 and shares[Tissue.WHITE - 1] > 0.2


def test_plain_phantoms_grow_without_torch(tmp_path):
    import subprocess
    import sys

    code = f"import sys, brainsegnet as b, pathlib as p; b.grow(p.Path({str(tmp_path)!r}), 1, 0, {SHAPE})"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
