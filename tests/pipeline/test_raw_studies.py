"""Raw studies from files to files: aligned, stripped, and segmented in the space of the scanner."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from brainsegnet._atomic import OutputOptions
from brainsegnet.errors import BrainSegNetError, ImageError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.dicom import read_study
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.pipeline import MeasureOptions
from brainsegnet.pipeline.measure import measure
from brainsegnet.pipeline.segment import segment
from brainsegnet.volume import LabelMap

CPU = SegmentOptions(device="cpu", threads=1)
EVERYTHING = replace(CPU, all_grids=True, save_preprocessed=True, dicom=True, picture=True, uncertainty=True)
CONTINUE = OutputOptions(skip_existing=True)
VERIFY = OutputOptions(skip_existing=True, verify=True)


@pytest.fixture(autouse=True)
def without_network(depth_extractor):
    """The brain is found by depth in all tests here."""


@pytest.fixture
def raw_files(raw_heads, tmp_path):
    """The raw heads as files in one folder."""
    for name, volume in raw_heads.items():
        write_image(volume, tmp_path / "ida" / f"{name}.nii.gz")
    return tmp_path / "ida"


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_study_is_aligned_stripped_and_segmented_on_the_grid_of_its_thinnest_slices(
    raw_study, raw_heads, trained, tmp_path
):
    (done,) = segment(raw_study, trained, tmp_path / "a.nii.gz", CPU).done
    labels, report = read_labels(done.path), done.report
    assert labels.on_grid_of(read_study(raw_study).series[1].read())
    geometry, brain = report["geometry"], report["brain"]
    assert geometry["grid"] == "t2" and list(geometry["moved"]) == ["flair", "t1c"]
    assert geometry["moved"]["t1c"]["translation_mm"] == pytest.approx(np.linalg.norm((6, -5, 4)), abs=1.5)
    assert brain["how"] == "extracted" and set(brain["skull"].values()) == {"skull on"}
    assert brain["volume_ml"] == pytest.approx(4 / 3 * np.pi * 6.2 * 7.6 * 6.6, rel=0.2)
    assert report["inputs"]["t1c"]["series"] == "series 3 (t1c)"
    assert report["inputs"]["t1c"]["path"] == "olga" and report["inputs"]["t1c"]["files"] == 48
    volumes = {name: replace(one, affine=one.affine) for name, one in raw_heads.items()}
    in_memory = Segmenter(trained, CPU)(volumes, "olga")
    for region, ml in in_memory.volumes_ml["regions"].items():
        assert ml == pytest.approx(report["volumes_ml"]["regions"][region], rel=0.02)


def test_a_folder_of_raw_images_gives_what_the_same_images_give_in_memory(raw_files, raw_heads, trained, tmp_path):
    (done,) = segment(raw_files, trained, tmp_path / "a.nii.gz", CPU).done
    in_memory = Segmenter(trained, CPU)(raw_heads)
    np.testing.assert_array_equal(read_labels(done.path).array, in_memory.labels.array)


@pytest.mark.parametrize("packed", [False, True])
def test_a_result_may_lie_beside_the_folder_or_the_zip_of_a_study(packed, raw_study, trained, tmp_path):
    study = tmp_path / "study"
    if packed:
        study = Path(shutil.make_archive(str(study), "zip", raw_study))
    else:
        shutil.copytree(raw_study, study)
    assert segment(study, trained, tmp_path / "lesion.nii.gz", CPU).done


def test_a_dicom_folder_stands_for_a_sequence_in_memory_and_as_a_named_file(raw_study, raw_heads, trained, tmp_path):
    flair = tmp_path / "one series"
    flair.mkdir()
    for path in raw_study.glob("1-*"):
        shutil.copy(path, flair)
    found = Segmenter(trained, CPU)({"flair": flair})
    assert found.source is not None and found.source.series.name == "series 1 (flair)"
    (done,) = segment({"flair": flair}, trained, tmp_path / "a.nii.gz", replace(CPU, dicom=True)).done
    np.testing.assert_array_equal(read_labels(done.path).array, found.labels.array)
    with pytest.raises(BrainSegNetError, match=r"holds .*series 1 \(flair\).*; name"):
        segment({"flair": raw_study}, trained, tmp_path / "b.nii.gz", CPU)


def test_every_file_that_is_asked_for_appears_and_lies_where_it_should(raw_study, raw_heads, trained, tmp_path):
    (done,) = segment(raw_study, trained, tmp_path / "out", EVERYTHING).done
    names = [path.relative_to(tmp_path / "out").as_posix() for path in sorted((tmp_path / "out").rglob("*"))]
    preprocessed = [f"olga_preprocessed/{part}.nii.gz" for part in ("brain_mask", "flair", "t1c", "t2")]
    assert names == [
        "olga.json", "olga.nii.gz", "olga.png", "olga_entropy.nii.gz", "olga_flair.nii.gz", "olga_preprocessed",
        *preprocessed, "olga_seg.dcm", "olga_sr.dcm", "olga_t1c.nii.gz", "olga_t2.nii.gz",
    ]  # fmt: skip
    series = {one.header.description: one for one in read_study(raw_study).series}
    for name, file in done.report["grids"].items():
        labels = read_labels(tmp_path / "out" / file)
        assert labels.on_grid_of(series[name].read())
        assert (labels.array > 0).sum() * labels.voxel_ml == pytest.approx(
            done.report["volumes_ml"]["regions"]["whole"], rel=0.15
        ), name
    np.testing.assert_array_equal(read_labels(tmp_path / "out/olga_t2.nii.gz").array, read_labels(done.path).array)
    seg, report = (dcmread(tmp_path / "out" / f"olga_{part}.dcm") for part in ("seg", "sr"))
    assert seg.StudyInstanceUID == report.StudyInstanceUID == read_study(raw_study).uid
    segments = [item.SegmentLabel for item in seg.SegmentSequence]
    assert segments == [name for name, ml in done.report["volumes_ml"]["labels"].items() if ml]
    frames = {
        int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for group in seg.PerFrameFunctionalGroupsSequence
    }
    assert frames == set(range(1, len(segments) + 1))
    assert int(seg.pixel_array.sum()) == int((read_labels(done.path).array > 0).sum())


def test_a_correction_goes_back_to_the_archive_as_one(raw_study, trained, tmp_path):
    (done,) = segment(raw_study, trained, tmp_path / "out", replace(CPU, dicom=True)).done
    found = read_labels(done.path)
    first = next(iter(found.array[found.array > 0]))
    write_image(found.with_labels(np.where(found.array == first, first, 0).astype(np.uint8)), tmp_path / "mask.nii.gz")
    saved = measure(tmp_path / "mask.nii.gz", done.path, tmp_path / "new" / "olga.nii.gz", MeasureOptions(dicom=True))
    assert saved.report["dicom"]["segmentation"] == "olga_seg.dcm"
    seg, report = (dcmread(tmp_path / "new" / f"olga_{part}.dcm") for part in ("seg", "sr"))
    assert seg.StudyInstanceUID == report.StudyInstanceUID == read_study(raw_study).uid
    assert [part.SegmentAlgorithmType for part in seg.SegmentSequence] == ["SEMIAUTOMATIC"]
    assert seg.SeriesDescription.endswith(": labels, corrected") and "corrected by hand" in seg.ContentDescription
    assert report.SeriesDescription.endswith(": volumes, corrected")
    assert int(seg.pixel_array.sum()) == np.count_nonzero(found.array == first)


def test_preprocessed_images_are_a_prepared_case(raw_files, trained, tmp_path):
    how = replace(CPU, save_preprocessed=True)
    (raw,) = segment(raw_files, trained, tmp_path / "raw", how).done
    folder = tmp_path / "raw" / "ida_preprocessed"
    mask = read_labels(folder / "brain_mask.nii.gz").array
    assert all((read_image(folder / f"{name}.nii.gz").array[mask == 0] == 0).all() for name in ("flair", "t2", "t1c"))
    (again,) = segment(folder, trained, tmp_path / "again", CPU).done
    assert again.report["brain"]["how"] == "as given" and not again.report["geometry"]["moved"]
    np.testing.assert_array_equal(read_labels(raw.path).array, read_labels(again.path).array)


def test_the_mask_of_the_user_lies_where_the_sequence_lies_on_which_it_was_drawn(
    raw_files, raw_heads, trained, tmp_path
):
    (_found,) = segment(raw_files, trained, tmp_path / "a", replace(CPU, save_preprocessed=True)).done
    head = raw_heads["t1c"]
    mask = LabelMap((np.abs(head.array.astype(int) - 170) < 60).astype(np.uint8), head.affine)
    write_image(mask, tmp_path / "mask.nii.gz")
    how = replace(CPU, brain_mask=tmp_path / "mask.nii.gz", save_preprocessed=True)
    (given,) = segment(raw_files, trained, tmp_path / "b", how).done
    assert given.report["brain"]["how"] == "file" and given.report["options"]["brain_mask"] == "mask.nii.gz"
    assert "brain_mask" in given.report["inputs"]
    drawn, own = (
        read_labels(path / "ida_preprocessed/brain_mask.nii.gz").array > 0 for path in (tmp_path / "b", tmp_path / "a")
    )
    shift = np.subtract(*(np.argwhere(one).mean(0) for one in (drawn, own))) * 3
    assert np.abs(shift).max() < 1.5, "the mask moved with T1c, by less than half a voxel from the brain"
    write_image(LabelMap(np.zeros_like(mask.array), mask.affine), tmp_path / "empty.nii.gz")
    with pytest.raises(BrainSegNetError, match=r"the brain mask .*empty.nii.gz covers 0 ml of t2, and a brain has"):
        segment(raw_files, trained, tmp_path / "c", replace(CPU, brain_mask=tmp_path / "empty.nii.gz"))
    with pytest.raises(BrainSegNetError, match="is the brain mask of one case, and there are 2"):
        shutil.copytree(raw_files, tmp_path / "both/one")
        shutil.copytree(raw_files, tmp_path / "both/two")
        segment(tmp_path / "both", trained, tmp_path / "d", how)


def test_each_step_can_be_switched_off(raw_files, trained, tmp_path):
    (plain,) = segment(raw_files, trained, tmp_path / "a", replace(CPU, extract_brain=False)).done
    assert plain.report["brain"]["how"] == "as given" and plain.report["head"]["skull"] == "skull on"
    (still,) = segment(raw_files, trained, tmp_path / "b", replace(CPU, resample=True)).done
    assert {motion["how"] for motion in still.report["geometry"]["moved"].values()} == {"resampled"}
    with pytest.raises(BrainSegNetError, match="flair is "):
        segment(raw_files, trained, tmp_path / "c", replace(CPU, register=False))
    (named,) = segment(raw_files, trained, tmp_path / "d", replace(CPU, reference="t1c")).done
    assert named.report["geometry"]["grid"] == "t1c"
    with pytest.raises(BrainSegNetError, match="t1 cannot be the reference"):
        segment(raw_files, trained, tmp_path / "e", replace(CPU, reference="t1"))
    assert not (tmp_path / "c").exists() and not (tmp_path / "e").exists()


@pytest.fixture
def no_brain(depth_extractor, monkeypatch):
    """The extractor finds hardly anything."""
    find = depth_extractor.__call__
    monkeypatch.setattr(depth_extractor, "__call__", lambda self, scan: replace(find(self, scan), volume_ml=3.0))


def test_no_mask_is_returned_where_no_brain_is_found(raw_study, raw_files, trained, tmp_path, no_brain):
    for study in (raw_study, raw_files):
        with pytest.raises(BrainSegNetError, match=rf"case {study.name}: no brain was found in .*; check that"):
            segment(study, trained, tmp_path / "out" / "a.nii.gz", EVERYTHING if study is raw_study else CPU)
    assert left(tmp_path / "out") == []


def test_dicom_without_a_skull_must_show_a_brain(phantoms, trained, tmp_path, no_brain):
    """A test pattern, which no rule on scalp and bone calls a head."""
    from dicom_writer import SEQUENCES, describe, write_slices

    volume = read_image(next(phantoms.glob("phantom0000/*Flair*/*.mha")))
    write_slices(volume, tmp_path / "pattern", describe(1, SeriesDescription="flair", **SEQUENCES["flair"]))
    with pytest.raises(BrainSegNetError, match="no brain was found in flair: "):
        segment(tmp_path / "pattern", trained, tmp_path / "a.nii.gz", CPU)
    (done,) = segment(tmp_path / "pattern", trained, tmp_path / "a.nii.gz", replace(CPU, extract_brain=False)).done
    assert done.report["brain"]["how"] == "as given"


def test_a_dicom_result_needs_dicom(raw_files, raw_study, trained, tmp_path, monkeypatch):
    with pytest.raises(BrainSegNetError, match="case ida: its reference t2 is not DICOM, so no DICOM segmentation can"):
        segment(raw_files, trained, tmp_path / "out/a.nii.gz", replace(CPU, dicom=True))

    def refuse(series, findings):
        raise ImageError(f"no DICOM can be made of the headers of {series.name}: they are odd")

    monkeypatch.setattr("brainsegnet.io.dicom_out.build_dicom", refuse)
    with pytest.raises(BrainSegNetError, match="they are odd"):
        segment(raw_study, trained, tmp_path / "out/a.nii.gz", EVERYTHING)
    assert left(tmp_path / "out") == []


def test_a_study_that_is_done_is_left_out_until_a_file_changes(raw_study, trained, tmp_path):
    out = tmp_path / "out"
    segment(raw_study, trained, out, EVERYTHING)
    assert len(segment(raw_study, trained, out, EVERYTHING, output=CONTINUE).skipped) == 1
    assert len(segment(raw_study, trained, out, EVERYTHING, output=VERIFY).skipped) == 1
    file = sorted(raw_study.glob("2-*"))[10]
    data = dcmread(file)
    data.PixelData = data.PixelData[:-2] + b"\1\0"
    stamp = file.stat()
    data.save_as(file)
    with pytest.raises(OutputError, match="t2 has changed since"):
        segment(raw_study, trained, out, EVERYTHING, output=VERIFY)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(segment(raw_study, trained, out, EVERYTHING, output=CONTINUE).skipped) == 1, "size and time are the same"
    (out / "olga_preprocessed" / "t2.nii.gz").unlink()
    (again,) = segment(raw_study, trained, out, EVERYTHING, output=CONTINUE).done
    assert again.name == "olga" and (out / "olga_preprocessed" / "t2.nii.gz").is_file()


def test_two_series_that_are_alike_are_refused_until_one_is_named(raw_study, raw_heads, trained, tmp_path):
    from dicom_writer import SEQUENCES, describe, write_slices

    write_slices(
        raw_heads["flair"],
        raw_study,
        describe(9, series="other", SeriesDescription="flair again", **SEQUENCES["flair"]),
    )
    with pytest.raises(
        BrainSegNetError, match=r"two series may be flair, series 1 \(flair\) and series 9 \(flair again\)"
    ):
        segment(raw_study, trained, tmp_path / "a.nii.gz", CPU)
    (done,) = segment(raw_study, trained, tmp_path / "a.nii.gz", CPU, given={"flair": "9"}).done
    assert done.report["inputs"]["flair"]["series"] == "series 9 (flair again)"


def test_a_broken_series_is_left_out_with_a_note_or_refused(raw_study, raw_heads, trained, strict, tmp_path):
    for file in sorted(raw_study.glob("1-*"))[10:14]:
        file.unlink()
    (done,) = segment(raw_study, trained, tmp_path / "a.nii.gz", CPU).done
    assert done.report["sequences"]["absent"] == ["flair", "t1"]
    assert any(note.startswith("not used: series 1 (flair)") for note in done.report["notes"])
    with pytest.raises(BrainSegNetError, match="case olga has no flair, t1, only t1c, t2"):
        segment(raw_study, strict, tmp_path / "b.nii.gz", CPU)
    assert not (tmp_path / "b.json").exists()


def test_a_sequence_that_fits_only_after_a_motion_that_no_patient_makes_is_refused(
    raw_files, raw_heads, trained, tmp_path
):
    moved = raw_heads["t1c"].affine.copy()
    moved[:3, 3] += (0, 0, 90)
    write_image(replace(raw_heads["t1c"], affine=moved), raw_files / "t1c.nii.gz")
    with pytest.raises(
        BrainSegNetError, match=r"case ida: t1c fits t2 only if it is moved by .* leave it out or mend it"
    ):
        segment(raw_files, trained, tmp_path / "out/a.nii.gz", CPU)
    assert left(tmp_path / "out") == []


def test_children_and_other_parts_of_the_body_are_warned_of(raw_study, trained, tmp_path):
    for file in raw_study.iterdir():
        data = dcmread(file)
        data.PatientAge, data.BodyPartExamined = "007Y", "KNEE" if file.name.startswith("1-") else "BRAIN"
        data.save_as(file)
    (done,) = segment(raw_study, trained, tmp_path / "a.nii.gz", CPU).done
    assert (
        "the patient is 7 years old, and the models were made for adults; look at the result" in done.report["warnings"]
    )
    assert next(said for said in done.report["warnings"] if "KNEE" in said).startswith("flair: the header says")


def test_a_result_inside_the_study_is_refused(raw_study, trained):
    with pytest.raises(OutputError, match="is inside the study"):
        segment(raw_study, trained, raw_study / "found.nii.gz", CPU)


def test_results_in_a_folder_of_cases_are_no_cases(raw_study, trained, tmp_path):
    segment(raw_study, trained, tmp_path / "out", replace(CPU, all_grids=True))
    with pytest.raises(BrainSegNetError):
        segment(tmp_path / "out", trained, tmp_path / "again", CPU)


@pytest.mark.real
def test_real_raw_studies(real_data, tcga_dicom, tmp_path, monkeypatch):
    """Four sequences of a tumour as DICOM; a raw study without a tumour; a test pattern. The network finds brains."""
    monkeypatch.undo()
    (done,) = segment(tcga_dicom, None, tmp_path / "tcga", replace(CPU, dicom=True, all_grids=True)).done
    report = done.report
    assert report["sequences"]["used"] == ["flair", "t1", "t1c", "t2"] and report["model"]["name"] == "tumour"
    assert {name: motion["how"] for name, motion in report["geometry"]["moved"].items()} == dict.fromkeys(
        ("t1", "t1c", "t2"), "registered"
    )
    assert 1300 < report["brain"]["volume_ml"] < 1700 and 10 < report["volumes_ml"]["regions"]["whole"] < 40
    assert sum(report["seconds"].values()) > 0 and {"align", "brain"} <= set(report["seconds"])
    (healthy,) = segment(real_data / "raw/lesjak-p01", "tumour", tmp_path / "lesjak", CPU).done
    assert healthy.report["volumes_ml"]["regions"]["whole"] < 10
    with pytest.raises(BrainSegNetError, match="no brain was found in t1"):
        segment(real_data / "dicom/ge_t1", "tumour", tmp_path / "pattern", CPU)
    assert left(tmp_path / "pattern") == []


def test_a_slice_that_is_missing_and_filled_is_told(raw_study, trained, tmp_path):
    sorted(raw_study.glob("2-*"))[30].unlink()
    (done,) = segment(raw_study, trained, tmp_path / "a.nii.gz", CPU).done
    told = [warning for warning in done.report["warnings"] if "filled from the neighbours" in warning]
    assert len(told) == 1 and told[0].startswith("t2 (series 2 (t2)): 1 slice is missing")
