"""`inspect` of a raw study: the table of its series, which are chosen, and what is refused."""

import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.io.images import write_image
from brainsegnet.reporting.inspect import inspect
from brainsegnet.volume import Volume
from dicom_writer import SEQUENCES, describe, write_slices

VOLUME = Volume(np.arange(6 * 16 * 12, dtype=np.int16).reshape(6, 16, 12), np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])


def test_a_dicom_study(tmp_path):
    flair, t2 = (dict(SEQUENCES[name], SeriesDescription=name) for name in ("flair", "t2"))
    write_slices(VOLUME, tmp_path / "a", describe(1, series="1", **flair))
    write_slices(VOLUME, tmp_path / "b", describe(2, series="2", **t2))
    write_slices(VOLUME, tmp_path / "c", describe(3, series="3", **t2))
    write_slices(VOLUME, tmp_path / "d", describe(4, series="4", Modality="CT"))
    table = inspect(tmp_path)
    assert table.title == f"study {tmp_path}" and [column.heading for column in table.columns][:2] == [
        "series",
        "sequence",
    ]
    assert table.rows[0][:6] == ("series 1 (flair)", "flair", "98%", "6 x 16 x 12", "5 x 1 x 1", "axial")
    assert '"flair" in its description; TR 9000 ms, TE 120 ms, TI 2500 ms (fluid is suppressed)' == table.rows[0][6]
    assert list(table.notes) == [
        "flair: series 1 (flair)",
        "two series may be t2, series 2 (t2) and series 3 (t2); name one of them with --t2",
        "not used: series 4 is CT, not MR",
    ]
    assert [*table.unusable] == [f"case {tmp_path.name}: {table.notes[1]}"]


def test_images_that_no_layout_knows(tmp_path):
    write_image(VOLUME, tmp_path / "scan_T2w_tse.nii.gz")
    write_image(VOLUME, tmp_path / "scan_dark_fluid.nii.gz")
    table = inspect(tmp_path)
    assert [row[1] for row in table.rows] == ["t2", "flair"] or [row[1] for row in table.rows] == ["flair", "t2"]
    assert "flair: scan_dark_fluid.nii.gz" in table.notes


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DatasetError, match="no case"):
        inspect(tmp_path)


def test_several_studies(tmp_path):
    for number, name in enumerate(("flair", "t2"), 1):
        write_slices(VOLUME, tmp_path / name, describe(number, study=name, **SEQUENCES[name]))
    table = inspect(tmp_path)
    assert table.title == f"2 studies in {tmp_path}" and not table.unusable
    assert [row[:3] for row in table.rows] == [("flair", "series 1", "flair"), ("t2", "series 2", "t2")]
    assert table.notes == ["flair: flair: series 1", "t2: t2: series 2"]


def test_images_beside_a_case_are_told(tmp_path):
    for name in ("study1_flair", "study1_t1", "study1_sag_T1W", "study1_brainmask"):
        write_image(VOLUME, tmp_path / f"{name}.nii.gz")
    table = inspect(tmp_path)
    assert "study1_sag_T1W.nii.gz may be t1, but is no part of the case" in table.notes and not table.unusable


def test_a_study_without_a_sequence_is_shown_and_unusable(tmp_path):
    write_slices(VOLUME, tmp_path, describe(1, SeriesDescription="localizer"))
    table = inspect(tmp_path)
    assert [row[:2] for row in table.rows] == [("series 1 (localizer)", "localizer")]
    assert len(table.unusable) == 1 and "none of flair, t1" in table.unusable[0]


def test_a_folder_with_nothing_that_can_be_used(tmp_path):
    write_slices(VOLUME, tmp_path / "ct", describe(1, Modality="CT"))
    with pytest.raises(DatasetError, match="case ct: series 1 is CT, not MR"):
        inspect(tmp_path)
