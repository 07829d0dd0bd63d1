"""Damaged and odd raw studies, drawn by hypothesis: a sentence or a whole result, and nothing left over.

The laws are those of `test_fuzz.py`. What is added to a study without being a part of it changes no voxel.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from brainsegnet.io.images import read_labels, write_image
from damage import VALUES, changed, damage
from dicom_writer import SEQUENCES, describe, write_slices

CPU = ("--device", "cpu", "--threads", 1)
GARBAGE = {
    "nothing": b"", "text": b"notes on the patient\n", "pdf": b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n<<>>\nendobj\n",
    "zeros": bytes(4096), "preamble": bytes(128) + b"DICM", "cut": bytes(128) + b"DICM\x02\x00\x00\x00UL",
    "group": b"\x08\x00\x05\x00" + b"\xff" * 60, "json": b"{",
    "zip": b"PK\x03\x04" + bytes(40), "gzip": b"\x1f\x8b\x08",
}  # fmt: skip
NAMES = ["IM0001", "report.pdf", "Thumbs.db", "DICOMDIR", "a.dcm", "b.json", "c.zip", ".hidden", "x/y/z", "VERSION"]
BAD = [b"\xff\xfe", b"M\xfcller", b"a\xe9.dcm", b"\x80"]


def share_of(daily: int):
    """Examples: ten times as many by night."""
    return settings(
        max_examples=daily * (10 if settings().max_examples > 100 else 1),
        phases=(Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def without_network(depth_extractor):
    """The brain is found by depth in all tests here."""


@pytest.fixture(scope="module")
def studies(raw_heads, tmp_path_factory):
    """The raw heads as slices of DICOM and, under names that tell nothing, as NIfTI with sidecars."""
    home = tmp_path_factory.mktemp("studies")
    for number, (name, volume) in enumerate(raw_heads.items(), 1):
        tags = describe(number, series=name, SeriesDescription=name, **SEQUENCES[name])
        write_slices(volume, home / "dicom", tags)
        write_image(volume, home / "nifti" / f"{number}.nii.gz")
        sidecar = {"Modality": "MR", "SeriesDescription": name, "SeriesNumber": number, "ConversionSoftware": "x"}
        times = {key: value / 1000 for key, value in SEQUENCES[name].items() if key.endswith("Time")}
        (home / "nifti" / f"{number}.json").write_text(json.dumps(sidecar | times))
    return home


@pytest.fixture
def segment(obey, trained):
    """Segments a study that may be damaged; `check` looks at the label maps of a result."""

    def call(study, *flags, check=lambda maps: None):
        def look(out):
            check([read_labels(path).array for path in out.rglob("*.nii.gz")])

        return obey("segment", study, "--model", trained, "--out", ..., *flags, *CPU, partly=True, check=look)

    return call


@pytest.fixture(scope="module")
def undamaged():
    """The label map of the whole study, once it is known."""
    return []


@pytest.fixture
def same(segment, studies, undamaged):
    """Checks that one label map came out, that of the undamaged study."""
    if not undamaged:
        assert segment(studies / "dicom", check=undamaged.extend)

    def check(maps):
        (found,) = maps
        np.testing.assert_array_equal(found, undamaged[0])

    return check


@pytest.fixture
def copy(studies, tmp_path_factory):
    """Copies one of the studies to a place of its own."""
    return lambda name: Path(shutil.copytree(studies / name, tmp_path_factory.mktemp("copy") / "olga"))


def pack(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))
    return archive


@share_of(6)
@given(data=st.data())
def test_files_that_are_cut_or_missing(segment, obey, copy, data):
    study = copy("dicom")
    series = data.draw(st.sampled_from(["1-*", "2-*", "3-*", "*"]))
    slices = sorted(study.glob(series))
    how = data.draw(st.sampled_from(["cut", "missing", "few", "twice"]))
    if how == "few":
        for path in slices[data.draw(st.integers(0, 4)) :]:
            path.unlink()
    for path in data.draw(st.lists(st.sampled_from(slices), min_size=1, max_size=4, unique=True)):
        if how == "missing":
            path.unlink()
        elif how == "cut":
            path.write_bytes(data.draw(damage(path.read_bytes())))
        elif how == "twice":
            shutil.copy(path, study / f"copy of {path.name}")
    if data.draw(st.booleans()):
        segment(study, *data.draw(st.sampled_from([(), ("--dicom",), ("--resample",), ("--no-register",)])))
    else:
        obey("inspect", study)
    shutil.rmtree(study.parent)


@share_of(4)
@given(data=st.data())
def test_garbage_changes_nothing(segment, same, copy, data):
    study = copy("dicom")
    for name in data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_bytes(GARBAGE[data.draw(st.sampled_from(sorted(GARBAGE)))])
    assert segment(pack(study) if data.draw(st.booleans()) else study, check=same)
    shutil.rmtree(study.parent)


@share_of(3)
@given(data=st.data())
def test_names_that_are_not_utf8_change_nothing(segment, same, copy, data):
    study = copy("dicom")
    try:
        for number, path in enumerate(sorted(study.iterdir())):
            if number % 7 == 0:
                bad = os.fsencode(f"{number:03d}") + data.draw(st.sampled_from(BAD))
                os.rename(os.fsencode(path), os.path.join(os.fsencode(study), bad))
        if data.draw(st.booleans()):
            study = study.rename(study.with_name(os.fsdecode(data.draw(st.sampled_from(BAD)))))
    except OSError:
        pytest.skip("names here are UTF-8")
    assert segment(study, check=same)
    shutil.rmtree(study.parent)


@share_of(5)
@given(data=st.data())
def test_a_damaged_zip(segment, obey, copy, data):
    study = copy("dicom")
    archive = pack(study)
    archive.write_bytes(data.draw(damage(archive.read_bytes())))
    if data.draw(st.booleans()):
        segment(archive)
    else:
        obey("inspect", archive)
    shutil.rmtree(study.parent)


@share_of(5)
@given(data=st.data())
def test_wrong_sidecars(segment, obey, copy, data):
    study = copy("nifti")
    for number in data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, unique=True)):
        sidecar = study / f"{number}.json"
        document = data.draw(changed(json.loads(sidecar.read_text())) | VALUES)
        sidecar.write_text(json.dumps(document), encoding="utf-8")
        if data.draw(st.booleans()):
            sidecar.write_bytes(data.draw(damage(sidecar.read_bytes())))
    if data.draw(st.booleans()):
        segment(study)
    else:
        obey("inspect", study)
    shutil.rmtree(study.parent)


@share_of(5)
@given(data=st.data())
def test_folders_without_images(obey, trained, tmp_path_factory, data):
    study = tmp_path_factory.mktemp("none") / "olga"
    study.mkdir()
    for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True)):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_bytes(GARBAGE[data.draw(st.sampled_from(sorted(GARBAGE)))])
    place = pack(study) if data.draw(st.booleans()) else study
    assert not obey("segment", place, "--model", trained, "--out", ..., *CPU)
    shutil.rmtree(study.parent)
