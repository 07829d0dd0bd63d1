"""Studies on disk: folders, zips, single files; contrasts and repetitions of a series; what is refused and said."""

import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from brainsegnet.errors import BrainSegNetError, DatasetError, ImageError
from brainsegnet.io.dicom import build_study, read_file, read_studies, read_study
from brainsegnet.io.dicom_files import list_files, read_each
from brainsegnet.io.images import read_image
from brainsegnet.volume import Volume
from dicom_writer import build_mosaic, build_slice, describe, save, write_multi_frame, write_slices

SHAPE = (6, 16, 12)


def make_volume(seed=0, turn=None, shape=SHAPE, low=0):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn)[:, [2, 1, 0]] * (4.0, 0.9, 0.8)
    affine[:3, 3] = (-20.0, 15.0, 7.0)
    return Volume(np.random.default_rng(seed).integers(low, 2000, shape).astype(np.int16), affine)


def check_same(series, volume, number=0):
    """The series has the voxels of the volume where they were in the world."""
    read = series.read(number)
    assert read.on_grid_of(volume), (read.affine, volume.affine)
    np.testing.assert_array_equal(read.array, volume.array)


@pytest.fixture
def study(tmp_path):
    """A folder of three series in subfolders, and their volumes."""
    volumes = {"t1": make_volume(1), "t2": make_volume(2, shape=(5, 10, 14)), "flair": make_volume(3)}
    for number, (name, volume) in enumerate(volumes.items(), 1):
        headers = describe(number, series=name, SeriesDescription=name)
        write_slices(volume, tmp_path / "study" / name, headers, implicit=name == "t2")
    return tmp_path / "study", volumes


def check_study(found, volumes):
    assert [series.header.description for series in found.series] == list(volumes) and not found.refused
    for series in found.series:
        check_same(series, volumes[series.header.description])


def test_a_folder_becomes_its_series_in_order(study):
    folder, volumes = study
    found = read_study(folder)
    check_study(found, volumes)
    assert [series.name for series in found.series] == ["series 1 (t1)", "series 2 (t2)", "series 3 (flair)"]
    assert found.uid == found.series[0].header.study_uid and found.series[0].plane == "axial"
    assert found.series[1].spacing_mm == pytest.approx((4.0, 0.9, 0.8))


def test_all_files_may_lie_in_one_folder_beside_others(study, tmp_path):
    folder, volumes = study
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*-*"), reverse=True)):
        shutil.copy(path, flat / f"IM{number:05d}")
    (flat / "readme.txt").write_text("not DICOM")
    (flat / ".hidden").write_bytes(b"\x08\x00 no DICOM")
    (flat / "noise").write_bytes(b"\x08\x00\x05\x00CS")
    shutil.copy(get_testdata_file("DICOMDIR"), flat / "DICOMDIR")
    found = read_study(flat)
    check_study(found, volumes)
    assert found.notes == ("1 file is not DICOM",) or found.notes == ("2 files are not DICOM",)
    check_study(read_study(flat / "DICOMDIR"), volumes)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_as_its_folder(study, tmp_path, method):
    folder, volumes = study
    with zipfile.ZipFile(tmp_path / "study.zip", "w", method) as archive:
        for path in folder.rglob("*-*"):
            archive.write(path, path.relative_to(folder.parent))
        archive.writestr("__MACOSX/._x", b"noise")
    check_study(read_study(tmp_path / "study.zip"), volumes)


def test_broken_zips_are_refused(study, tmp_path):
    folder, _ = study
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*-*"):
            archive.write(file, file.name)
    raw = bytearray(path.read_bytes())
    raw[300:500] = bytes(200)
    path.write_bytes(raw)
    with pytest.raises(ImageError, match="is a damaged zip"):
        read_study(path)
    path.write_bytes(raw[:-200])
    with pytest.raises(DatasetError, match="is no DICOM image"):
        read_study(path)


@pytest.mark.parametrize(("name", "said"), [("absent", "does not exist"), ("empty", "holds no DICOM images")])
def test_where_there_is_no_study(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=said):
        read_study(tmp_path / name)


def test_a_file_that_is_no_dicom(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"notes\.txt is no DICOM image"):
        read_study(tmp_path / "notes.txt")


