"""Codecs against the same image uncompressed; the files come with pydicom, those of JPEG Lossless are made by dcmtk."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import HTJ2KLossless, JPEGLossless, JPEGLosslessSV1

from brainsegnet.errors import ImageError
from brainsegnet.io.dicom_pixels import decode


@pytest.fixture(scope="module")
def plain():
    return decode(pydicom.dcmread(get_testdata_file("MR_small.dcm")), "MR_small.dcm")


@pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_lossless_codecs_give_the_same_voxels(plain, name):
    array = decode(pydicom.dcmread(get_testdata_file(f"MR_small_{name}.dcm")), name)
    assert array.dtype == np.int16 and array.dtype.isnative
    np.testing.assert_array_equal(array, plain)


@pytest.mark.parametrize(("option", "syntax"), [("+e1", JPEGLosslessSV1), ("+el", JPEGLossless)])
def test_jpeg_lossless_as_scanners_send_it(plain, tmp_path, option, syntax):
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg of dcmtk is not installed")
    path = tmp_path / "lossless.dcm"
    subprocess.run(["dcmcjpeg", option, get_testdata_file("MR_small.dcm"), path], check=True)
    data = pydicom.dcmread(path)
    assert data.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(decode(data, "lossless"), plain)


def test_jpeg_of_12_bits_that_only_gdcm_reads():
    lossy = decode(pydicom.dcmread(get_testdata_file("JPEG-lossy.dcm")), "JPEG-lossy.dcm")
    assert lossy.shape == (1, 1024, 256) and 0 <= lossy.min() < lossy.max() < 4096


def test_jpeg_2000_by_two_decoders(monkeypatch):
    data = pydicom.dcmread(get_testdata_file("693_J2KI.dcm"))
    by_pydicom = decode(data, "file")

    def fail(*_, **__):
        raise RuntimeError("no decoder")

    monkeypatch.setattr("brainsegnet.io.dicom_pixels.pixel_array", fail)
    np.testing.assert_array_equal(decode(data, "file"), by_pydicom)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "MR_truncated.dcm",
            r"\(Explicit VR Little Endian\) cannot be read: The number of bytes of pixel data is less",
        ),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "cannot be decoded, they are damaged"),
    ],
)
def test_damaged_pixels_are_refused(name, said):
    with pytest.raises(ImageError, match=f"^the pixels of {name}.*{said}") as caught:
        decode(pydicom.dcmread(get_testdata_file(name)), name)
    assert "\n" not in str(caught.value)


def test_a_codec_that_is_not_known_is_named():
    data = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    data.file_meta.TransferSyntaxUID = HTJ2KLossless
    with pytest.raises(ImageError, match="High-Throughput JPEG 2000"):
        decode(data, "file")
