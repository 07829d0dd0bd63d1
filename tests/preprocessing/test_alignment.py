import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.transform import Rotation

from brainsegnet.errors import GridMismatch, ImageError, MissingSequence
from brainsegnet.preprocessing.alignment import (
    Aligner,
    _doubt,
    align,
    choose_reference,
    measure_distance,
    resample,
)
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.registration import Registration, register
from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.volume import Forms, LabelMap, Volume

MOTIONS = {"small": ((2, -1, 3), (3, -2, 1)), "large": ((-8, 5, 10), (-9, 6, 8))}


@pytest.fixture(scope="module")
def phantom():
    return simulate_phantom(1, (48, 80, 80))


def motion(volume, degrees, shift_mm):
    """(4, 4), in the world: about the middle of the volume."""
    middle = volume.affine[:3] @ (*((n - 1) / 2 for n in volume.shape), 1)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetRotation(*np.radians(degrees).tolist())
    transform.SetTranslation([float(mm) for mm in shift_mm])
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return matrix


def moved(volume, matrix):
    """The patient moved, the scanner did not: the same voxels elsewhere in the world."""
    return dataclasses.replace(volume, affine=matrix @ volume.affine)


def matrix_of(found):
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(found.transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = found.transform.TransformPoint((0.0, 0.0, 0.0))
    return matrix


def errors(found, truth, volume):
    """Mean distance in millimetres over the voxels of the head, and the angle in degrees, between two motions."""
    inside = np.argwhere(volume.array != volume.array[0, 0, 0])[::97]
    points = np.c_[inside, np.ones(len(inside))] @ volume.affine.T
    gap = np.linalg.norm((points @ (found - truth).T)[:, :3], axis=1)
    turn = found[:3, :3] @ truth[:3, :3].T
    return gap.mean(), np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))


@pytest.mark.parametrize(("degrees", "shift_mm"), MOTIONS.values(), ids=MOTIONS)
@pytest.mark.parametrize("sequence", ["t1c", "t2"])
def test_a_known_motion_is_recovered_within_half_a_voxel_and_a_degree(phantom, sequence, degrees, shift_mm):
    flair = phantom.images["flair"]
    truth = motion(flair, degrees, shift_mm)
    found = register(moved(phantom.images[sequence], truth), flair)
    gap_mm, angle = errors(matrix_of(found), truth, flair)
    assert gap_mm < min(flair.spacing_mm) / 2 and angle < 1
    assert found.clear
    assert found.translation_mm == pytest.approx(np.linalg.norm(shift_mm), abs=min(flair.spacing_mm) / 2)
    total = np.degrees(np.arccos((np.trace(truth[:3, :3]) - 1) / 2))
    assert found.rotation_degrees == pytest.approx(total, abs=1)


def test_the_same_images_give_the_same_motion_whatever_the_number_of_threads(phantom):
    flair = phantom.images["flair"]
    t2 = moved(phantom.images["t2"], motion(flair, *MOTIONS["small"]))
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    results = []
    try:
        for number in (1, 2, 5):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
            found = register(t2, flair)
            results.append((found.transform.GetParameters(), found.before, found.after))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert results[0] == results[1] == results[2]


def test_a_scan_on_thick_oblique_slices_is_brought_back_to_where_it_was(phantom):
    """The aligned image agrees with the one that never moved, far better than the one its headers place."""
    flair, t2 = phantom.images["flair"], phantom.images["t2"]
    thick = Volume(t2.array[::2], t2.affine @ np.diag([2, 1, 1, 1.0]))
    aligner = Aligner("pat1", registers=True)
    back = aligner("t2", moved(thick, motion(flair, *MOTIONS["large"])), flair)
    left = resample(moved(thick, motion(flair, *MOTIONS["large"])), flair)
    assert back.on_grid_of(flair)
    apart, before = (np.abs(image.array - t2.array).mean() for image in (back, left))
    assert apart < 0.3 * before
    told = aligner.to_json()["t2"]
    assert told["how"] == "registered" and told["applied"] and told["warning"] == ""
    assert told["mutual_information_after"] > told["mutual_information_before"]


