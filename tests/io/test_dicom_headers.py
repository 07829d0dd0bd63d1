"""Where makers put the b-value and the direction, multi-frame groups, mosaics, and headers that break the standard."""

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from brainsegnet.io.dicom_headers import TAGS, find_b_value, find_directionality, read_frames
from brainsegnet.io.dicom_mosaic import read_csa
from brainsegnet.volume import Volume
from dicom_writer import build_csa, build_mosaic, build_slice, describe, put_pixels

VOLUME = Volume(np.arange(3 * 8 * 6, dtype=np.int16).reshape(3, 8, 6), np.diag([4.0, 1.2, 1.1, 1.0])[[2, 1, 0, 3]])


def one_frame(**tags):
    (frame,) = read_frames(build_slice(VOLUME, 1, VOLUME.array[1], describe(**tags)), "file")
    return frame


def test_a_header_tells_how_a_series_was_acquired():
    frame = one_frame(RepetitionTime=9000, EchoTime=120, InversionTime=2500, ScanningSequence=["SE", "IR"])
    header = frame.header
    assert (header.tr_ms, header.te_ms, header.ti_ms, header.scanning_sequence) == (9000, 120, 2500, ("SE", "IR"))
    assert header.b_value is None and header.contrast_agent == "" and header.name == "series 1"
    assert frame.position == (0.0, 0.0, 4.0) and frame.orientation == (1, 0, 0, 0, 1, 0) and not frame.problem


@pytest.mark.parametrize(
    ("stored", "years"), [("045Y", 45), ("018M", 1.5), ("000Y", None), ("010W", 0.19), ("999Y", None), ("old", None)]
)
def test_age_and_part_of_the_body(stored, years):
    header = one_frame(PatientAge=stored, BodyPartExamined="BRAIN").header
    assert header.age_years == years and header.body_part == "BRAIN"
    assert one_frame().header.age_years is None and one_frame().header.body_part == ""


def test_nothing_names_the_patient():
    frame = one_frame(SeriesDescription="t1")
    text = repr(frame)
    assert "Test^Patient" not in text and "T1" not in text
    assert not {0x00100010, 0x00100020, 0x00100030, 0x00080090} & {int(tag) for tag in TAGS}


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({0x00189087: 1000.0}, 1000),
        ({0x0019100C: "1000"}, 1000),
        ({0x0019100C: b"50 "}, 50),
        ({0x00431039: [1000, 8, 0, 0]}, 1000),
        ({0x00431039: [1000001000, 8, 0, 0]}, 1000),
        ({0x00431039: b"1000000800\\8\\0\\0"}, 800),
        ({0x00431039: [1073741824, 0]}, None),
        ({0x20011003: 800.0}, 800),
        ({0x20011003: struct.pack("<f", 800)}, 800),
        ({0x00651009: 700.0}, 700),
        ({0x00180024: "*ep_b1000t"}, 1000),
        ({0x00180024: "ep2d_b0"}, None),
        ({0x00291010: build_csa(B_value=[500])}, 500),
        ({0x00189087: None, 0x0019100C: ""}, None),
        ({}, None),
    ],
)
def test_the_b_value_of_each_maker(elements, expected):
    assert find_b_value(elements) == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({0x00189075: "ISOTROPIC"}, "isotropic"),
        ({0x00189075: "BMATRIX"}, "directional"),
        ({0x0019100D: b"DIRECTIONAL "}, "directional"),
        ({0x20011004: "I"}, "isotropic"),
        ({0x20011004: b"S "}, "directional"),
        ({0x00431030: 15}, "isotropic"),
        ({0x00431030: struct.pack("<H", 15)}, "isotropic"),
        ({0x00080008: ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]}, "isotropic"),
        ({}, ""),
    ],
)
def test_the_mean_of_all_directions_is_recognised(elements, expected):
    assert find_directionality(elements) == expected