@given(st.integers(0, 10_000))
def test_any_orientation_is_kept(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("turned")
    volume = make_volume(seed, Rotation.random(random_state=seed).as_matrix(), shape=(4, 5, 6))
    write_slices(volume, folder, describe())
    check_same(read_study(folder).series[0], volume)


def test_slices_from_head_to_feet_are_turned_round(tmp_path):
    volume = make_volume()
    down = volume.affine @ np.diag([-1.0, 1, 1, 1])
    down[:3, 3] += 5 * volume.affine[:3, 0]
    write_slices(Volume(volume.array[::-1], down), tmp_path / "s", describe())
    check_same(read_study(tmp_path / "s").series[0], volume)


def test_echoes_and_b_values_of_one_series_are_told_apart(tmp_path):
    volumes = {(te, b): make_volume(int(te + b)) for te, b in [(20.0, 0.0), (80.0, 0.0), (80.0, 1000.0)]}
    for (te, b), volume in volumes.items():
        write_slices(volume, tmp_path / f"{te}-{b}", describe(EchoTime=te, DiffusionBValue=b))
    found = read_study(tmp_path)
    assert len(found.series) == 3
    for series in found.series:
        check_same(series, volumes[series.header.te_ms, series.header.b_value])


def test_a_diffusion_study_in_one_series(tmp_path):
    """Three directions of about one b-value, their mean, the image without weighting, and the scanner's ADC."""
    original, derived = ["ORIGINAL", "PRIMARY", "DIFFUSION"], ["DERIVED", "PRIMARY", "ADC"]
    parts: dict[str, dict] = {
        "b0": {"DiffusionBValue": 0.0, "DiffusionDirectionality": "NONE", "ImageType": original},
        "x": {"DiffusionBValue": 990.0, "DiffusionDirectionality": "DIRECTIONAL", "AcquisitionNumber": 1},
        "y": {"DiffusionBValue": 1000.0, "DiffusionDirectionality": "DIRECTIONAL", "AcquisitionNumber": 2},
        "z": {"DiffusionBValue": 1010.0, "DiffusionDirectionality": "DIRECTIONAL", "AcquisitionNumber": 3},
        "mean": {"DiffusionBValue": 1000.0, "DiffusionDirectionality": "ISOTROPIC", "ImageType": original},
        "adc": {"ImageType": derived},
    }
    volumes = {name: make_volume(number) for number, name in enumerate(parts)}
    for name, tags in parts.items():
        write_slices(volumes[name], tmp_path / name, describe(**{"ImageType": original, **tags}))
    found = {
        (series.header.image_type[2], series.header.b_value, series.header.directionality): series
        for series in read_study(tmp_path).series
    }
    assert {key: len(series) for key, series in found.items()} == {
        ("ADC", None, ""): 1,
        ("DIFFUSION", 0.0, "none"): 1,
        ("DIFFUSION", 990.0, "directional"): 3,
        ("DIFFUSION", 1000.0, "isotropic"): 1,
    }
    check_same(found["ADC", None, ""], volumes["adc"])
    for number, name in enumerate("xyz"):
        check_same(found["DIFFUSION", 990.0, "directional"], volumes[name], number)


def test_phase_beside_magnitude_and_an_echo_time_that_varies_by_slice(tmp_path):
    volume, phase = make_volume(1), make_volume(2)
    write_slices(volume, tmp_path / "m", describe(ImageType=["ORIGINAL", "PRIMARY", "M"]))
    write_slices(phase, tmp_path / "p", describe(ImageType=["ORIGINAL", "PRIMARY", "P"]))
    for number, path in enumerate(sorted((tmp_path / "m").iterdir())):
        data = pydicom.dcmread(path)
        data.EchoTime = 80 + 0.01 * number
        data.save_as(path)
    found = read_study(tmp_path)
    assert [series.header.image_type[2] for series in found.series] == ["M", "P"]
    check_same(found.series[0], volume)


def test_repetitions_are_volumes_of_one_series(tmp_path):
    volumes = [make_volume(i) for i in range(4)]
    for time, volume in enumerate(volumes, 1):
        write_slices(volume, tmp_path / str(time), describe(AcquisitionNumber=time))
    (series,) = read_study(tmp_path).series
    assert len(series) == 4 and series.read_all().array.shape == (4, *SHAPE)
    for number, volume in enumerate(volumes):
        check_same(series, volume, number)
    sorted((tmp_path / "4").iterdir())[-1].unlink()
    (series,) = read_study(tmp_path).series
    assert len(series) == 3 and series.notes == ("the last volume is incomplete and left out",)


def test_multi_frame_files_over_time(tmp_path):
    volumes = [make_volume(i) for i in range(3)]
    write_multi_frame(volumes, tmp_path / "multi", describe())
    (series,) = read_study(tmp_path / "multi").series
    assert len(series) == 3
    for number, volume in enumerate(volumes):
        check_same(series, volume, number)


def test_a_mosaic_is_cut(tmp_path):
    volumes = [make_volume(i, shape=(7, 8, 6)) for i in range(3)]
    for time, volume in enumerate(volumes):
        data = build_mosaic(volume, describe(AcquisitionNumber=time))
        save(data, tmp_path / f"mosaic {time}", ExplicitVRLittleEndian)
    (series,) = read_study(tmp_path).series
    assert len(series) == 3
    for number, volume in enumerate(volumes):
        check_same(series, volume, number)


def test_a_localizer_has_three_orientations(tmp_path):
    turns = [np.eye(3), np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]]]
    volumes = [make_volume(i, turn) for i, turn in enumerate(turns)]
    for i, volume in enumerate(volumes):
        headers = describe()
        for number, image in enumerate(volume.array):
            data = build_slice(volume, number, image, headers)
            data.SOPInstanceUID = generate_uid()
            save(data, tmp_path / f"{i}-{number}", ExplicitVRLittleEndian)
    found = read_study(tmp_path)
    assert len(found.series) == 3 and {series.plane for series in found.series} == {"axial", "sagittal", "coronal"}
    for series, volume in zip(found.series, volumes, strict=True):
        check_same(series, volume)


