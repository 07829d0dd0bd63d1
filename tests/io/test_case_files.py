import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.case_files import CaseFiles, check_dataset, check_whole
from brainsegnet.io.images import write_image
from brainsegnet.io.integrity import check_size
from brainsegnet.volume import Volume


@pytest.fixture
def image(rng):
    return Volume(rng.integers(0, 999, (5, 6, 7)).astype(np.int16), np.eye(4))


@pytest.fixture
def cases(tmp_path, image):
    """Four whole cases of one layout, with two sequences and a label map each."""
    paths = {(n, s): tmp_path / f"{n}_{s}.nii.gz" for n in "abcd" for s in ("t1", "t2", "seg")}
    for path in paths.values():
        write_image(image, path)
    return [CaseFiles(n, {s: paths[n, s] for s in ("t1", "t2")}, paths[n, "seg"], layout="x") for n in "abcd"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha"])
def test_a_whole_file_passes_and_a_shorter_one_does_not(tmp_path, image, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(image, path)
    check_size(path)
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"fetch it again|is no image"):
            check_size(path)


def test_several_gzip_members_4d_and_nifti_2_are_whole(tmp_path, image):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 6), np.float32), isVector=False), str(tmp_path / "a.nii"))
    check_size(tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    check_size(tmp_path / "b.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:-1]))
    with pytest.raises(ImageError, match="cut short"):
        check_size(tmp_path / "b.nii.gz")


def test_whole_cases_have_no_defects(cases):
    found = check_dataset(cases)
    assert (found.layouts, found.sequences, found.labelled) == ({"x": 4}, {"t1": 4, "t2": 4}, 4)
    assert not found.defects
    check_whole(cases, ("t1", "t2"))


def test_each_kind_of_incompleteness_is_told(cases):
    a, b, c, d = cases
    a.images["t1"].write_bytes(b"")
    b.images["t2"].write_bytes(b.images["t2"].read_bytes()[:-9])
    c.images["t2"].unlink()
    lacking = CaseFiles(d.name, {"t1": d.images["t1"]}, layout="x")
    defects = check_dataset([a, b, c, lacking]).defects
    assert {name: len(found) for name, found in defects.items()} == {"a": 1, "b": 1, "c": 1, "d": 2}
    assert "is empty (0 bytes)" in defects["a"][0] and "cut short" in defects["b"][0]
    assert "does not exist" in defects["c"][0] and defects["d"] == ("no t2", "no label map")


def test_layouts_are_compared_with_themselves(cases):
    other = CaseFiles("e", {"adc": cases[0].images["t1"]}, layout="y")
    assert not check_dataset([*cases, other]).defects


def test_training_is_told_of_what_it_needs_alone(cases):
    cases[1].images["t2"].write_bytes(b"")
    cases[2].lesion.write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"case b: .*b_t2.* is empty .*exclude the case \(and 1 more; see brainsegnet"
    ):
        check_whole(cases, ("t1", "t2"))
    with pytest.raises(DatasetError, match=r"case c: .*c_seg[^(]*\(0 bytes\); fetch it again, or exclude the case$"):
        check_whole(cases, ("t1",))
    check_whole(cases[:2], ("t1",))


@pytest.mark.real
def test_real_data_is_whole(real_data):
    from brainsegnet.io.cases import find_cases

    found = check_dataset(find_cases([real_data / place for place in ("tumour", "stroke", "ms")]))
    assert not found.defects and found.labelled == sum(found.layouts.values()) == 20
