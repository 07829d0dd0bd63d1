"""Anatomies from label maps and from probabilities: brain only, upright, told apart."""

from importlib.util import find_spec

import numpy as np
import pytest

from brainsegnet.anatomy.label_maps import (
    FREESURFER,
    default_anatomy,
    find_label_maps,
    from_freesurfer,
    from_probabilities,
    open_anatomies,
)
from brainsegnet.anatomy.procedural import Tissue, simulate_anatomy
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.images import write_image
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import LabelMap, Volume


def with_labels(anatomy):
    """The anatomy as FreeSurfer would label it, in a skull."""
    table = np.zeros(8, np.int32)
    for tissue, values in FREESURFER.items():
        table[tissue] = values[-1]
    labels = np.where(anatomy.array == Tissue.BACKGROUND, 507, table[anatomy.array])
    return Volume(np.pad(labels, 6, constant_values=515), anatomy.affine)


def test_a_label_map_gives_the_tissues_back_without_the_skull(anatomy):
    found = from_freesurfer(with_labels(anatomy))
    for tissue in (Tissue.WHITE, Tissue.GREY, Tissue.VENTRICLE, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY):
        assert np.count_nonzero(found.array == tissue) == np.count_nonzero(anatomy.array == tissue)
    assert not np.any(found.array[[0, -1]]) and found.spacing_mm == pytest.approx(anatomy.spacing_mm)
    assert all(n <= m + 12 for n, m in zip(found.array.shape, anatomy.array.shape, strict=True))


def test_the_grid_follows_the_cut(anatomy):
    volume = with_labels(anatomy)
    found = from_freesurfer(volume)
    inside = np.argwhere(found.array == Tissue.VENTRICLE)[0]
    world = (found.affine @ [*inside, 1])[:3]
    back = np.linalg.inv(volume.affine) @ [*world, 1]
    assert volume.array[tuple(np.rint(back[:3]).astype(int))] in FREESURFER[Tissue.VENTRICLE]


def test_a_map_of_something_else_is_refused(anatomy):
    with pytest.raises(ImageError, match=r"lesions.nii.gz holds 0 ml of grey matter; name a whole-brain"):
        from_freesurfer(Volume(np.ones((9, 9, 9), np.uint8), np.eye(4)), "lesions.nii.gz")


def test_probabilities_give_an_anatomy(anatomy):
    white = np.isin(anatomy.array, (Tissue.WHITE, Tissue.HINDBRAIN_WHITE)).astype(np.float32)
    grey = np.isin(anatomy.array, (Tissue.GREY, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY)).astype(np.float32)
    found = from_probabilities(Volume(grey, anatomy.affine), Volume(white, anatomy.affine))
    solid = np.isin(found.array, (Tissue.GREY, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY))
    assert np.count_nonzero(solid) == grey.sum()
    assert set(np.unique(found.array)) == set(range(8))


@pytest.mark.real
def test_a_real_label_map_is_a_whole_brain(real_data):
    from brainsegnet.io.images import read_image

    volume = read_image(real_data / "anatomy" / "synthseg_labels" / "training_seg_03.nii.gz")
    found = from_freesurfer(turn(volume, find_turn(volume.affine)))
    shares = np.bincount(found.array.ravel(), minlength=8)[1:] / np.count_nonzero(found.array)
    assert 0.05 < shares[0] < 0.3 and 0.3 < shares[1] < 0.6 and 0.25 < shares[2] < 0.5
    front, back = (
        np.count_nonzero(found.array[:, half] == Tissue.CEREBELLAR_GREY)
        for half in np.array_split(np.arange(found.array.shape[1]), 2)
    )
    assert back > 10 * max(front, 1)


def test_label_maps_of_a_folder_are_used_in_turn(tmp_path):
    table = np.array([0, *(FREESURFER[tissue][0] for tissue in sorted(FREESURFER))], np.int16)
    for number in range(2):
        anatomy = simulate_anatomy(np.random.default_rng(number), (32, 44, 40))
        write_image(LabelMap(np.pad(table[anatomy.array], 3), anatomy.affine), tmp_path / f"subject{number}.nii.gz")
    maps = open_anatomies(tmp_path)
    assert maps(0) is maps(2) and maps(1) is maps(3) and maps(0) is not maps(1)


def test_hidden_files_and_the_second_file_of_a_pair_are_no_label_maps(tmp_path):
    for name in ("b.mgz", "a.nii.gz", "c.hdr", "c.img", "._a.nii.gz", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_label_maps(tmp_path)] == ["a.nii.gz", "b.mgz", "c.hdr"]


@pytest.mark.parametrize("content", [None, b"", b"not packed"])
def test_a_file_without_packed_anatomies_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"some.npz holds no packed anatomies; write it with benchmarks/pack.py"):
        open_anatomies(tmp_path / "some.npz")


def test_the_template_is_the_default_where_nilearn_is_installed():
    if find_spec("nilearn") is None:
        assert default_anatomy() == "procedural"
        return
    assert default_anatomy() == "icbm152"
    tissue = open_anatomies("icbm152")(0).array
    shares = np.bincount(tissue.ravel(), minlength=8)[1:] / np.count_nonzero(tissue)
    assert shares.min() > 0.005 and shares[Tissue.GREY - 1] > 0.3 and shares[Tissue.WHITE - 1] > 0.2
