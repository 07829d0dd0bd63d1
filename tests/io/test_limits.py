"""Files made to fill memory are refused in one sentence, in under a second, before anything is inflated."""

import gzip
import json
import subprocess
import sys
import zlib

import nibabel
import numpy as np
import pytest

from brainsegnet.errors import ImageError
from brainsegnet.io.images import check_size, read_image, read_series, write_image
from brainsegnet.io.limits import allow_voxels
from brainsegnet.volume import Volume

MOST_BYTES, MOST_SECONDS = 200_000_000, 1.0
PIECE = bytes(1 << 24)


def nifti_header(*size, offset=352, datatype=np.float32):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(datatype)
    header["dim"] = [len(size), *size, *[1] * (7 - len(size))]
    header["vox_offset"], header["magic"], header["sform_code"] = offset, b"n+1", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    return header.binaryblock + bytes(4)


def nifti2_header(*size):
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.float32)
    header["dim"] = [len(size), *size, *[1] * (7 - len(size))]
    header["vox_offset"], header["sform_code"] = 544, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    return header.binaryblock + bytes(4)


def pair(home, *size):
    header = nibabel.Nifti1Header(nifti_header(*size)[:348], check=False)
    header["magic"], header["vox_offset"] = b"ni1", 0
    (home / "a.hdr").write_bytes(header.binaryblock)
    (home / "a.img.gz").write_bytes(gzip.compress(bytes(100_000)))
    return home / "a.hdr"


def mgh_header(*size):
    header = nibabel.freesurfer.mghformat.MGHHeader()
    header.set_data_shape(size)
    header.set_data_dtype(np.float32)
    return header.binaryblock + bytes(284 - len(header.binaryblock))


