"""What is written is read back: any image in any format, and any set of cases in any layout."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hypothesis.extra.numpy as arrays
import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from brainsegnet.io.aliases import build_convention
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import from_nibabel, from_sitk, read_image, to_nibabel, to_sitk, write_image
from brainsegnet.io.layouts import smir_path, vsd_path
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2017, Task
from brainsegnet.volume import Volume

DTYPES = st.sampled_from(["?", "u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", ">u8", "e", "<f4", ">f4", "<f8"])
SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, max_side=6)
CASES = st.lists(st.text("abcxyz", min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


@st.composite
def volumes(draw):
    """Numbers of any type, stored in any order, on any grid: oblique, mirrored, far from the origin."""
    dtype = np.dtype(draw(DTYPES))
    numbers = st.integers(0, 1) if dtype.kind == "b" else st.integers(0, 100)
    array = draw(arrays.arrays(dtype, draw(SHAPES), elements=numbers.map(dtype.type)))
    array = array.transpose(draw(st.permutations(range(3))))[:: draw(st.sampled_from([1, -1]))]
    rotation = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation * draw(st.tuples(*[st.floats(0.3, 8)] * 3)) * [draw(st.sampled_from([1, -1])), 1, 1]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Volume(array, affine)


def stored_dtype(array):
    return np.dtype({"?": "u1", "e": "f4"}.get(array.dtype.char, array.dtype.newbyteorder("=")))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@given(volume=volumes())
def test_an_image_is_read_as_it_was_written(suffix, volume):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_image(volume, path)
        read = read_image(path)
    assert read.array.dtype == stored_dtype(volume.array)
    np.testing.assert_array_equal(read.array, volume.array)
    np.testing.assert_allclose(read.affine, volume.affine, rtol=0, atol=2e-4)


@given(volume=volumes())
def test_nibabel_finds_each_voxel_of_a_file_where_it_is_here(volume):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        write_image(volume, path)
        image = nibabel.nifti1.load(path)
        np.testing.assert_array_equal(np.asanyarray(image.dataobj).T, volume.array)
    last = np.array(volume.shape) - 1
    right, front, head = (image.affine @ (*last[::-1], 1))[:3]
    np.testing.assert_allclose((volume.affine @ (*last, 1))[:3], (-right, -front, head), atol=1e-3)


@pytest.mark.parametrize("there, back", [(to_nibabel, from_nibabel), (to_sitk, from_sitk)])
@given(volume=volumes())
def test_an_image_in_memory_comes_back(there, back, volume):
    again = back(there(volume))
    assert again.array.dtype == stored_dtype(volume.array)
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, rtol=0, atol=2e-4)


@dataclass(frozen=True)
class Cohort:
    """Cases of random names, the sequences that each has, and whether it has a label map."""

    sequences: dict[str, list[str]]
    labelled: dict[str, bool]


@st.composite
def cohorts(draw, sequences):
    """The first sequence is in every case: files such as `_flair` alone fit several layouts."""
    first, *others = sequences
    names = draw(CASES)
    kept = st.lists(st.sampled_from(others), unique=True).map(lambda some: [first, *some])
    return Cohort({name: draw(kept) for name in names}, {name: draw(st.booleans()) for name in names})


def write_brats_2015(folder, name, part, number):
    touch(folder / "HGG" / name / vsd_path(part, number))


def write_isles_2017(folder, name, part, number):
    touch(folder / name / smir_path(part, number))


def write_brats_2021(folder, name, part, number):
    touch(folder / name / f"{name}_{dict(t1c='t1ce', lesion='seg').get(part, part)}.nii.gz")


def write_brats_2023(folder, name, part, number):
    ends = dict(t1="t1n", t2="t2w", flair="t2f", lesion="seg")
    touch(folder / name / f"{name}-{ends.get(part, part)}.nii.gz")


def write_plainly(folder, name, part, number):
    touch(folder / name / f"{part}.nii.gz")


def write_bids(folder, name, part, number):
    ends = dict(t1="T1w", t1c="ce-gad_T1w", t2="T2w", flair="FLAIR", lesion="label-lesion_mask")
    touch(folder / f"sub-{name}" / "anat" / f"sub-{name}_{ends[part]}.nii.gz")


def write_nnunet(folder, name, part, number):
    channels = dict(enumerate(("t1", "t1c", "t2", "flair")))
    numbers = {sequence: i for i, sequence in channels.items()}
    place = f"labelsTr/{name}" if part == "lesion" else f"imagesTr/{name}_{numbers[part]:04d}"
    touch(folder / f"{place}.nii.gz")
    content = {"channel_names": channels, "labels": {"background": 0, "lesion": 1}}
    (folder / "dataset.json").write_text(json.dumps(content))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


GLIOMA = ("t1", "t1c", "t2", "flair")
LAYOUTS = {
    "BRATS 2015": (write_brats_2015, GLIOMA, BRATS2015),
    "ISLES 2017": (write_isles_2017, ISLES2017.sequences, ISLES2017),
    "BraTS 2017 to 2021": (write_brats_2021, GLIOMA, BRATS2021),
    "BraTS 2023": (write_brats_2023, GLIOMA, BRATS2023),
    "<case>/<sequence>.nii.gz": (write_plainly, GLIOMA, None),
    "BIDS": (write_bids, GLIOMA, None),
    "nnU-Net": (write_nnunet, GLIOMA, None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_a_cohort_in_a_layout_is_found_as_it_was_written(layout, data):
    write, sequences, convention = LAYOUTS[layout]
    cohort = data.draw(cohorts(sequences))
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, kept) in enumerate(cohort.sequences.items()):
            for place, part in enumerate([*kept, *(["lesion"] if cohort.labelled[name] else [])]):
                write(Path(folder), name, part, 100 * number + place)
        found = find_cases([Path(folder)])
    prefix = "sub-" if layout == "BIDS" else ""
    assert {case.layout for case in found} == {layout}
    assert {case.name: set(case.images) for case in found} == {
        f"{prefix}{name}": set(kept) for name, kept in cohort.sequences.items()
    }
    assert {case.name: case.lesion is not None for case in found} == {
        f"{prefix}{name}": labelled for name, labelled in cohort.labelled.items()
    }
    assert layout == "nnU-Net" or all(case.convention is convention for case in found)


@given(
    st.lists(st.integers(1, 255), min_size=1, max_size=5, unique=True),
    st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=5, max_size=5, unique=True),
    st.data(),
)
def test_a_convention_is_the_same_from_names_and_from_values(values, tissues, data):
    """`{"1": "edema"}` of the Decathlon, `{"edema": 1}` of nnU-Net; labels go over by name and come back."""
    named = dict(zip(tissues, values, strict=False))
    by_value = {"0": "background", **{str(value): tissue for tissue, value in named.items()}}
    ours = build_convention("a", ("t1",), {"background": 0, **named}, "a.json")
    theirs = build_convention("a", ("t1",), by_value, "b.json")
    assert ours == theirs and set(ours.labels) == set(named.values())
    labels = data.draw(arrays.arrays(np.uint8, 9, elements=st.sampled_from([0, *named.values()])))
    other = Task(
        name="other",
        sequences=("t1",),
        labels={number: tissue for number, tissue in enumerate(ours.labels.values(), 7)},
        regions={"all": (7,)},
    )
    np.testing.assert_array_equal(ours.translate(other.translate(labels, ours), other), labels)
