import numpy as np
import pytest

from brainsegnet.anatomy.label_maps import FREESURFER, open_anatomies
from brainsegnet.anatomy.procedural import simulate_anatomy
from brainsegnet.errors import DatasetError
from brainsegnet.io.images import write_image
from brainsegnet.training.sampler import Scan
from brainsegnet.volume import LabelMap
from release.packed import Pack, pack_anatomies, read_pack, write_pack


@pytest.fixture
def pack():
    rng = np.random.default_rng(0)

    def scan(shape):
        image = rng.normal(size=(2, *shape)).astype(np.float32) * [[[[1]]], [[[7]]]]
        image[:, 0] = 0
        return Scan(image.astype(np.float32), rng.integers(0, 5, shape, np.uint8), 155, 20, (5.0, 0.5, 0.75))

    return Pack("brats2015", ("flair", "t1c"), {"a b": scan((4, 9, 7)), "é": scan((3, 5, 5))})


def test_what_is_packed_comes_back_within_half_a_level(pack, tmp_path):
    write_pack(pack, tmp_path / "p.npz")
    back = read_pack(tmp_path / "p.npz")
    assert (back.task, back.sequences, list(back.scans)) == (pack.task, pack.sequences, list(pack.scans))
    for name, scan in pack.scans.items():
        found = back.scans[name]
        assert (found.depth, found.first, found.image.dtype) == (155, 20, np.float32)
        assert found.spacing_mm == (5.0, 0.5, 0.75)
        np.testing.assert_array_equal(found.classes, scan.classes)
        np.testing.assert_array_equal(found.image == 0, scan.image == 0)
        half = np.ptp(scan.image, (1, 2, 3)) / 254 / 2
        assert (np.abs(found.image - scan.image).max((1, 2, 3)) <= 1.001 * half).all()


def test_a_voxel_takes_a_byte_a_sequence_at_most(pack, tmp_path):
    voxels = sum(scan.classes.size for scan in pack.scans.values())
    write_pack(pack, tmp_path / "p.npz")
    assert (tmp_path / "p.npz").stat().st_size < voxels * 3 + 4000


def test_what_is_no_pack_is_one_sentence(pack, tmp_path):
    write_pack(pack, tmp_path / "p.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name in ("cut", "text", "other"):
        with pytest.raises(DatasetError, match="is no whole pack of prepared scans"):
            read_pack(tmp_path / f"{name}.npz")
    with pytest.raises(DatasetError, match="does not exist"):
        read_pack(tmp_path / "absent.npz")


def test_packed_anatomies_are_those_of_the_folder(tmp_path):
    table = np.array([0, *(FREESURFER[tissue][0] for tissue in sorted(FREESURFER))], np.int16)
    for number in range(2):
        anatomy = simulate_anatomy(np.random.default_rng(number), (32, 44, 40))
        write_image(LabelMap(np.pad(table[anatomy.array], 3), anatomy.affine), tmp_path / f"subject{number}.nii.gz")
    assert pack_anatomies(tmp_path, tmp_path / "packed.npz") == 2
    maps, packed = open_anatomies(tmp_path), open_anatomies(tmp_path / "packed.npz")
    for number in range(3):
        assert np.array_equal(packed(number).array, maps(number).array)
        assert np.array_equal(packed(number).affine, maps(number).affine)
        assert packed(number).spacing_mm == pytest.approx(maps(number).spacing_mm)