def test_labels_follow_the_sequence_they_were_drawn_on(phantom):
    flair = phantom.images["flair"]
    matrix = motion(flair, *MOTIONS["large"])
    aligner = Aligner("pat1", registers=True)
    aligner("t2", moved(phantom.images["t2"], matrix), flair)
    truth = phantom.lesion.array > 0
    followed = aligner("lesion", moved(phantom.lesion, matrix), flair)
    left = resample(moved(phantom.lesion, matrix), flair)
    assert isinstance(followed, LabelMap) and followed.on_grid_of(flair)

    def overlap(labels):
        return 2 * (truth & (labels.array > 0)).sum() / (truth.sum() + (labels.array > 0).sum())

    assert overlap(followed) > 0.85 > 0.6 > overlap(left)
    other = LabelMap(phantom.lesion.array[1:], phantom.lesion.affine)
    assert np.array_equal(aligner("lesion", other, flair).array, resample(other, flair).array)


def test_what_registration_returns_agrees_no_less_than_where_headers_place_it(phantom):
    """An image that lies right already gains nothing: it may move by a hair, or stay, and then it says so."""
    flair, t1 = phantom.images["flair"], phantom.images["t1"]
    cropped = Volume(t1.array[:, 1:], t1.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    aligner = Aligner("pat1", registers=True)
    image = aligner("t1", cropped, flair)
    motion = aligner.moved["t1"]
    assert motion.registration.translation_mm < 0.5 and motion.registration.rotation_degrees < 0.5
    assert not aligner.warnings
    if not motion.registration.better:
        assert motion.how == "resampled" and np.array_equal(image.array, resample(cropped, flair).array)


def test_headers_of_another_world_are_bridged_and_doubted(phantom):
    flair = phantom.images["flair"]
    truth = motion(flair, (3, 0, -4), (400, -300, 250))
    aligner = Aligner("pat1", registers=True)
    aligner("t2", moved(phantom.images["t2"], truth), flair)
    found = aligner.moved["t2"].registration
    gap_mm, angle = errors(matrix_of(found), truth, flair)
    assert gap_mm < min(flair.spacing_mm) / 2 and angle < 1 and found.before == 0
    assert "more than a patient is likely to move" in aligner.warnings["t2"]


def test_a_registration_that_is_no_better_is_told_and_not_applied(phantom, monkeypatch):
    worse = Registration(np.eye(4), 0.5, 0.4, 40.0, 1.0)
    monkeypatch.setattr("brainsegnet.preprocessing.alignment.register", lambda moving, reference: worse)
    flair, t2 = phantom.images["flair"], moved(phantom.images["t2"], motion(phantom.reference, *MOTIONS["small"]))
    aligner = Aligner("a", registers=True)
    assert np.array_equal(aligner("t2", t2, flair).array, resample(t2, flair).array)
    told = aligner.to_json()["t2"]
    assert told["how"] == "resampled" and not told["applied"]
    assert "stays where its headers place it" in aligner.warnings["t2"]


@pytest.mark.parametrize(("value", "sentence"), [(np.nan, "NaN or infinite values"), (7, "is 7 everywhere")])
def test_an_image_that_cannot_be_registered_is_refused(phantom, value, sentence):
    flair = phantom.images["flair"]
    bad = Volume(np.full((8, 8, 8), value, np.float32), flair.affine)
    with pytest.raises(ImageError, match=f"case pat1: t2 cannot be registered: .*{sentence}"):
        Aligner("pat1", registers=True)("t2", bad, flair)


def test_without_registration_images_are_resampled_only(phantom):
    flair, t2 = phantom.images["flair"], moved(phantom.images["t2"], motion(phantom.reference, *MOTIONS["small"]))
    aligner = Aligner("pat1")
    assert np.array_equal(aligner("t2", t2, flair).array, resample(t2, flair).array)
    assert aligner.to_json() == {"t2": {"how": "resampled"}} and not aligner.warnings


def test_the_reference_has_the_thinnest_slices_and_ties_go_by_the_order():
    sizes = {"flair": (5, 1, 1), "t1": (1, 1, 1), "t1c": (0.5, 1.01, 0.5), "t2": (1, 4, 1)}
    images = {name: Volume(np.zeros((4, 4, 4)), grid(mm)) for name, mm in sizes.items()}
    assert choose_reference(images) == "t1"
    assert choose_reference(images, ("t1c", "t1")) == "t1c" and choose_reference(images, ("t2", "flair")) == "t1"
    assert choose_reference(images, named="t2") == "t2"
    with pytest.raises(MissingSequence, match="dwi cannot be the reference, it is not there; choose one of flair, t1"):
        choose_reference(images, named="dwi")


def test_sequences_on_one_grid_that_lie_on_each_other_stay(phantom):
    alignment = align("a", phantom.images)
    assert {motion.how for motion in alignment.motions.values()} == {"in place"}
    assert alignment.reference == "flair" and list(alignment.motions) == list(phantom.images)
    assert alignment.to_json() == {name: {"how": "in place"} for name in phantom.images}
    aligner = Aligner("a", registers=True)
    assert aligner("t2", phantom.images["t2"], phantom.images["flair"]) is phantom.images["t2"] and not aligner.moved


def test_a_motion_between_sequences_on_one_grid_is_found_and_told(phantom):
    """The scanner did not move, the head did: the voxels show it, the headers do not."""
    flair, t2 = phantom.images["flair"], phantom.images["t2"]
    truth = motion(flair, (3, -3, 3), (3, 3, -3))
    on_grid = resample(moved(t2, truth), flair)
    alignment = align("a", {"flair": flair, "t2": on_grid})
    found = alignment.motions["t2"]
    assert found.how == "registered" and found.registration.clear
    gap_mm, angle = errors(found.registration.matrix, truth, flair)
    assert gap_mm < 1 and angle < 1
    assert alignment.warnings["t2"].startswith("it shares the grid of flair, but registration moved it by 5.")


def test_the_matrix_in_the_report_is_from_the_reference_in_axes_to_the_right_and_front(phantom):
    flair = phantom.images["flair"]
    truth = motion(flair, (0, 0, 6), (10, -5, 3))
    told = align("a", {"flair": flair, "t2": moved(phantom.images["t2"], truth)}, reference="flair").to_json()["t2"]
    to_ras = np.diag([-1, -1, 1, 1])
    np.testing.assert_allclose(told["matrix_ras"], to_ras @ truth @ to_ras, atol=1)
    assert told["matrix_ras"][1][0] == pytest.approx(np.sin(np.radians(6)), abs=0.02)


def test_a_motion_of_no_patient_is_refused_with_its_likely_cause(phantom):
    flair = phantom.images["flair"]
    for turned, shift_mm in (((0, 0, 0), (90, 0, 0)), ((0, 0, 34), (0, 0, 0))):
        images = {"flair": flair, "t2": moved(phantom.images["t2"], motion(flair, turned, shift_mm))}
        with pytest.raises(ImageError, match=r"case a: t2 fits flair only if it is moved by .* another patient"):
            align("a", images, reference="flair")


def test_headers_are_trusted_or_other_grids_refused_if_asked(phantom):
    flair = phantom.images["flair"]
    images = {"flair": flair, "t2": moved(phantom.images["t2"], motion(flair, *MOTIONS["small"]))}
    assert align("a", images, "resample").motions["t2"].to_json() == {"how": "resampled"}
    with pytest.raises(GridMismatch, match="case a: t2 and flair have the same shape, but their affines differ"):
        align("a", images, "refuse")
    assert align("a", phantom.images, "refuse").motions["t2"].how == "in place"
    far = {"flair": flair, "t2": moved(phantom.images["t2"], motion(flair, (0, 0, 0), (900, 0, 0)))}
    with pytest.raises(GridMismatch, match="t2 does not overlap flair"):
        align("a", far, "resample")


def grid(spacing, origin=(0, 0, 0), tilt=0.0):
    """Upright, tilted about x; spacing (D, H, W), origin (x, y, z)."""
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(spacing)[::-1]
    affine[:3, 3] = origin
    return affine


def plane(shape, affine, slope=(1.0, 2.0, -0.5), level=100.0):
    """An image that is linear in the world, which linear interpolation renders exactly."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    return Volume((index @ affine.T)[..., :3] @ slope + level, affine)


def test_a_plane_is_the_same_plane_on_another_grid():
    moving = plane((20, 24, 28), grid((2, 1.5, 1.5), (-15, -12, -14)))
    reference = plane((6, 9, 11), grid((1.7, 1.2, 0.9), (-5, -4, -3), tilt=0.3))
    moved = resample(moving, reference)
    assert moved.on_grid_of(reference) and moved.array.dtype == np.float32
    np.testing.assert_allclose(moved.array, reference.array, atol=1e-3)


def test_labels_keep_their_values_and_their_type(rng):
    labels = LabelMap(rng.choice([0, 1, 4], (6, 7, 8)).astype(np.uint8), grid((2, 1, 1)))
    moved = resample(labels, Volume(np.zeros((12, 7, 8)), grid((1, 1, 1))))
    assert isinstance(moved, LabelMap) and moved.array.dtype == np.uint8
    np.testing.assert_array_equal(moved.array[::2], labels.array)
    assert set(np.unique(moved.array)) <= {0, 1, 4}


@pytest.mark.parametrize("background", [0, -3.25])
def test_beyond_the_edge_lies_background(rng, background):
    array = np.pad(rng.random((3, 3, 3)), 1, constant_values=background)
    moved = resample(Volume(array, grid((1, 1, 1))), Volume(np.zeros((5, 5, 9)), grid((1, 1, 1))))
    np.testing.assert_allclose(moved.array[:5, :5, :5], array, rtol=1e-6)
    assert (moved.array[:, :, 5:] == background).all()


def test_labels_are_0_and_noisy_images_lowest_beyond_the_edge(rng):
    wide = Volume(np.zeros((2, 2, 4)), grid((1, 1, 1)))
    labels = resample(LabelMap(np.full((2, 2, 2), 3), grid((1, 1, 1))), wide)
    assert labels.array[0, 0].tolist() == [3, 3, 0, 0]
    noisy = Volume(rng.random((2, 2, 2)), grid((1, 1, 1)))
    np.testing.assert_allclose(resample(noisy, wide).array[:, :, 2:], noisy.array.min())


def test_a_volume_on_the_grid_is_left_alone():
    volume = plane((3, 4, 5), grid((1, 1, 1)))
    assert resample(volume, Volume(np.ones((3, 4, 5)), grid((1, 1, 1), (1e-4, 0, 0)))) is volume


@pytest.mark.parametrize("kind", [Volume, LabelMap])
def test_the_same_points_counted_along_other_axes_keep_every_value(rng, kind):
    """Also where the affine is oblique, and where interpolation would smear the edge of the brain by a rounding."""
    volume = kind(rng.integers(0, 99, (4, 5, 6)).astype(np.int16), grid((2, 1.3, 0.7), (-5, 4, 3), tilt=0.3))
    for axes, flips in [((1, 2, 0), (True, False, True)), ((2, 1, 0), (False, True, False))]:
        stored = turn(volume, Turn(axes, flips))
        back = resample(stored, volume)
        assert type(back) is kind and back.array.dtype == np.int16 and back.on_grid_of(volume)
        np.testing.assert_array_equal(back.array, volume.array)
        np.testing.assert_array_equal(resample(volume, stored).array, stored.array)


@pytest.mark.parametrize("background", [0, -3.25])
def test_a_stripped_brain_keeps_a_sharp_edge(rng, background):
    """No voxel is a little of both: interpolation by a rounding would make the brain a voxel larger all around."""
    array = np.full((12, 14, 16), background, np.float32)
    array[3:9, 4:10, 5:11] = rng.uniform(50, 60, (6, 6, 6))
    volume = Volume(array, grid((1, 1, 1)))
    nearly = resample(volume, Volume(np.zeros((12, 14, 17)), grid((1, 1, 1), (1e-7, -1e-7, 1e-7))))
    np.testing.assert_array_equal(nearly.array[:, :, :16] != background, array != background)
    between = resample(volume, Volume(np.zeros((12, 14, 17)), grid((1, 1, 1), (0.25, 0, 0)))).array
    brain = between != background
    assert brain.sum() == 6**3 and between[brain].min() > 0.7 * 50 + 0.3 * background
    tilted = resample(volume, Volume(np.zeros((16, 16, 16)), grid((1, 1, 1), (0, 0, 0), tilt=0.3))).array
    assert abs((tilted != background).sum() - 6**3) < 0.15 * 6**3


def box(start, size=(4, 5, 6), angles=(0, 0, 0)):
    """A grid of voxels of 1 mm, whose outer corner is at `start`, turned about the origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, 3] = affine[:3, :3] @ (np.array(start) + 0.5)
    return Volume(np.zeros(size, np.uint8), affine)


