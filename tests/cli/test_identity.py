"""Names, numbers and dates of patients in the headers of images reach no file, no name of a file and no screen."""

import gzip
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels

SECRETS = ("DOE^JANE", "MRN0815", "19520229", "StMaryHosp")
FIELDS = {"PatientName": SECRETS[0], "PatientID": SECRETS[1], "0010|0030": SECRETS[2], "Institution": SECRETS[3]}


def nifti(volume, path, suffix=".nii.gz"):
    """In all text fields of the header, in an extension, and in the name that gzip keeps."""
    image = nibabel.Nifti1Image(volume.array.T, np.diag([-1, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]])
    header = image.header
    header["descrip"], header["aux_file"] = f"{SECRETS[0]} {SECRETS[2]}", SECRETS[1]
    header["db_name"], header["intent_name"] = SECRETS[1], SECRETS[3]
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", " ".join(SECRETS).encode()))
    with path.with_name(path.name + suffix).open("wb") as plain:
        with gzip.GzipFile(" ".join(SECRETS), "wb", fileobj=plain) as file:
            file.write(image.to_bytes())


def itk(suffix):
    def write(volume, path):
        image = sitk.GetImageFromArray(volume.array)
        for key, value in FIELDS.items():
            image.SetMetaData(key, value)
        sitk.WriteImage(image, str(path.with_name(path.name + suffix)), useCompression=True)

    return write


@pytest.mark.parametrize("write", [nifti, itk(".mha"), itk(".nrrd")], ids=["NIfTI", "MetaImage", "NRRD"])
def test_what_a_header_says_of_a_patient_stays_there(run, quick, phantoms, tmp_path, write):
    data = tmp_path / "data"
    for case in find_cases([phantoms]):
        (data / case.name).mkdir(parents=True)
        for name, path in case.images.items():
            write(read_image(path), data / case.name / name)
        write(read_labels(case.lesion), data / case.name / "lesion")
    held = b"".join(gzip_or_plain(path) for path in data.rglob("*.*"))
    assert any(secret.encode() in held for secret in SECRETS)

    out, said = tmp_path / "out", ""
    for command in (
        ("train", data, "--task", "brats2015", "--out", out / "run", "--steps", 2, "--hold-out", "phantom0002"),
        ("segment", data, "--model", out / "run", "--out", out / "found", "--device", "cpu", "--probabilities",
         "--report", "--picture"),
        ("evaluate", out / "found", data, "--task", "brats2015", "--out", out / "scores"),
        ("report", out / "found", data, "--task", "brats2015", "--out", out / "found.html"),
        ("report", out / "run", "--out", out / "run.html"),
        ("inspect", data),
        ("inspect", data / "phantom0000"),
        ("inspect", out / "run"),
    ):  # fmt: skip
        ended = run(*command)
        assert ended.code == 0, ended.err
        said += ended.out + ended.err
    shutil.rmtree(data)
    for path in tmp_path.rglob("*"):
        content = gzip_or_plain(path) if path.is_file() else b""
        for secret in SECRETS:
            assert secret not in str(path) and secret.encode() not in content and secret not in said, path


def gzip_or_plain(path):
    content = path.read_bytes()
    return content + (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b"")
