"""Thumbnails: what is seen where, in three slices of a result."""

import io

import numpy as np
import pytest
from PIL import Image

from brainsegnet.errors import GridMismatch
from brainsegnet.plotting.thumbnails import CELL, SIZE, draw_thumbnail
from brainsegnet.volume import LabelMap, Volume

RED = {1: (1.0, 0.0, 0.0)}


def make(shape=(40, 60, 50), spacing_mm=(1.0, 1.0, 1.0)):
    """A brain in black, with a lesion at the patient's left: scan, brain and labels."""
    z, y, x = np.ix_(*(np.arange(n) - n / 2 for n in shape))
    brain = (z / shape[0]) ** 2 + (y / shape[1]) ** 2 + (x / shape[2]) ** 2 < 0.16
    lesion = (np.abs(z) < 5) & (np.abs(y) < 6) & (np.abs(x - 10) < 6)
    affine = np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]]
    return Volume(brain * 100.0, affine), brain, LabelMap(lesion.astype(np.uint8), affine)


def look(content):
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "WEBP"
    return np.asarray(picture.convert("RGB"), np.float64) / 255


def near(picture, colour):
    """Pixels of about a colour."""
    return np.abs(picture - colour).sum(-1) < 0.5


def green(picture):
    """Pixels of the outline, whose colour the compression spreads."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    return green - np.maximum(red, blue) > 0.1


def test_three_slices_stand_side_by_side_with_the_lesion_and_the_outline_of_the_brain():
    scan, brain, labels = make()
    picture = look(draw_thumbnail(labels, RED, scan, brain))
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    for cell in np.split(picture, 3, axis=1):
        assert near(cell, RED[1]).any()
        assert green(cell).sum() > 50
        assert near(cell[:4, :4], (0, 0, 0)).all()


def test_the_left_of_the_patient_is_at_the_right():
    scan, brain, labels = make()
    axial = look(draw_thumbnail(labels, RED, scan, brain))[:, :CELL]
    columns = np.flatnonzero(near(axial, RED[1]).any(0))
    assert columns.min() > CELL / 2


def test_without_a_brain_there_is_no_outline_and_without_a_scan_the_labels_are_on_black():
    scan, _, labels = make()
    assert not green(look(draw_thumbnail(labels, RED, scan))).any()
    alone = look(draw_thumbnail(labels, RED))
    assert near(alone, RED[1]).any()
    assert near(alone, (0, 0, 0)).mean() > 0.8


@pytest.mark.parametrize("shape", [(6, 60, 50), (1, 60, 50), (40, 3, 50)])
def test_thick_slices_and_thin_stacks_are_drawn(shape):
    scan, brain, labels = make(shape, (6.5, 1.0, 1.0))
    assert look(draw_thumbnail(labels, RED, scan, brain)).shape == (SIZE[1], SIZE[0], 3)


def test_without_a_lesion_the_middle_of_the_brain_is_shown():
    scan, brain, labels = make()
    empty = labels.with_array(np.zeros_like(labels.array))
    assert green(look(draw_thumbnail(empty, RED, scan, brain))).sum() > 150


def test_a_scan_of_another_shape_is_refused():
    scan, _, labels = make()
    with pytest.raises(GridMismatch, match=r"the label map is \(40, 60, 50\) but the scan is \(39, 60, 50\)"):
        draw_thumbnail(labels, RED, Volume(scan.array[1:], scan.affine))


def test_a_thumbnail_has_few_bytes(rng):
    scan, brain, labels = make((80, 120, 120))
    noisy = scan.with_array(scan.array * (1 + 0.2 * rng.normal(size=scan.shape)))
    assert len(draw_thumbnail(labels, RED, noisy, brain)) < 16_000
