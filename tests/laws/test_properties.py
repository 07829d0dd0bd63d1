"""Laws that hold for any scan and label map: hypothesis looks for a counterexample. Files: `io/test_round_trips.py`."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from brainsegnet.io.aliases import find_sequence
from brainsegnet.metrics.scores import dice
from brainsegnet.metrics.shapes import surface_distances
from brainsegnet.preprocessing.geometry import Turn, find_turn, slab_starts, turn
from brainsegnet.preprocessing.prepare import OutsideLabels, crop, put_back
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, Task
from brainsegnet.volume import Box, Volume

SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, max_side=6)
MASKS = SHAPES.flatmap(lambda shape: arrays.arrays(bool, shape))
SCANS = SHAPES.flatmap(lambda shape: arrays.arrays(np.int16, shape, elements=st.integers(-1000, 1000)))
WORDS = st.text("abcdefgh", min_size=1, max_size=6)


@st.composite
def affines(draw):
    """Of any grid with voxels of 0.3 to 8 mm: turned by any angles, mirrored or not, anywhere."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 8)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 0] *= draw(st.sampled_from([1, -1]))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return affine


@st.composite
def tasks(draw):
    """Up to six tissues under any values."""
    values = draw(st.lists(st.integers(1, 255), min_size=1, max_size=6, unique=True))
    tissues = draw(st.lists(WORDS, min_size=len(values), max_size=len(values), unique=True))
    labels = dict(zip(values, tissues, strict=True))
    return Task(name="any", sequences=("t1",), labels=labels, regions={"whole": tuple(values)})


@given(SCANS, affines())
def test_an_upright_scan_is_upright_and_goes_back(array, affine):
    scan = Volume(array, affine)
    how = find_turn(affine)
    upright = turn(scan, how)
    assert find_turn(upright.affine) == Turn()
    back = turn(upright, how.inverse)
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)


@given(SCANS, affines())
def test_a_turn_leaves_each_voxel_where_it_is_in_the_patient(array, affine):
    numbered = Volume(np.arange(array.size).reshape(array.shape), affine)
    turned = turn(numbered, find_turn(affine))
    for index in np.ndindex(turned.shape):
        before = np.unravel_index(turned.array[index], array.shape)
        np.testing.assert_allclose(turned.affine @ (*index, 1), affine @ (*before, 1), atol=1e-6)


@given(SCANS, st.integers(1, 8))
def test_slabs_make_the_scan_that_they_were_cut_from(array, thickness):
    whole = np.full_like(array, -1)
    for start in slab_starts(len(array), thickness):
        slab = array[start : start + thickness]
        assert len(slab) == min(thickness, len(array))
        whole[start : start + thickness] = slab
    np.testing.assert_array_equal(whole, array)


@given(MASKS.filter(np.any), affines())
def test_the_box_around_a_mask_holds_it_and_is_put_back(mask, affine):
    box = Box.around(mask)
    part = crop(Volume(mask, affine), box)
    np.testing.assert_array_equal(put_back(part.array, box, mask.shape), mask)
    np.testing.assert_allclose(part.affine[:3, 3], (affine @ (*box.start, 1))[:3], atol=1e-9)


@given(st.data(), SHAPES)
def test_labels_around_a_box_are_not_lost(data, shape):
    labels = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 4)))
    starts = [data.draw(st.integers(0, side - 1)) for side in shape]
    stops = [data.draw(st.integers(start + 1, side)) for start, side in zip(starts, shape, strict=True)]
    box = Box(tuple(starts), tuple(stops))
    np.testing.assert_array_equal(OutsideLabels.of(labels, box).complete(labels[box.slices]), labels)


@given(st.data(), tasks())
def test_classes_and_label_values_are_two_names_of_one_thing(data, task):
    labels = data.draw(arrays.arrays(np.uint8, 20, elements=st.sampled_from(task.label_values)))
    classes = task.encode(labels)
    assert classes.max(initial=0) < task.classes
    np.testing.assert_array_equal(task.decode(classes), labels)


@given(st.data(), tasks())
def test_labels_go_to_another_convention_of_the_same_tissues_and_back(data, task):
    values = data.draw(st.permutations(range(1, 256)))[: len(task.labels)]
    other = Task(
        name="other",
        sequences=task.sequences,
        labels=dict(zip(values, task.labels.values(), strict=True)),
        regions={"whole": tuple(values)},
    )
    labels = data.draw(arrays.arrays(np.uint8, 20, elements=st.sampled_from(task.label_values)))
    np.testing.assert_array_equal(task.translate(other.translate(labels, task), other), labels)


@pytest.mark.parametrize("source", [BRATS2015, BRATS2023], ids=lambda task: task.name)
@given(st.data())
def test_regions_stay_where_they_are_when_labels_are_translated(source, data):
    labels = data.draw(arrays.arrays(np.uint8, 30, elements=st.sampled_from(source.label_values)))
    translated = BRATS2021.translate(labels, source)
    for region, values in BRATS2021.regions.items():
        np.testing.assert_array_equal(np.isin(translated, values), np.isin(labels, source.regions[region]))


@given(MASKS, st.data())
def test_scores_are_symmetric_and_perfect_for_the_truth_alone(mask, data):
    other = data.draw(arrays.arrays(bool, mask.shape))
    spacing = data.draw(st.tuples(*[st.floats(0.3, 8)] * 3))
    assert dice(mask, other) == dice(other, mask) and 0 <= dice(mask, other) <= 1
    assert (dice(mask, other) == 1) == np.array_equal(mask, other)
    there, back = surface_distances(mask, other, spacing), surface_distances(other, mask, spacing)
    assert surface_distances(mask, mask, spacing).hd95_mm() == 0 and there.hd95_mm() == back.hd95_mm()
    np.testing.assert_array_equal(there.from_predicted_mm, back.from_truth_mm)


@given(st.sampled_from(["flair", "t1ce", "T1Gd", "t2w", "rCBF"]), st.sampled_from(["", "_", "-", " "]), st.booleans())
def test_names_of_sequences_are_found_however_they_are_spelt(name, between, capital):
    spelt = between.join([name[:1], name[1:]])
    assert find_sequence(spelt.upper() if capital else spelt) == find_sequence(name)
