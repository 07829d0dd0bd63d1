"""Rigid registration against known motions: phantoms, simulated heads, and raw scans."""

import dataclasses

import numpy as np
import pytest

from brainsegnet.anatomy.heads import KINDS, HeadTissue, read_head
from brainsegnet.io.images import read_image
from brainsegnet.preprocessing.registration import (
    LEVELS_MM,
    RADIUS_MM,
    Pyramid,
    average,
    build_motion,
    check,
    climb,
    measure,
    register,
    to_matrix,
)
from brainsegnet.simulation.head import BRIGHTNESS, HEAD_SPACING_MM, SEQUENCES, HeadContrast, HeadPose, paint, place
from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.volume import Volume

MOTIONS = {"small": (2, 2), "large": (15, 15), "larger": (40, 22)}


@pytest.fixture(scope="module")
def phantom():
    return simulate_phantom(1, (48, 80, 80)).images


@pytest.fixture(scope="module")
def head(real_data):
    """A whole head as T1, T1c, T2 and FLAIR would show it; voxels of 2 mm, on one grid."""
    maps = sorted((real_data / "anatomy/synthseg_labels").glob("*.nii.gz"))
    placed = place(np.random.default_rng(0), read_head(maps[0]), HeadPose(np.eye(3), (20, -8, 0), (2, 0.5)))
    images = {}
    for name in ("t1", "t1c", "t2", "flair"):
        *tissues, fat, muscle = (row[SEQUENCES.index(name)] for row in BRIGHTNESS.values())
        values = np.full(KINDS, muscle, np.float32)
        values[: HeadTissue.SOFT], values[HeadTissue.SOFT : HeadTissue.SOFT + 2] = tissues, fat
        contrast = HeadContrast(values, np.full(KINDS, 0.05, np.float32), 4.0, ())
        image, _, _ = paint(np.random.default_rng(1), placed, contrast)
        images[name] = Volume(image, np.diag([HEAD_SPACING_MM] * 3 + [1.0])[[2, 1, 0, 3]])
    return images


def draw_motion(rng, mm, degrees):
    """(6,), in random directions; see `build_motion`."""
    shift, axis = rng.normal(size=(2, 3))
    tilt = np.radians(degrees) * RADIUS_MM * axis / np.linalg.norm(axis)
    return np.concatenate([mm * shift / np.linalg.norm(shift), tilt])


def moved(image, matrix):
    return dataclasses.replace(image, affine=matrix @ image.affine)


def slice_thickly(image, axis, factor):
    """Voxels averaged along one axis, as thick slices are; the plane is that of the other two."""
    n = image.shape[axis] // factor
    array = np.moveaxis(image.array, axis, 0)[: n * factor].astype(np.float32)
    array = np.moveaxis(array.reshape(n, factor, *array.shape[1:]).mean(1), 0, axis)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    affine[:3, axis] *= factor
    return Volume(array, affine)


def errors(found, truth, reference):
    """Mean distance in millimetres over the head, and the angle in degrees, between two motions (4, 4)."""
    base = Pyramid(reference)
    gap = (found - truth)[:3, :3] @ base.places + (found - truth)[:3, 3:]
    turned = found[:3, :3] @ truth[:3, :3].T
    return np.linalg.norm(gap, axis=0).mean(), np.degrees(np.arccos(min((np.trace(turned) - 1) / 2, 1)))


def assert_recovered(image, reference, mm, degrees, seed=0):
    motion = build_motion(draw_motion(np.random.default_rng(seed), mm, degrees), Pyramid(reference).centre)
    truth = to_matrix(motion)
    found = register(moved(image, truth), reference)
    gap_mm, angle = errors(found.matrix, truth, reference)
    assert gap_mm < 1 and angle < 1, f"{gap_mm:.2f} mm and {angle:.2f} degrees"
    assert found.clear


@pytest.mark.parametrize("level", range(len(LEVELS_MM)))
def test_a_climb_ends_higher_than_it_starts_and_near_the_top(phantom, level):
    fixed, image = Pyramid(phantom["flair"]), Pyramid(phantom["t2"])
    start = build_motion(draw_motion(np.random.default_rng(level), 3, 2), fixed.centre)
    ends = [start, climb(image, fixed, start, level), build_motion(np.zeros(6), fixed.centre)]
    before, after, top = (measure(image, fixed, motion, level) for motion in ends)
    assert before < after and after - before > 0.9 * (top - before)


def test_averaging_keeps_the_places_of_voxels(rng):
    affine = np.diag([5.5, 0.9, 0.9, 1])[[2, 1, 0, 3]]
    index = np.stack([*np.meshgrid(*map(np.arange, (7, 21, 22)), indexing="ij"), np.ones((7, 21, 22))], -1)
    plane = Volume((index @ affine.T)[..., :3] @ (1.0, -2.0, 3.0), affine)
    coarse = average(plane, 4.0)
    assert coarse.shape == (7, 5, 5)
    places = (index[:7, :5, :5] @ coarse.affine.T)[..., :3]
    np.testing.assert_allclose(coarse.array, places @ (1.0, -2.0, 3.0), rtol=1e-5)