def test_copies_count_once(study):
    folder, volumes = study
    shutil.copytree(folder / "t1", folder / "copy of t1")
    found = read_study(folder)
    check_study(found, volumes)
    assert found.notes == ("images that are there twice count once, 6 in all",)


def test_a_slice_that_was_sent_twice_counts_once(tmp_path):
    volume = make_volume()
    paths = write_slices(volume, tmp_path / "s", describe())
    data = pydicom.dcmread(paths[3])
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.save_as(tmp_path / "s" / "again")
    (series,) = read_study(tmp_path / "s").series
    assert series.notes == ("images that are there twice count once, 1 in all",)
    check_same(series, volume)
    data.InstanceNumber = 99
    data.save_as(tmp_path / "s" / "again")
    with pytest.raises(ImageError, match="between 1 and 2 images are at one place, some are missing"):
        read_study(tmp_path / "s")


def test_a_single_slice_of_a_series_is_refused_with_the_remedy(tmp_path):
    paths = write_slices(make_volume(), tmp_path / "s", describe())
    with pytest.raises(ImageError, match="1 slice makes no volume, 3 are due; name the folder of all slices"):
        read_study(paths[0])


def test_values_are_rescaled_only_where_the_header_says_so(tmp_path):
    volume = make_volume(low=-500)
    for number, (slope, intercept) in enumerate([(1, 0), (1, -1024), (0.5, 3)], 1):
        headers = describe(number, RescaleSlope=slope, RescaleIntercept=intercept)
        write_slices(volume, tmp_path / str(number), headers)
    stored, shifted, scaled = (series.read().array for series in read_study(tmp_path).series)
    assert stored.dtype == np.int16 and shifted.dtype == np.int32 and scaled.dtype == np.float32
    np.testing.assert_array_equal(shifted, volume.array.astype(int) - 1024)
    np.testing.assert_array_equal(scaled, volume.array * np.float32(0.5) + 3)


