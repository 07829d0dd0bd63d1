"""Anatomies from label maps and from probabilities: brain only, upright, told apart."""

import numpy as np
import pytest

from brainsegnet.anatomy.label_maps import FREESURFER, from_freesurfer, from_probabilities
from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.volume import Volume


def with_labels(head):
    """The head as FreeSurfer would label it, in a skull."""
    table = np.zeros(8, np.int32)
    for tissue, values in FREESURFER.items():
        table[tissue] = values[-1]
    labels = np.where(head.tissue == Tissue.BACKGROUND, 507, table[head.tissue])
    return Volume(np.pad(labels, 6, constant_values=515), head.affine)


def test_a_label_map_gives_the_tissues_back_without_the_skull(head):
    found = from_freesurfer(with_labels(head))
    for tissue in (Tissue.WHITE, Tissue.GREY, Tissue.VENTRICLE, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY):
        assert np.count_nonzero(found.tissue == tissue) == np.count_nonzero(head.tissue == tissue)
    assert not np.any(found.tissue[[0, -1]]) and found.spacing_mm == pytest.approx(head.spacing_mm)
    assert all(n <= m + 12 for n, m in zip(found.tissue.shape, head.tissue.shape, strict=True))


def test_the_grid_follows_the_cut(head):
    volume = with_labels(head)
    found = from_freesurfer(volume)
    inside = np.argwhere(found.tissue == Tissue.VENTRICLE)[0]
    world = (found.affine @ [*inside, 1])[:3]
    back = np.linalg.inv(volume.affine) @ [*world, 1]
    assert volume.array[tuple(np.rint(back[:3]).astype(int))] in FREESURFER[Tissue.VENTRICLE]


def test_a_map_of_something_else_is_refused(head):
    with pytest.raises(ImageError, match=r"lesions.nii.gz holds 0 ml of grey matter; name a whole-brain"):
        from_freesurfer(Volume(np.ones((9, 9, 9), np.uint8), np.eye(4)), "lesions.nii.gz")


def test_probabilities_give_a_head(head):
    white = np.isin(head.tissue, (Tissue.WHITE, Tissue.HINDBRAIN_WHITE)).astype(np.float32)
    grey = np.isin(head.tissue, (Tissue.GREY, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY)).astype(np.float32)
    found = from_probabilities(Volume(grey, head.affine), Volume(white, head.affine))
    solid = np.isin(found.tissue, (Tissue.GREY, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY))
    assert np.count_nonzero(solid) == grey.sum()
    assert set(np.unique(found.tissue)) == set(range(8))


@pytest.mark.real
def test_a_real_label_map_is_a_whole_brain(real_data):
    from brainsegnet.io.images import read_image

    volume = read_image(real_data / "anatomy" / "synthseg_labels" / "training_seg_03.nii.gz")
    found = from_freesurfer(turn(volume, find_turn(volume.affine)))
    shares = np.bincount(found.tissue.ravel(), minlength=8)[1:] / np.count_nonzero(found.tissue)
    assert 0.05 < shares[0] < 0.3 and 0.3 < shares[1] < 0.6 and 0.25 < shares[2] < 0.5
    front, back = (
        np.count_nonzero(found.tissue[:, half] == Tissue.CEREBELLAR_GREY)
        for half in np.array_split(np.arange(found.tissue.shape[1]), 2)
    )
    assert back > 10 * max(front, 1)
