"""Whole phantoms: one seed governs all, on one consistent grid."""

import numpy as np
import pytest

from brainsegnet.anatomy.procedural import Tissue, simulate_anatomy, spacing_for
from brainsegnet.errors import ImageError
from brainsegnet.simulation.phantom import DEMO_SHAPE, simulate_phantom
from brainsegnet.task import BRATS2015

SMALL = (30, 48, 41)


def as_bytes(case):
    return [v.array.tobytes() for v in (*case.images.values(), case.lesion)]


@pytest.fixture(scope="module")
def demo():
    return simulate_phantom(11)


def test_same_seed_same_bytes():
    assert as_bytes(simulate_phantom(4, SMALL)) == as_bytes(simulate_phantom(4, SMALL))


def test_another_seed_differs_in_every_array():
    pairs = zip(as_bytes(simulate_phantom(4, SMALL)), as_bytes(simulate_phantom(5, SMALL)), strict=True)
    assert all(first != second for first, second in pairs)


def test_the_anatomy_is_replayed_from_its_own_stream():
    for_anatomy, *_ = np.random.default_rng(4).spawn(3)
    head = simulate_anatomy(for_anatomy, SMALL)
    case = simulate_phantom(4, SMALL)
    assert np.array_equal(case.images["t1"].array > 0, head != Tissue.BACKGROUND)


def test_a_phantom_is_a_case_of_the_task(demo):
    assert tuple(demo.images) == BRATS2015.sequences
    assert demo.reference.shape == DEMO_SHAPE
    BRATS2015.check(demo.lesion.array, demo.name)
    counts = np.bincount(demo.lesion.array.ravel(), minlength=5)
    assert counts[1:].min() >= 50


def test_the_lesion_lies_in_the_brain_and_the_background_is_0(demo):
    brain = demo.images["flair"].array > 0
    assert all(np.array_equal(image.array > 0, brain) for image in demo.images.values())
    assert brain[demo.lesion.array > 0].all()


def test_the_grid_is_that_of_a_patient(demo):
    assert demo.lesion.on_grid_of(demo.reference)
    assert demo.reference.spacing_mm == pytest.approx(spacing_for(DEMO_SHAPE))
    up, back, left = demo.reference.affine[:3, :3].T
    assert up[2] > 0
    assert back[1] > 0
    assert left[0] > 0
    litres = np.count_nonzero(demo.images["t1"].array) * demo.reference.voxel_ml / 1000
    assert 1.1 < litres < 1.8


def test_slices_run_upwards_and_rows_to_the_back(demo):
    affine, brain = demo.reference.affine, demo.images["t1"].array > 0
    index = np.argwhere(brain)
    xyz = index @ affine[:3, :3].T + affine[:3, 3]
    low = xyz[xyz[:, 2] < -55]
    assert low[:, 1].mean() > 15, "cerebellum and stem lie low and to the back"
    assert abs(xyz[:, 0].mean()) < 5


@pytest.mark.parametrize("shape", [(25, 33, 35), (31, 97, 40)])
def test_any_shape(shape):
    case = simulate_phantom(0, shape, name="odd")
    assert case.name == "odd"
    assert case.lesion.shape == case.reference.shape == shape
    assert set(np.unique(case.lesion.array)) == {0, 1, 2, 3, 4}


def test_too_small_a_shape_is_refused():
    with pytest.raises(ImageError, match="too coarse"):
        simulate_phantom(0, (12, 128, 128))


def test_the_classes_can_be_told_apart(demo):
    """A nearest-centroid rule on the four sequences, fitted on half of the voxels, beats chance by far on the rest."""
    labels = demo.lesion.array[demo.lesion.array > 0]
    features = np.stack([np.log(v.array[demo.lesion.array > 0]) for v in demo.images.values()], axis=1)
    features /= features.std(axis=0)
    centroids = np.stack([features[::2][labels[::2] == k].mean(axis=0) for k in (1, 2, 3, 4)])
    guess = 1 + np.argmin(np.linalg.norm(features[1::2, None] - centroids, axis=2), axis=1)
    recalls = [np.mean(guess[labels[1::2] == k] == k) for k in (1, 2, 3, 4)]
    assert 0.5 < np.mean(recalls) < 0.99
