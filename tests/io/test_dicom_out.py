"""Segmentation and report as DICOM, judged by dciodvfy, dsrdump and dcmqi where these are installed."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from brainsegnet.errors import GridMismatch, ImageError, OutputError
from brainsegnet.io.dicom import read_study
from brainsegnet.io.dicom_out import Findings, build_dicom
from brainsegnet.io.images import from_sitk
from brainsegnet.task import BRATS2021, ISLES2022, Task
from brainsegnet.volume import LabelMap, Volume
from dicom_writer import build_mosaic, describe, save, write_multi_frame, write_slices


def make_volume(seed=0, shape=(8, 24, 20)):
    affine = np.diag([4.0, 0.9, 0.8, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = (-20.0, 15.0, 7.0)
    return Volume(np.random.default_rng(seed).integers(0, 2000, shape).astype(np.int16), affine)


def label(series, task=BRATS2021, empty=False):
    """A lesion of every tissue, each where the others are not."""
    array = np.zeros(series.shape, np.uint8)
    d, h, w = (n // 4 for n in series.shape)
    for number, value in enumerate(() if empty else task.labels):
        array[d : 2 * d + 1, h + number * 3 : h + number * 3 + 3 - number, w : 2 * w + number] = value
    return LabelMap(array, series.affine)


def find(labels, task=BRATS2021, number=0):
    ml = float(np.abs(np.linalg.det(labels.affine[:3, :3]))) / 1000
    volumes = {
        "labels": {name: float((labels.array == value).sum() * ml) for value, name in task.labels.items()},
        "regions": {name: float(np.isin(labels.array, values).sum() * ml) for name, values in task.regions.items()},
    }
    return Findings(task, labels, volumes, "tumour", "0.3.0", number)


def write(series, folder, findings, **options):
    """The paths of both objects, and the result."""
    result = build_dicom(series, findings, **options)
    result.save(folder / "case_seg.dcm", folder / "case_sr.dcm")
    return folder / "case_seg.dcm", folder / "case_sr.dcm", result


def judge(program, *words):
    """What a judge says; the test is skipped where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *map(str, words)], capture_output=True, text=True, check=False, errors="replace")
    return done.returncode, done.stdout + done.stderr


def check_valid(*paths):
    """`dciodvfy` has no error."""
    for path in paths:
        code, said = judge("dciodvfy", path)
        assert code == 0 and not [line for line in said.splitlines() if "Error" in line], said


def check_read_back(path, labels, values, folder):
    """dcmqi finds each label where it is in the world."""
    import SimpleITK as sitk

    code, said = judge("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd")
    assert code == 0, said
    for number, value in enumerate(values, 1):
        image = from_sitk(sitk.ReadImage(str(folder / f"{number}.nrrd")))
        index = np.argwhere(image.array > 0)
        index = np.c_[index, np.ones(len(index))] @ (np.linalg.inv(labels.affine) @ image.affine).T
        np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
        found = np.zeros(labels.shape, bool)
        found[tuple(np.rint(index[:, :3]).astype(int).T)] = True
        np.testing.assert_array_equal(found, labels.array == value)


@pytest.fixture
def series(tmp_path):
    write_slices(make_volume(), tmp_path / "study", describe(5, SeriesDescription="flair"))
    return read_study(tmp_path / "study").series[0]


def read_segmentation(path, shape, values):
    """The labels (D, H, W) that highdicom reads, in the order of the slices along z."""
    segmentation = hd.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=True, rescale_fractional=False)
    assert volume.spatial_shape[0] <= shape[0]
    return volume, np.array([0, *values], np.uint8)[volume.array.astype(int)]


def test_the_objects_belong_to_the_study_and_name_every_tissue(series, tmp_path):
    labels = label(series)
    seg, sr, result = write(series, tmp_path, find(labels))
    data, report = pydicom.dcmread(seg), pydicom.dcmread(sr)
    assert not result.notes
    for one in (data, report):
        assert one.StudyInstanceUID == series.header.study_uid and one.PatientName == "Test^Patient"
    assert data.FrameOfReferenceUID == series.header.frame_of_reference_uid and data.SegmentationType == "BINARY"
    assert [part.SegmentNumber for part in data.SegmentSequence] == [1, 2, 3]
    assert [part.SegmentLabel for part in data.SegmentSequence] == list(BRATS2021.labels.values())
    codes = [part.SegmentedPropertyTypeCodeSequence[0].CodeValue for part in data.SegmentSequence]
    assert codes == ["C81175", "79654002", "C113842"]
    assert all(len(part.RecommendedDisplayCIELabValue) == 3 for part in data.SegmentSequence)
    assert all(
        part.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0.3.0" for part in data.SegmentSequence
    )
    assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == series.header.series_uid
    assert {report.Modality, data.Modality} == {"SR", "SEG"} and report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"


