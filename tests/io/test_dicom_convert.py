"""dcm2niix for what is not read here: with a stand-in for the program, and with itself where it is installed."""

import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainsegnet.errors import ImageError, MissingExtra
from brainsegnet.io.dicom import read_study
from brainsegnet.io.dicom_convert import convert_series
from brainsegnet.io.dicom_sources import read_sources
from brainsegnet.io.images import write_image
from brainsegnet.volume import Volume
from dicom_writer import describe, write_slices


def make_volume(seed=0, shape=(6, 16, 12)):
    affine = np.diag([4.0, 0.9, 0.8, 1.0])[[2, 1, 0, 3]]
    return Volume(np.random.default_rng(seed).integers(0, 2000, shape).astype(np.int16), affine)


@pytest.fixture
def study(tmp_path):
    """A series that is read, and one of a kind that is not."""
    write_slices(make_volume(1), tmp_path / "study", describe(1, SeriesDescription="t1"))
    frames = describe(2, SeriesDescription="odd", ImageType=["ORIGINAL", "PRIMARY", "VFRAME"])
    write_slices(make_volume(2), tmp_path / "study", frames)
    return tmp_path / "study"


@pytest.fixture
def program(monkeypatch):
    """A stand-in for dcm2niix that writes what the test asks for: name of file, without the series UID, to volume."""
    files = {}

    def main(arguments, **options):
        out, uid = Path(arguments[arguments.index("-o") + 1]), describe(2)["SeriesInstanceUID"]
        assert Path(arguments[-1]).is_dir() and list(Path(arguments[-1]).rglob("*-*")) and options["timeout"]
        for name, volume in files.items():
            write_image(volume, out / f"{uid}{name}.nii")

    monkeypatch.setitem(sys.modules, "dcm2niix", SimpleNamespace(main=main))
    return files


def test_nothing_is_converted_unasked(study):
    found = read_study(study)
    assert len(found.series) == 1 and str(found.refused[0]).endswith("convert it with dcm2niix")
    assert found.refused[0].header.number == 2


@pytest.mark.parametrize("packed", [False, True])
def test_a_refused_series_is_converted(study, program, tmp_path, packed):
    volume = make_volume(2)
    program[""] = volume
    if packed:
        with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
            for path in study.iterdir():
                archive.write(path, path.name)
    found = read_study(tmp_path / "study.zip" if packed else study, convert=True)
    assert [series.header.description for series in found.series] == ["t1", "odd"] and not found.refused
    series = found.series[1]
    assert len(series) == 1 and series.shape == volume.shape and series.plane == "axial"
    assert series.read().on_grid_of(volume) and "converted by dcm2niix" in series.notes[0]
    np.testing.assert_array_equal(series.read_all().array[0], volume.array)
    with pytest.raises(ImageError, match=r"series 2 \(odd\) was converted; choose another sequence"):
        read_sources(series)


def test_of_two_forms_the_corrected_one_counts_and_single_slices_do_not(study, program):
    program.update(
        {"": make_volume(1), "_Eq_1": make_volume(2), "_e2": make_volume(3), "a": make_volume(shape=(1, 9, 9))}
    )
    found = read_study(study, convert=True)
    arrays = [series.read().array for series in found.series[1:]]
    assert len(arrays) == 2 and (arrays[0] == make_volume(2).array).all() and (arrays[1] == make_volume(3).array).all()


def test_what_the_program_cannot_convert_stays_refused(study, program):
    found = read_study(study, convert=True)
    assert len(found.series) == 1 and len(found.refused) == 1


def test_without_the_program_the_extra_is_named(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    with pytest.raises(MissingExtra, match=r'run: pip install "brainsegnet\[dcm2niix\]"'):
        read_study(study, convert=True)


def test_the_program_itself_makes_the_same_volume(study):
    if find_spec("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed")
    series = read_study(study).series[0]
    (images,) = convert_series(study, [series.header.series_uid])[series.header.series_uid]
    judge, volume = images.frame(0), series.read()
    index = np.argwhere(np.ones(volume.shape))
    there = np.c_[index, np.ones(len(index))] @ (np.linalg.inv(judge.affine) @ volume.affine).T
    np.testing.assert_allclose(there, np.rint(there), atol=1e-3)
    np.testing.assert_array_equal(judge.array[tuple(np.rint(there[:, :3]).astype(int).T)], volume.array.ravel())