def test_mutual_information_with_itself_is_the_highest_and_does_not_mind_the_contrast(phantom):
    """Of a bijective function of an image, mutual information is that of the image with itself."""
    t1 = Pyramid(phantom["t1"])
    still, far, aside = (build_motion((mm, 0, 0, 0, 0, 0), t1.centre) for mm in (0, 900, 150))
    own = measure(t1, t1, still, 2)
    inverted = Pyramid(phantom["t1"])
    inverted._levels[2] = 2 - t1.level(2)
    assert measure(inverted, t1, still, 2) == pytest.approx(own, rel=0.02)
    assert 0 < measure(Pyramid(phantom["flair"]), t1, still, 2) < own
    assert measure(t1, t1, far, 2) == measure(t1, t1, aside, 2) == 0


def test_images_without_a_common_point_are_brought_together(phantom):
    assert_recovered(phantom["t2"], phantom["flair"], 300, 5)


@pytest.mark.parametrize(("mm", "degrees"), MOTIONS.values(), ids=MOTIONS)
@pytest.mark.parametrize("axis", [1, 2])
def test_thick_slices_in_other_planes_are_registered(phantom, axis, mm, degrees):
    assert_recovered(slice_thickly(phantom["t2"], axis, 2), phantom["t1c"], mm, degrees, axis)


@pytest.mark.parametrize("degrees", [0, 0.2])
def test_a_motion_too_small_to_matter_is_no_motion(phantom, degrees):
    centre = Pyramid(phantom["flair"]).centre
    motion = build_motion(draw_motion(np.random.default_rng(2), 0.2, degrees), centre)
    image = moved(phantom["t1"], to_matrix(motion))
    assert check(Pyramid(image), Pyramid(phantom["flair"])) is None


@pytest.mark.real
@pytest.mark.parametrize(("mm", "degrees"), MOTIONS.values(), ids=MOTIONS)
@pytest.mark.parametrize(("fixed", "image"), [("t1c", "t2"), ("flair", "t1"), ("t2", "flair")])
def test_known_motions_of_simulated_heads_are_recovered(head, fixed, image, mm, degrees):
    """Axial slices of 6 mm against sagittal ones of 6 mm."""
    thick = slice_thickly(head[fixed], 0, 3), slice_thickly(head[image], 2, 3)
    assert_recovered(thick[1], thick[0], mm, degrees)


@pytest.mark.real
@pytest.mark.parametrize("fault", ["cut", "noise"])
def test_a_cut_or_noisy_head_is_registered(head, fault):
    t2, flair = head["t2"], head["flair"]
    if fault == "cut":
        beside = np.eye(4)
        beside[2, 3] = t2.shape[2] // 3
        t2 = Volume(t2.array[:, :, t2.shape[2] // 3 :], t2.affine @ beside)
    else:
        noise = np.random.default_rng(4).normal(0, 0.25, (2, *t2.shape))
        t2 = t2.with_array(np.hypot(t2.array + noise[0], noise[1]))
    assert_recovered(t2, flair, 10, 10)


@pytest.mark.real
@pytest.mark.parametrize(("fixed", "image"), [("flair", "t2"), ("t1c", "flair"), ("t1", "t1c")])
def test_a_known_motion_of_a_raw_scan_is_recovered(real_data, fixed, image):
    """The scan is registered as it is, then moved further: the second registration must find both motions."""
    folder = real_data / "raw/tcga-fg-6692"
    images = [read_image(folder / f"TCGA-FG-6692_{name}.nii.gz") for name in (fixed, image)]
    plain = register(images[1], images[0])
    assert plain.after > 1.3 * plain.before, "the headers lie"
    centred = moved(images[1], np.linalg.inv(plain.matrix))
    assert_recovered(centred, images[0], 12, 12)


@pytest.mark.real
def test_three_raw_scans_agree_on_how_they_lie(real_data):
    """From FLAIR to T1 and on to T2 leads where the way from FLAIR to T2 leads."""
    folder = real_data / "raw/tcga-fg-6692"
    images = {name: Pyramid(read_image(folder / f"TCGA-FG-6692_{name}.nii.gz")) for name in ("flair", "t1", "t2")}
    first, second = register(images["t1"], images["flair"]), register(images["t2"], images["t1"])
    direct = register(images["t2"], images["flair"])
    gap_mm, angle = errors(second.matrix @ first.matrix, direct.matrix, images["flair"].volume)
    assert gap_mm < 1 and angle < 1