@pytest.mark.parametrize("algorithm", ["tumour", "a model whose name is longer than the standard allows a line to be"])
def test_a_correction_is_marked_and_valid(series, tmp_path, algorithm):
    """Semiautomatic: calculated, with the assistance of a user (PS3.3 C.8.20.4)."""
    found = replace(find(label(series)), algorithm=algorithm, corrected=True)
    seg, sr, _ = write(series, tmp_path, found)
    data, report = pydicom.dcmread(seg), pydicom.dcmread(sr)
    assert {part.SegmentAlgorithmType for part in data.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert all(part.SegmentAlgorithmName for part in data.SegmentSequence)
    assert data.SeriesDescription.endswith(": labels, corrected") and len(data.SeriesDescription) <= 64
    assert report.SeriesDescription.endswith(": volumes, corrected") and len(report.SeriesDescription) <= 64
    check_valid(seg, sr)


def test_dciodvfy_dsrdump_and_dcmqi_accept_them(series, tmp_path):
    labels = label(series)
    seg, sr, _ = write(series, tmp_path, find(labels))
    check_valid(seg, sr)
    code, said = judge("dsrdump", sr)
    assert code == 0 and "Imaging Measurement Report" in said and said.count("Volume") >= 5
    check_read_back(seg, labels, BRATS2021.labels, tmp_path)


def test_dcentvfy_finds_them_consistent_with_their_source(series, tmp_path):
    seg, sr, _ = write(series, tmp_path, find(label(series)))
    _, said = judge("dcentvfy", *sorted((tmp_path / "study").iterdir()), seg, sr)
    assert "Error" not in said


def test_dcmqi_reads_the_volumes(series, tmp_path):
    labels = label(series)
    findings = find(labels)
    _, sr, _ = write(series, tmp_path, findings)
    code, said = judge("tid1500reader", "--inputDICOM", sr, "--outputMetadata", tmp_path / "measured.json")
    assert code == 0, said
    groups = json.loads((tmp_path / "measured.json").read_text())["Measurements"]
    read = {group["TrackingIdentifier"]: float(group["measurementItems"][0]["value"]) for group in groups}
    told = findings.volumes_ml
    united = {f"region {name}": told["regions"][name] for name in ("whole", "core")}
    assert read == pytest.approx({**told["labels"], **united}, abs=1e-3)


def test_highdicom_reads_the_voxels_back(series, tmp_path):
    labels = label(series)
    seg, _, _ = write(series, tmp_path, find(labels), omit_empty_frames=False)
    volume, array = read_segmentation(seg, series.shape, BRATS2021.labels)
    order = np.argsort(volume.affine[2, 0] * np.arange(series.shape[0]) + volume.affine[2, 3])
    np.testing.assert_array_equal(array[order], labels.array)


def test_an_absent_tissue_has_a_volume_but_no_segment(series, tmp_path):
    labels = label(series)
    labels = labels.with_array(np.where(labels.array == 2, 0, labels.array).astype(np.uint8))
    seg, sr, result = write(series, tmp_path, find(labels))
    assert [part.SegmentLabel for part in result.segmentation.SegmentSequence] == [
        "necrosis + non-enhancing",
        "enhancing",
    ]
    assert "oedema" in str(result.report)
    check_valid(seg, sr)
    check_read_back(seg, labels, (1, 4), tmp_path)


@pytest.mark.parametrize("task", [BRATS2021, ISLES2022], ids=lambda task: task.name)
def test_nothing_found_is_a_result_too(series, tmp_path, task):
    seg, sr, result = write(series, tmp_path, find(label(series, task, empty=True), task))
    assert len(result.segmentation.SegmentSequence) == len(task.labels)
    assert not result.segmentation.pixel_array.any()
    check_valid(seg, sr)


def test_a_task_of_unknown_tissues(series, tmp_path):
    task = Task(name="own", sequences=("flair",), labels={7: "sclerosis"}, regions={"all": (7,)})
    seg, sr, _ = write(series, tmp_path, find(label(series, task), task))
    assert pydicom.dcmread(seg).SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
    check_valid(seg, sr)


BAD_HEADERS = {
    "no sex": {"PatientSex": None},
    "unknown sex": {"PatientSex": "unknown"},
    "no birth date": {"PatientBirthDate": None},
    "no name": {"PatientName": None, "PatientID": None},
    "no dates": {"StudyDate": None, "StudyTime": None},
    "odd dates": {"StudyDate": "2016.03.09", "StudyTime": "9 o'clock"},
    "odd age": {"PatientAge": "0Y"},
    "no thickness": {"SliceThickness": None},
    "empty thickness": {"SliceThickness": ""},
    "no frame of reference": {"FrameOfReferenceUID": None},
    "latin names": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"},
    "Japanese names": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "unknown characters": {"SpecificCharacterSet": "LATIN-9"},
    "no study number": {"StudyID": None, "AccessionNumber": None, "ReferringPhysicianName": None},
}


@pytest.mark.parametrize("tags", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_real_headers_do_not_stop_it(tmp_path, tags, recwarn):
    write_slices(make_volume(), tmp_path / "study", describe(**tags))
    series = read_study(tmp_path / "study").series[0]
    labels = label(series)
    recwarn.clear()
    seg, sr, result = write(series, tmp_path, find(labels))
    assert not recwarn.list
    assert ("frame of reference" in "".join(result.notes)) == ("FrameOfReferenceUID" in tags)
    if name := tags.get("PatientName"):
        assert str(pydicom.dcmread(seg).PatientName) == name
    check_valid(seg, sr)
    check_read_back(seg, labels, BRATS2021.labels, tmp_path)


def test_orientations_that_differ_by_rounding(tmp_path):
    for number, path in enumerate(write_slices(make_volume(), tmp_path / "study", describe())):
        data = pydicom.dcmread(path)
        data.ImageOrientationPatient = [1, 3e-8 * number, 0, -3e-8 * number, 1, 0]
        data.save_as(path)
    series = read_study(tmp_path / "study").series[0]
    labels = label(series)
    seg, sr, _ = write(series, tmp_path, find(labels))
    check_valid(seg, sr)
    check_read_back(seg, labels, BRATS2021.labels, tmp_path)


def test_multi_frame_sources(tmp_path):
    write_multi_frame([make_volume(0), make_volume(1)], tmp_path / "multi", describe())
    series = read_study(tmp_path / "multi").series[0]
    labels = label(series)
    seg, sr, _ = write(series, tmp_path, find(labels, number=1))
    check_valid(seg, sr)
    check_read_back(seg, labels, BRATS2021.labels, tmp_path)
    frames = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in pydicom.dcmread(seg).PerFrameFunctionalGroupsSequence
    }
    assert all(frame % 2 == 0 for frame in frames)


def test_labels_of_a_corrected_volume_lie_on_the_slices_of_the_files(tmp_path):
    paths = write_slices(make_volume(), tmp_path / "study", describe())
    paths[4].unlink()
    series = read_study(tmp_path / "study").series[0]
    assert series.notes and series.shape[0] == 8
    labels = label(series)
    seg, sr, _ = write(series, tmp_path, find(labels))
    check_valid(seg, sr)
    kept = labels.array.copy()
    kept[4] = 0
    placed = {str(pydicom.dcmread(path).SOPInstanceUID) for path in paths if path.exists()}
    for group in pydicom.dcmread(seg).PerFrameFunctionalGroupsSequence:
        assert group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID in placed
    check_read_back(seg, labels.with_array(kept), BRATS2021.labels, tmp_path)


def test_labels_of_another_grid_are_refused(series):
    labels = LabelMap(np.zeros((8, 24, 21), np.uint8), series.affine)
    with pytest.raises(GridMismatch, match=r"the label map is \(8, 24, 21\) but series 5 \(flair\) is \(8, 24, 20\)"):
        build_dicom(series, find(labels))


def test_a_mosaic_is_no_source(tmp_path):
    save(build_mosaic(make_volume(), describe()), tmp_path / "mosaic", ExplicitVRLittleEndian)
    series = read_study(tmp_path / "mosaic").series[0]
    with pytest.raises(ImageError, match="are tiles of a mosaic; choose another sequence"):
        build_dicom(series, find(label(series)))


def test_a_folder_that_cannot_be_written_keeps_nothing(series, tmp_path):
    result = build_dicom(series, find(label(series)))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        result.save(tmp_path / "file" / "seg.dcm")
    with pytest.raises(OutputError, match="cannot be written"):
        result.save(tmp_path / "seg.dcm", tmp_path / "file" / "sr.dcm")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "study"}


@pytest.mark.real
@pytest.mark.parametrize(
    "folder",
    [
        *("head_t1", "ge_t1", "series/siemens", "series/philips", "series/hitachi", "series/ge/anatomical"),
        *("series/philips_enhanced", "series/hyperfine", "series/generic/compressed_j2k"),
    ],
)
def test_real_series_of_several_makers(real_data, tmp_path, folder):
    series = read_study(real_data / "dicom" / folder).series[0]
    labels = label(series)
    seg, sr, result = write(series, tmp_path, find(labels))
    assert bool(result.notes) == (not series.header.frame_of_reference_uid)
    check_valid(seg, sr)
    check_read_back(seg, labels, BRATS2021.labels, tmp_path)


@pytest.mark.real
def test_the_raw_study_as_a_whole(tcga_dicom, tmp_path):
    series = read_study(tcga_dicom).series[0]
    labels = label(series)
    seg, sr, _ = write(series, tmp_path, find(labels))
    check_valid(seg, sr)
    check_read_back(seg, labels, BRATS2021.labels, tmp_path)
