"""Slices become a volume: order, tilt, gaps, and what is refused. A linear image shows where every value came from."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from brainsegnet.errors import ImageError
from brainsegnet.io.dicom_geometry import build_stack, find_axes
from brainsegnet.io.dicom_headers import Frame, SeriesHeader
from brainsegnet.volume import LabelMap, is_sheared

STEP, SPACING, SIZE = 3.0, (0.9, 0.8), (20, 16)


def make_frames(heights, turn=None, tilt_mm=0.0, step_noise=0.0):
    """Axial slices at some heights, turned; each further one is moved by `tilt_mm` for each mm along the rows."""
    turn = np.eye(3) if turn is None else turn
    noise = np.random.default_rng(0).uniform(-step_noise, step_noise, (len(heights), 6))
    return [
        Frame(
            f"{i:03d}",
            0,
            str(i),
            *SIZE,
            SPACING,
            tuple(turn @ (5.0, 7.0 + tilt_mm * height, height)),
            tuple(np.concatenate([turn[:, 0], turn[:, 1]]) + noise[i]),
            SeriesHeader(),
        )
        for i, height in enumerate(heights)
    ]


def world_of(frame):
    """Places (H, W, 3) of the voxels of a slice."""
    along_row, along_column = np.reshape(frame.orientation, (2, 3))
    h, w = np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij")
    rows, columns = (h * SPACING[0])[..., None] * along_column, (w * SPACING[1])[..., None] * along_row
    return np.array(frame.position) + rows + columns


def linear(places):
    return (places @ (0.3, -0.7, 1.1) + 100).astype(np.float32)


def grid_of(stack):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in stack.shape], indexing="ij"), axis=-1)
    return index @ stack.affine[:3, :3].T + stack.affine[:3, 3]


def check_values(stack, margin=0):
    """The volume has the values of the linear image where its affine says it is; `margin` rows are outside slices."""
    volume = stack.assemble(np.stack([linear(world_of(frame)) for frame in stack.frames]))
    assert volume.shape == stack.shape
    inner = (slice(None), slice(margin, stack.shape[1] - margin))
    np.testing.assert_allclose(volume[inner], linear(grid_of(stack))[inner], atol=2e-2)


@given(st.permutations(range(7)), st.integers(0, 10_000))
def test_slices_in_any_order_and_direction_make_the_same_volume(order, seed):
    turn = Rotation.random(random_state=seed).as_matrix()
    frames = make_frames([STEP * i for i in range(7)], turn)
    stack = build_stack([frames[i] for i in order])
    assert [frame.file for frame in stack.frames] == [frame.file for frame in frames]
    assert not stack.notes and stack.shape == (7, *SIZE) and not is_sheared(stack.affine)
    check_values(stack)


def test_orientations_that_differ_by_rounding_are_one():
    stack = build_stack(make_frames([STEP * i for i in range(9)], step_noise=3e-8))
    assert not stack.notes and not is_sheared(stack.affine)
    np.testing.assert_allclose(find_axes(stack.frames) @ find_axes(stack.frames).T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("degrees", [-14, 5, 20])
def test_a_tilt_is_brought_to_right_angles(degrees):
    stack = build_stack(make_frames([STEP * i for i in range(8)], tilt_mm=np.tan(np.radians(degrees))))
    assert stack.notes == (f"slices are tilted by {abs(degrees):.1f} degrees; brought to right angles",)
    assert not is_sheared(stack.affine) and stack.shape[1] > SIZE[0]
    drift = round(7 * STEP * np.tan(np.radians(abs(degrees))) / SPACING[0]) + 1
    check_values(stack, margin=drift)


@pytest.mark.parametrize("turned", [False, True])
def test_one_missing_slice_is_filled(turned):
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() if turned else None
    stack = build_stack(make_frames([0, 3, 6, 12, 15], turn))
    assert stack.shape[0] == 6 and stack.notes[0].startswith(
        "1 slice is missing, the first gap is between 6.0 and 12.0"
    )
    check_values(stack)


def test_uneven_steps_are_interpolated():
    stack = build_stack(make_frames([0, 3, 6.5, 9, 12.4, 15]))
    assert stack.shape[0] == 6 and "the steps between slices differ, from 2.50 to 3.50 mm" in stack.notes[0]
    check_values(stack)


def test_small_differences_between_steps_are_rounding():
    assert not build_stack(make_frames([0, 3.0, 6.05, 9, 12])).notes


@pytest.mark.parametrize(
    ("heights", "said"),
    [
        ([0, 0, 0, 0], "all 4 images are at one place, they make no volume"),
        ([0, 3], "2 slices make no volume, 3 are due"),
        ([0], "1 slice makes no volume, 3 are due"),
        ([0, 3, 6, 6, 9], "5 images are at 4 places, and the headers do not tell them apart"),
        ([0, 3, 6, 30, 33, 36], "slices are missing, the widest gap is between 6.0 and 30.0 mm"),
        ([0, 3, 9, 12, 18, 21, 27, 33, 39], "slices are missing"),
    ],
)
def test_what_makes_no_volume_is_refused(heights, said):
    with pytest.raises(ImageError) as caught:
        build_stack(make_frames(heights))
    assert said in str(caught.value)


def test_slices_beside_each_other_are_refused():
    frames = make_frames([0, 3, 6, 9, 12])
    frames[2] = replace(frames[2], position=(5.0, 27.0, 6.0))
    with pytest.raises(ImageError, match="do not follow each other on a line"):
        build_stack(frames)


def test_steep_tilts_are_refused():
    with pytest.raises(ImageError, match="tilted by 60 degrees"):
        build_stack(make_frames([0, 3, 6, 9], tilt_mm=np.tan(np.radians(60))))


@pytest.mark.parametrize(("heights", "tilt"), [([0, 3, 6, 9, 12], 0.0), ([0, 3, 6, 9, 12], 0.3), ([0, 3, 9, 12], 0.2)])
def test_labels_go_back_to_the_slices_of_the_files(heights, tilt):
    stack = build_stack(make_frames(heights, tilt_mm=tilt))
    centre = world_of(stack.frames[1])[10, 8]
    labels = LabelMap((np.linalg.norm(grid_of(stack) - centre, axis=-1) < 4).astype(np.uint8), stack.affine)
    back = stack.back_to_slices(labels)
    truth = np.stack([np.linalg.norm(world_of(frame) - centre, axis=-1) < 4 for frame in stack.frames])
    assert back.shape == (len(heights), *SIZE)
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > (0.999 if not stack.notes else 0.9)


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "shape", "step", "said"),
    [
        ("gantrytilting/001", (4, 521, 512), 4.8515, "slices are tilted by 14.0 degrees"),
        ("sliceincrement/001", (5, 512, 512), 5.0, "1 slice is missing"),
        ("sliceincrement/002", (5, 514, 512), 0.7497, "slices are tilted by 15.5 degrees"),
        ("notavolume/001", None, None, "all 4 images are at one place"),
        ("slicecount/001", None, None, "2 slices make no volume"),
        ("sliceorientation/001", None, None, "one of 2 orientations or sizes in it, cannot be used: 2 slices"),
    ],
)
def test_broken_series_are_corrected_or_refused(real_data, folder, shape, step, said):
    """Most of them are CT, so the check of the modality is left out."""
    from brainsegnet.io.dicom import Refusal, build_series, read_file
    from brainsegnet.io.dicom_files import list_files, read_each

    root = real_data / "dicom/series/failing" / folder
    frames = [frame for part in read_each(root, list_files(root), read_file) for frame in part]
    made = list(build_series(root, frames))
    if shape is None:
        assert all(isinstance(part, Refusal) for part in made) and said in str(made[0])
        return
    (series,) = made
    assert series.shape == shape and series.spacing_mm[0] == pytest.approx(step, abs=1e-3)
    assert any(said in note for note in series.notes)
    volume = series.read()
    assert volume.shape == shape and not is_sheared(volume.affine) and np.isfinite(volume.array).all()
