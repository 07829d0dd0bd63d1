"""Label maps of whole heads: what counts as brain, soft tissue by depth, and refusals."""

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.heads import (
    BRAIN,
    KINDS,
    SHELLS_MM,
    HeadTissue,
    brain_centre,
    brain_mask,
    close,
    from_synthseg,
    load_heads,
    read_head,
    write_heads,
)
from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.volume import LabelMap


@pytest.fixture(scope="module")
def head(onion):
    return from_synthseg(onion())


def radius_of(head):
    middle = brain_centre(head)
    z, y, x = np.ix_(*(np.arange(n) - c for n, c in zip(head.shape, middle, strict=True)))
    return np.sqrt(z**2 + y**2 + x**2)


def test_the_brain_holds_all_solid_tissue_and_narrow_sulci(head):
    radius = radius_of(head)
    assert brain_mask(head)[radius < 29].all()
    assert (head.array[radius < 29] == HeadTissue.SULCUS).any()


def test_the_fluid_around_the_brain_does_not_belong_to_it(head):
    radius = radius_of(head)
    assert not brain_mask(head)[radius > 31].any()
    assert set(np.unique(head.array[(radius > 31.5) & (radius < 34)])) <= {HeadTissue.FLUID, HeadTissue.VEIN}


def test_dura_lines_the_skull(head):
    radius = radius_of(head)
    assert (head.array == HeadTissue.DURA).any()
    assert radius[head.array == HeadTissue.DURA].min() > 33


def test_a_wide_gap_is_no_sulcus(onion):
    wide, narrow = (brain_mask(from_synthseg(onion(n))) for n in (12, 2))
    radius = radius_of(from_synthseg(onion()))
    assert not wide[radius < 28].all() and narrow[radius < 28].all()


def test_soft_tissue_has_layers_that_follow_the_depth(head):
    soft = np.flatnonzero(np.bincount(head.array.ravel(), minlength=KINDS)) - HeadTissue.SOFT
    assert (soft >= 0).sum() >= len(SHELLS_MM)
    skin = ndimage.distance_transform_edt(~np.isin(head.array, (HeadTissue.SKIN, HeadTissue.AIR)))
    depths = [skin[head.array == HeadTissue.SOFT + k].mean() for k in range(len(SHELLS_MM))]
    assert depths == sorted(depths)


def test_the_same_image_gives_the_same_map(head, onion):
    again = from_synthseg(onion())
    assert np.array_equal(again.array, head.array) and np.array_equal(again.affine, head.affine)


def test_a_voxel_stays_where_it_was_in_the_head(head, onion):
    whole = onion()
    middle = np.append(brain_centre(head), 1)
    assert (head.affine @ middle)[:3] == pytest.approx((whole.affine @ [51.5, 47.5, 47.5, 1])[:3], abs=1.1)


def test_closing_fills_gaps_narrower_than_the_ball_and_adds_nothing_outside():
    mask = np.zeros((20, 20, 40), np.bool_)
    mask[:, :, 5:15] = mask[:, :, 19:30] = True
    closed = close(mask, 3.0, (1, 1, 1))
    assert closed[5:15, 5:15, 15:19].all()
    assert not closed[..., :5].any() and not closed[..., 30:].any()


def test_what_is_no_head_is_refused(onion):
    whole = onion()
    with pytest.raises(ImageError, match="0 ml of brain"):
        from_synthseg(whole.with_array(np.zeros_like(whole.array)))
    with pytest.raises(ImageError, match="no label map of a whole head"):
        from_synthseg(whole.with_array(np.where(whole.array == 511, 0, whole.array)))


def test_maps_come_back_from_a_file(head, tmp_path):
    write_heads([head, head], tmp_path / "heads.npz")
    back = load_heads(tmp_path / "heads.npz")
    assert len(back) == 2 and isinstance(back[0], LabelMap)
    assert np.array_equal(back[1].array, head.array) and np.array_equal(back[1].affine, head.affine)


def test_a_file_without_maps_is_refused(tmp_path):
    (tmp_path / "heads.npz").write_bytes(b"no maps")
    with pytest.raises(DatasetError, match="holds no label maps of whole heads"):
        load_heads(tmp_path / "heads.npz")


@pytest.mark.real
def test_a_map_of_synthseg_has_a_brain_of_human_size(real_data):
    head = read_head(real_data / "anatomy" / "synthseg_labels" / "training_seg_13.nii.gz")
    assert 1000 < np.count_nonzero(brain_mask(head)) * head.voxel_ml < 1700
    assert set(np.unique(head.array)) == set(range(KINDS))
    assert np.isin(BRAIN, np.unique(head.array)).all()