def test_contrast_agents_and_units():
    item, unit, mapping = Dataset(), Dataset(), Dataset()
    item.CodeMeaning, unit.CodeValue = "Gadobutrol", "um2/s"
    mapping.MeasurementUnitsCodeSequence = [unit]
    header = one_frame(ContrastBolusAgentSequence=[item], RealWorldValueMappingSequence=[mapping]).header
    assert (header.contrast_agent, header.units) == ("Gadobutrol", "um2/s")
    assert one_frame(ContrastBolusAgent="Gd", RescaleType="US").header.contrast_agent == "Gd"


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"SamplesPerPixel": 3}, "is a picture in colour"),
        ({"ImagePositionPatient": None}, "does not say where its slices are"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not at right angles"),
        ({"PixelSpacing": None}, "does not say how large its voxels are"),
        ({"PixelSpacing": [0, 0]}, "does not say how large its voxels are"),
        ({"NumberOfFrames": 5}, "has 5 frames without their positions"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "is a mosaic whose header does not say how it is made"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "VFRAME"]}, "is a mosaic of a kind that is not read here"),
    ],
)
def test_what_is_no_measured_slice_is_refused(tags, said):
    assert said in one_frame(**tags).problem


def test_values_of_a_wrong_form_count_as_absent():
    data = build_slice(VOLUME, 0, VOLUME.array[0], describe())
    data.add_new(0x00180080, "LO", "n/a")
    data.add_new(0x00180081, "LO", "")
    data.add_new(0x00200011, "LO", "fourth")
    (frame,) = read_frames(data, "file")
    assert frame.header.tr_ms is None and frame.header.te_ms is None and frame.header.number is None
    assert frame.header.name == "a series without number"


@pytest.mark.parametrize("count", [3, 4, 10])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_mosaic_is_read_as_nibabel_reads_it(count, reverse):
    from nibabel.nicom.dicomwrappers import MosaicWrapper, wrapper_from_data

    volume = Volume(np.arange(count * 48, dtype=np.int16).reshape(count, 8, 6), VOLUME.affine)
    data = build_mosaic(volume, describe(), reverse)
    frames = read_frames(data, "file")
    assert [frame.index for frame in frames] == list(range(count)) and {(f.rows, f.columns) for f in frames} == {(8, 6)}
    expected = [volume.affine[:3] @ ((-i if reverse else i), 0, 0, 1) for i in range(count)]
    np.testing.assert_allclose([frame.position for frame in frames], expected, atol=1e-6)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    judge = wrapper_from_data(data)
    assert isinstance(judge, MosaicWrapper) and judge.image_shape == (8, 6, count)
    np.testing.assert_allclose(judge.image_position, frames[0].position, atol=1e-4)
    np.testing.assert_allclose(judge.slice_normal, [0, 0, -1 if reverse else 1])


def test_a_private_header_that_is_cut_short_holds_less():
    raw = build_csa(B_value=[500], NumberOfImagesInMosaic=[24])
    assert read_csa(raw) == {"B_value": (500.0,), "NumberOfImagesInMosaic": (24.0,)}
    assert read_csa(raw[:-30]) == {"B_value": (500.0,)}
    assert read_csa(b"SV10") == read_csa(b"") == read_csa(None) == {}


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "count", "position", "times"),
    [
        ("philips_enhanced", 8, (-23.1, None, None), (6.77, 3.133)),
        ("hyperfine", 8, (0.0, 0.0, -175.0), (4000.0, 194.4)),
    ],
)
def test_multi_frame_groups_of_real_files(real_data: Path, folder, count, position, times):
    from pydicom import dcmread

    (file,) = [path for path in (real_data / "dicom/series" / folder).rglob("*") if path.is_file()]
    frames = read_frames(dcmread(file, stop_before_pixels=True), file.name)
    assert len(frames) == count and not any(frame.problem for frame in frames)
    header = frames[0].header
    assert (header.tr_ms, header.te_ms) == pytest.approx(times, abs=0.01)
    assert len({frame.position for frame in frames}) == count


def test_multi_frame_values_come_from_the_frame_before_the_file():
    data = build_slice(VOLUME, 0, VOLUME.array[0], describe(EchoTime=1))
    put_pixels(data, VOLUME.array)
    shared, group, echo, position, diffusion = (Dataset() for _ in range(5))
    echo.EffectiveEchoTime, position.ImagePositionPatient, diffusion.DiffusionBValue = 90.0, [0, 0, 40], 1000.0
    shared.MREchoSequence = [echo]
    group.PlanePositionSequence, group.MRDiffusionSequence = [position], [diffusion]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], [group]
    (frame,) = read_frames(data, "file")
    assert (frame.header.te_ms, frame.header.b_value, frame.position) == (90, 1000, (0, 0, 40))