@pytest.mark.parametrize(
    ("start", "apart_mm"), [((0, 0, 0), 0), ((3.9, 0, 0), 0), ((4.5, 0, 0), 0.5), ((0, -7, 0), 2), ((9, 0, 1000), 994)]
)
def test_the_gap_between_upright_grids_is_that_along_the_widest_axis(start, apart_mm):
    assert measure_distance(box((0, 0, 0)), box(start)) == pytest.approx(apart_mm)
    assert measure_distance(box(start), box((0, 0, 0))) == pytest.approx(apart_mm)


def share_a_point(one, other):
    """By a linear program: is there a point in the world that is inside both?"""
    sides, ends = [], []
    for volume in (one, other):
        to_index = np.linalg.inv(volume.affine)
        for sign in (1, -1):
            sides += list(sign * to_index[:3, :3])
            edge = np.array(volume.shape) - 0.5 if sign == 1 else np.full(3, 0.5)
            ends += list(edge - sign * to_index[:3, 3])
    return linprog(np.zeros(3), sides, ends, bounds=(None, None)).status == 0


@given(st.tuples(*[st.floats(-12, 12)] * 3), st.tuples(*[st.sampled_from([0, 10, 45, -80])] * 3))
def test_grids_are_apart_exactly_where_no_point_is_in_both(start, angles):
    one, other = box((0, 0, 0)), box(start, (7, 2, 3), angles)
    gap = measure_distance(one, other)
    if gap == 0 or gap > 1e-6:
        assert (gap == 0) == share_a_point(one, other)