def test_an_inverted_image_is_turned(tmp_path):
    volume = make_volume()
    write_slices(volume, tmp_path / "s", describe(PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read_study(tmp_path / "s").series[0].read().array, -1 - volume.array)


def test_other_modalities_and_pictures_are_refused_with_the_reason(study):
    folder, volumes = study
    write_slices(make_volume(), folder / "ct", describe(7, series="ct", Modality="CT"))
    write_slices(make_volume(), folder / "no place", describe(8, series="sc", ImagePositionPatient=None))
    write_slices(make_volume(shape=(2, 4, 4)), folder / "two", describe(9, series="two"))
    found = read_study(folder)
    assert [series.header.description for series in found.series] == list(volumes)
    assert [str(refusal) for refusal in found.refused] == [
        "series 7 is CT, not MR",
        "series 8 does not say where its slices are",
        "series 9 cannot be used: 2 slices make no volume, 3 are due",
    ]


def test_a_study_without_a_usable_series_is_refused(tmp_path):
    for number in (1, 2):
        write_slices(make_volume(), tmp_path / str(number), describe(number, Modality="CT"))
    with pytest.raises(ImageError, match=r"series 1 is CT, not MR; 1 more series cannot be used either$"):
        read_study(tmp_path)


def test_two_studies_are_not_mixed(tmp_path):
    for name, date in (("before", "20190101"), ("after", "20200202")):
        write_slices(make_volume(), tmp_path / name, describe(study=name, StudyDate=date))
    with pytest.raises(DatasetError, match=r"holds 2 studies \(20190101, 20200202\); name the folder of one"):
        read_study(tmp_path)
    assert len(read_studies(tmp_path)) == 2


def test_images_that_are_promised_but_absent_are_said(tmp_path):
    write_slices(make_volume(), tmp_path / "s", describe(ImagesInAcquisition=9))
    assert read_study(tmp_path / "s").series[0].notes == ("the header speaks of 9 images, 6 are here",)


def test_a_file_that_is_cut_short_is_refused_when_it_is_read(tmp_path):
    paths = write_slices(make_volume(), tmp_path / "s", describe())
    raw = paths[2].read_bytes()
    paths[2].write_bytes(raw[:-50])
    series = read_study(tmp_path / "s").series[0]
    with pytest.raises(ImageError, match="cannot be read: The number of bytes of pixel data is less than expected"):
        series.read()
    paths[2].unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        series.read()


@given(st.randoms(use_true_random=False))
def test_damaged_files_are_read_or_refused_in_one_sentence(tmp_path_factory, random):
    folder = tmp_path_factory.mktemp("damaged")
    volume = make_volume(shape=(4, 8, 6))
    kind = random.randrange(3)
    if kind == 0:
        write_multi_frame([volume, volume], folder / "multi", describe())
    elif kind == 1:
        save(build_mosaic(volume, describe()), folder / "mosaic", ExplicitVRLittleEndian)
    else:
        write_slices(volume, folder, describe(), implicit=random.random() < 0.5)
    for path in folder.iterdir():
        raw = bytearray(path.read_bytes())
        for _ in range(random.randrange(6)):
            raw[random.randrange(132, len(raw))] = random.randrange(256)
        path.write_bytes(raw[: random.randrange(len(raw))] if random.random() < 0.2 else raw)
    try:
        for series in read_study(folder).series:
            series.read()
    except BrainSegNetError as error:
        assert "\n" not in str(error)


def test_the_callback_hears_how_far_it_is(study, recorder):
    heard = recorder()
    read_study(study[0], heard)
    shares = [event.progress for event in heard.events]
    assert shares == sorted(shares) and shares[-1] == 1 and not heard.messages


def test_the_folder_of_pydicom_is_refused_series_by_series():
    """Its DICOMDIR points to CR, CT and MR images of two patients, without endings: localizers and projections."""
    root = Path(get_testdata_file("DICOMDIR")).parent
    with pytest.raises(ImageError, match=r"series 1 \(Cervical LAT\) is CR, not MR; \d+ more series cannot be used"):
        read_studies(root / "DICOMDIR")
    by_study = defaultdict(list)
    for part in read_each(root, list_files(root), read_file):
        for frame in part or ():
            by_study[frame.header.study_uid].append(frame)
    reasons = [str(refusal) for frames in by_study.values() for refusal in build_study(root, frames).refused]
    assert len(by_study) == 6 and "series 5 (SmartScore - Gated 0.5 sec) is CT, not MR" in reasons
    assert "series 1 (FAST LOCALIZER) cannot be used: 1 slice makes no volume, 3 are due" in reasons
    assert len(reasons) < 15


@pytest.mark.real
def test_the_four_sequences_of_a_raw_study(tcga_dicom, real_data):
    found = read_study(tcga_dicom)
    assert [series.header.description for series in found.series] == ["flair", "t1", "t1c", "t2"]
    assert not found.refused and not found.notes
    for series in found.series:
        volume = read_image(real_data / f"raw/tcga-fg-6692/TCGA-FG-6692_{series.header.description}.nii.gz")
        read = series.read()
        flip = np.allclose(read.affine[:3, 0], -volume.affine[:3, 0], atol=1e-3)
        expected = volume.array[::-1] if flip else volume.array
        np.testing.assert_array_equal(read.array, np.rint(expected).astype(int))
        corner = volume.affine @ ((len(volume.array) - 1) if flip else 0, 0, 0, 1)
        np.testing.assert_allclose(read.affine[:3, 3], corner[:3], atol=1e-3)
    assert [series.header.contrast_agent for series in found.series] == ["", "", "Gadolinium", ""]


@pytest.mark.real
@pytest.mark.parametrize("codec", ["compressed_rle", "compressed_jpegls", "compressed_j2k"])
def test_compressed_series_have_the_same_voxels(real_data, codec):
    root = real_data / "dicom/series/generic"
    array = read_study(root / codec).series[0].read().array
    np.testing.assert_array_equal(array, read_study(root / "compressed_rle").series[0].read().array)


@pytest.mark.real
@pytest.mark.parametrize("folder", ["head_t1", "ge_t1", "series/siemens", "series/philips", "series/hitachi"])
def test_simpleitk_reads_the_same_volume(real_data, folder):
    import SimpleITK as sitk

    from brainsegnet.io.images import from_sitk

    root = real_data / "dicom" / folder
    series = read_study(root).series[0]
    (place,) = {path.parent for path in root.rglob("*") if path.is_file()}
    judge = from_sitk(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(place))))
    volume = series.read()
    assert volume.on_grid_of(judge)
    np.testing.assert_array_equal(volume.array, judge.array)


@pytest.mark.real
def test_one_series_of_two_b_values(real_data):
    found = read_study(real_data / "dicom/series/ge/dti")
    assert [series.header.b_value for series in found.series] == [0, 1000]
