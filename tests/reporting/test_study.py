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
    assert table.title == f"2 studies in {tmp_path}" and [row[1] for row in table.rows] == ["flair", "t2"]
    assert table.notes[0] == f"{tmp_path} holds 2 studies; name the folder of one"


def test_images_beside_a_case_are_told(tmp_path):
    for name in ("study1_FLAIR", "study1_T1W", "study1_brainmask"):
        write_image(VOLUME, tmp_path / f"{name}.nii.gz")
    assert "study1_T1W.nii.gz may be t1, but is no part of the case" in inspect(tmp_path).notes