def inflating(path, start, total):
    """A gzip of `start` and zeros that inflates to `total` bytes; pieces of zeros are packed once and repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(PIECE) + packer.flush(zlib.Z_FULL_FLUSH)
    count = (total - len(start)) // len(PIECE)
    with path.open("wb") as file:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head)
        for _ in range(count):
            file.write(piece)
        file.write(packer.flush() + bytes(4) + (total % 2**32).to_bytes(4, "little"))
    return path


def meta(path, size, compressed):
    fields = f"ObjectType = Image\nNDims = {len(size)}\nDimSize = {' '.join(map(str, size))}\nElementType = MET_FLOAT\n"
    data = zlib.compress(bytes(100_000)) if compressed else bytes(100)
    kind = f"CompressedData = True\nCompressedDataSize = {len(data)}\n" if compressed else ""
    path.write_bytes(f"{fields}{kind}ElementDataFile = LOCAL\n".encode() + data)
    return path


def nrrd(path, size, encoding):
    text = f"NRRD0004\ntype: float\ndimension: {len(size)}\nsizes: {' '.join(map(str, size))}\nencoding: {encoding}\n"
    directions = " ".join(str(tuple(row)).replace(" ", "") for row in np.eye(3, dtype=int).tolist())
    space = f"space: left-posterior-superior\nspace directions: {directions}\nspace origin: (0,0,0)\nendian: little\n\n"
    path.write_bytes((text + space).encode() + (gzip.compress(bytes(100_000)) if encoding == "gzip" else bytes(100)))
    return path


HOSTILE = {
    "a header alone declares 16 GB": lambda home: inflating(home / "a.nii.gz", nifti_header(2000, 2000, 1000), 352),
    "20 MB inflate to 20 GB": lambda home: inflating(home / "a.nii.gz", nifti_header(2000, 2000, 1250), 20_000_000_352),
    "1.6 GB follow 100 kB of voxels": lambda home: inflating(
        home / "a.nii.gz", nifti_header(30, 30, 30), 1_600_000_000
    ),
    "a header of three axes of 32767": lambda home: inflating(home / "a.nii.gz", nifti_header(*3 * [32767]), 352),
    "a plain header": lambda home: (home / "a.nii").write_bytes(nifti_header(2000, 2000, 1000)) and home / "a.nii",
    "voxels far behind": lambda home: inflating(home / "a.nii.gz", nifti_header(4, 4, 4, offset=2**40), 100_000_000),
    "300 million voxels, declared alone": lambda home: inflating(home / "a.nii.gz", nifti_header(1000, 1000, 300), 352),
    "NIfTI-2": lambda home: inflating(home / "a.nii.gz", nifti2_header(200_000, 200_000, 100_000), 544),
    "a pair of files": lambda home: pair(home, 2000, 2000, 1000),
    "a pair of 300 million": lambda home: pair(home, 1000, 1000, 300),
    "MGH": lambda home: inflating(home / "a.mgz", mgh_header(2000, 2000, 1000), 284),
    "MGH that inflates to 20 GB": lambda home: inflating(home / "a.mgz", mgh_header(2000, 2000, 1250), 20_000_000_284),
    "MetaImage": lambda home: meta(home / "a.mha", (2000, 2000, 1000), compressed=False),
    "packed MetaImage": lambda home: meta(home / "a.mha", (2000, 2000, 1000), compressed=True),
    "packed MetaImage of 300 million": lambda home: meta(home / "a.mha", (1000, 1000, 300), compressed=True),
    "NRRD": lambda home: nrrd(home / "a.nrrd", (2000, 2000, 1000), "raw"),
    "packed NRRD": lambda home: nrrd(home / "a.nrrd", (2000, 2000, 1000), "gzip"),
    "packed NRRD of 300 million": lambda home: nrrd(home / "a.nrrd", (1000, 1000, 300), "gzip"),
}
MEASURE = """
import json, resource, sys, time
from pathlib import Path
import nibabel
from brainsegnet.errors import ImageError
from brainsegnet.io.images import check_size, read_image, read_series
from brainsegnet.volume import load_itk
load_itk(), nibabel.Nifti1Header()
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for path in sys.argv[1:]:
    for read in (check_size, read_image, read_series):
        began, said = time.process_time(), ""
        try:
            read(Path(path))
        except ImageError as error:
            said = str(error)
        print(json.dumps([path, read.__name__, said, time.process_time() - began, peak() - before]))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Hostile file to what each function said of it, the seconds, and the most bytes over all files so far."""
    homes = {name: tmp_path_factory.mktemp("hostile") for name in HOSTILE}
    paths = {str(make(homes[name])): name for name, make in HOSTILE.items()}
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found: dict[str, list] = {name: [] for name in HOSTILE}
    for line in done.stdout.splitlines():
        path, *rest = json.loads(line)
        found[paths[path]].append((path, *rest))
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_second_and_200_mb(refusals, name):
    for path, function, said, seconds, peak in refusals[name]:
        assert seconds < MOST_SECONDS and peak < MOST_BYTES, (function, seconds, peak)
        if function != "check_size" or path.endswith((".nii", ".nii.gz", ".hdr", ".mgz")):
            assert path in said and "\n" not in said


def test_more_voxels_can_be_allowed_and_fewer(tmp_path):
    path = tmp_path / "a.nii.gz"
    write_image(Volume(np.ones((3, 4, 5), np.float32), np.eye(4)), path)
    for read in (read_image, read_series, check_size):
        with allow_voxels(59), pytest.raises(ImageError, match="declares 5 x 4 x 3 voxels, and 59 are read at most"):
            read(path)
        with allow_voxels(60), allow_voxels(None):
            read(path)
        read(path)


def test_an_image_that_the_memory_cannot_hold_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mha"
    write_image(Volume(np.ones((30, 40, 50), np.float32), np.eye(4)), path)
    monkeypatch.setattr("brainsegnet.io.limits.free_memory", lambda: 200_000)
    with pytest.raises(ImageError, match="50 x 40 x 30 voxels, 0 MB in floats, and 0 MB of memory are free"):
        read_image(path)
    monkeypatch.setattr("brainsegnet.io.limits.free_memory", lambda: None)
    read_image(path)


def test_a_header_without_end_is_no_image(tmp_path):
    (tmp_path / "a.mha").write_text("".join(f"k{i} = v\n" for i in range(5000)) + "ElementDataFile = LOCAL\n")
    with pytest.raises(ImageError, match="is no image"):
        read_image(tmp_path / "a.mha")
