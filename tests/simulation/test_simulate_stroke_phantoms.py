import hashlib

import numpy as np
import pytest

from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.simulation.simulate import open_shapes, simulate_strokes
from brainsegnet.task import ISLES2017, ISLES2022
from brainsegnet.volume import LabelMap


def hashes(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.nii*")}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of one lesion mask in MNI space, a ball."""
    folder = tmp_path_factory.mktemp("shapes") / "masks"
    folder.mkdir()
    affine = np.array([[0, 0, 3.0, -90], [0, 3.0, 0, -90], [3.0, 0, 0, -60], [0, 0, 0, 1]])
    z, y, x = np.indices((60, 60, 60)) * 3.0 - np.array([60, 90, 90]).reshape(3, 1, 1, 1)
    ball = np.sqrt((z - 25) ** 2 + (y - 10) ** 2 + (x - 35) ** 2) < 25
    write_image(LabelMap(ball.astype(np.uint8), affine), folder / "one_lesion.nii.gz")
    return folder.parent


def test_the_same_seed_and_shapes_give_the_same_bytes(shapes, tmp_path):
    for name in ("a", "b"):
        simulate_strokes(tmp_path / name, "isles2022", 2, 3, open_shapes(shapes), detail=0.35)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") and len(hashes(tmp_path / "a")) == 6
    (folder,) = simulate_strokes(tmp_path / "c", "isles2022", 1, 4, open_shapes(shapes), detail=0.35)
    assert hashes(folder) == hashes(tmp_path / "a" / folder.name)


def test_isles_2022_is_found_and_loaded(tmp_path):
    told = []
    simulate_strokes(tmp_path, "isles2022", 1, 9, watch=told.append, detail=0.35)
    (found,) = find_cases([tmp_path])
    assert [found.name] == told == ["sub-strokephantom0009"]
    case = load_case(found, ISLES2022.sequences, ISLES2022, lesion=True)
    assert set(np.unique(case.lesion.array)) == {0, 1}


def test_isles_2017_has_seven_files_of_its_names(tmp_path):
    (folder,) = simulate_strokes(tmp_path, "isles2017", 1, 2, detail=0.35)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.nii"))
    kinds = [name.split(".XX.O.")[1].split(".")[0] for name in names]
    assert folder.name == "phantom_2", "a name that no case of ISLES 2017 has"
    assert kinds == ["MR_ADC", "MR_MTT", "MR_TTP", "MR_Tmax", "MR_rCBF", "MR_rCBV", "OT"]
    lesion = read_labels(next(folder.glob("*OT*/*.nii")))
    assert lesion.array.any()
    (found,) = find_cases([tmp_path])
    assert (found.name, found.layout, found.convention) == ("phantom_2", "ISLES 2017", ISLES2017)
    case = load_case(found, ISLES2017.sequences, ISLES2017, lesion=True)
    assert np.array_equal(case.lesion.array, lesion.array) and set(case.images) == set(ISLES2017.sequences)


@pytest.mark.parametrize(("cases", "seed"), [(0, 0), (1, -1)])
def test_what_cannot_be_grown_is_refused(tmp_path, cases, seed):
    with pytest.raises(TaskError):
        simulate_strokes(tmp_path / "out", "isles2022", cases, seed)
    assert not list(tmp_path.rglob("*"))


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no lesion masks .* name a folder"):
        open_shapes(tmp_path)


@pytest.mark.real
def test_real_shapes_and_territories_are_opened(real_data):
    library = open_shapes(real_data / "lesion_shapes")
    mask = library.draw_shape(np.random.default_rng(0))
    assert library.atlas is not None and library.atlas.shape == mask.shape and set(np.unique(mask.array)) == {0, 1}