def test_a_sequence_that_lies_beside_the_first_is_refused_with_the_distance():
    moving = Volume(np.ones((4, 5, 6), np.float32), box((4.5 + 10, 0, 0)).affine)
    with pytest.raises(GridMismatch, match=r"case a: t1c does not overlap flair: the headers put them 10 mm apart"):
        Aligner("a", first="flair")("t1c", moving, box((0, 0, 0)))
    with pytest.raises(GridMismatch, match=r"case a: the label map does not overlap the first sequence"):
        Aligner("a")("lesion", LabelMap(moving.array.astype(np.uint8), moving.affine), box((0, 0, 0)))


def test_a_sequence_that_shows_nothing_where_the_first_lies_is_refused():
    array = np.zeros((8, 5, 6), np.float32)
    array[:2] = 7
    moving = Volume(array, box((0, 0, 0)).affine)
    with pytest.raises(GridMismatch, match="case a: t1c shows nothing where flair lies; check the headers"):
        Aligner("a", first="flair")("t1c", moving, box((4, 0, 0)))


def test_registration_bridges_a_gap_between_the_headers(phantom):
    flair = phantom.images["flair"]
    far = motion(flair, (0, 0, 0), (500, 0, 0))
    brought = Aligner("a", registers=True)("t1", moved(phantom.images["t1"], far), flair)
    np.testing.assert_allclose(brought.array, phantom.images["t1"].array, atol=phantom.images["t1"].array.max() / 20)


def test_what_is_brought_over_keeps_its_own_warnings_and_takes_the_forms_of_the_grid():
    forms = Forms(1, 2)
    reference = dataclasses.replace(box((0, 0, 0)), forms=forms)
    moving = Volume(np.arange(120, dtype=np.float32).reshape(4, 5, 6), box((0.5, 0, 0)).affine, warnings=("odd",))
    for kind in (moving, moving.with_labels(moving.array.astype(np.uint8))):
        brought = resample(kind, reference)
        assert (brought.forms, brought.warnings) == (forms, ("odd",))


def test_two_patients_in_one_study_are_warned_of_and_one_is_not():
    def registration(after):
        return Registration(np.eye(4), 0.1, after, 1.0, 2.0)

    assert "hardly agrees with flair" in _doubt(registration(0.4), "t1", "flair", False)
    assert _doubt(registration(0.7), "t1", "flair", False) == ""
    assert _doubt(registration(0.4), "adc", "dwi", False) == ""
