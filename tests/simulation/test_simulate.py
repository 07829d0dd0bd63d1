"""`simulate`: a seed gives the same files, in the names of public data sets; what cannot be simulated is refused."""

import hashlib
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, DatasetError, TaskError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.progress import Callback
from brainsegnet.simulation.simulate import SimulateOptions, open_library, simulate
from brainsegnet.task import BRATS2015, ISLES2017, ISLES2022
from brainsegnet.volume import LabelMap

SHAPE, SMALL = (24, 40, 40), (32, 44, 40)


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(phantoms, tmp_path):
    simulate(tmp_path / "again", SimulateOptions(3, 0, SHAPE))
    assert hashes(tmp_path / "again") == hashes(phantoms) and len(hashes(phantoms)) == 18
    simulate(tmp_path / "other", SimulateOptions(1, 7, SHAPE))
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(phantoms).values())


def test_case_i_is_simulated_from_seed_plus_i(phantoms, tmp_path):
    (folder,) = simulate(tmp_path, SimulateOptions(1, 2, SHAPE))
    assert folder.name == "phantom0002" and hashes(folder) == hashes(phantoms / "phantom0002")


def test_a_phantom_is_a_case_of_brats_2015(phantoms):
    cases = find_cases([phantoms])
    assert [case.name for case in cases] == ["phantom0000", "phantom0001", "phantom0002"]
    case = load_case(cases[0], BRATS2015.sequences, BRATS2015, lesion=True)
    assert case.reference.shape == SHAPE and set(np.unique(case.lesion.array)) == {0, 1, 2, 3, 4}


class Names(Callback):
    """Keeps the name of each case that is done."""

    def __init__(self, names):
        self.names = names

    def on_case(self, name, result):
        self.names.append(name)


def test_each_case_is_reported(tmp_path):
    names = []
    folders = simulate(tmp_path, SimulateOptions(2, 5, SHAPE), Names(names))
    assert [folder.name for folder in folders] == names == ["phantom0005", "phantom0006"]


@pytest.mark.parametrize("stroke", [None, "isles2022"])
@pytest.mark.parametrize(("cases", "seed"), [(0, 0), (-3, 0), (1, -1)])
def test_numbers_out_of_range_are_refused(cases, seed, stroke):
    with pytest.raises(TaskError, match=r"ask for one or more|seed must be 0 or more"):
        SimulateOptions(cases, seed, stroke=stroke)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"stroke": "isles2022", "realistic": True}, "leave out --realistic or --stroke"),
        ({"stroke": "isles2017", "shape": SHAPE}, "leave out --shape or --stroke"),
        ({"shapes": "masks"}, "add --stroke isles2022"),
        ({"detail": 0.5, "realistic": True}, "add --stroke isles2022"),
        ({"anatomy": "procedural"}, "--anatomy procedural is for .*; add --realistic or --stroke"),
    ],
)
def test_options_that_do_not_go_together_are_refused(chosen, sentence):
    with pytest.raises(TaskError, match=sentence):
        SimulateOptions(**chosen)


def test_a_shape_that_is_too_coarse_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(BrainSegNetError, match="too coarse"):
        simulate(tmp_path / "out", SimulateOptions(1, 0, (3, 4, 5)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_realistic_cases_are_cases_of_brats_2015_and_repeat(tmp_path):
    for name in ("a", "b"):
        folders = simulate(tmp_path / name, SimulateOptions(2, 4, SMALL, realistic=True, anatomy="procedural"))
    assert [folder.name for folder in folders] == ["glioma0004", "glioma0005"]
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") and len(set(hashes(tmp_path / "a").values())) == 12
    for found in find_cases([tmp_path / "a"]):
        case = load_case(found, BRATS2015.sequences, BRATS2015, lesion=True)
        assert case.lesion.array.any()


@pytest.mark.parametrize(
    ("anatomy", "shape", "sentence"),
    [
        ("nowhere", None, "nowhere holds no label maps"),
        ("tests", None, "tests holds no label maps"),
        ("icbm152", SMALL, "the anatomy icbm152 keeps its grid; leave the shape out"),
        ("tests", SMALL, "the anatomy tests keeps its grid; leave the shape out"),
    ],
)
def test_an_anatomy_that_cannot_be_had_is_refused(tmp_path, anatomy, shape, sentence):
    with pytest.raises(BrainSegNetError, match=sentence):
        simulate(tmp_path / "out", SimulateOptions(1, 0, shape, realistic=True, anatomy=anatomy))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("nilearn") is not None, reason="nilearn is installed")
def test_the_template_needs_an_extra_that_is_named(tmp_path):
    with pytest.raises(BrainSegNetError, match=r"brainsegnet\[synthesis\]"):
        simulate(tmp_path / "out", SimulateOptions(1, 0, realistic=True, anatomy="icbm152"))


@pytest.mark.parametrize("chosen", [f"shape={SHAPE}", "stroke='isles2022', detail=0.3"])
def test_phantoms_and_strokes_are_simulated_without_torch(tmp_path, chosen):
    code = f"import sys, pathlib, brainsegnet as b; b.simulate(pathlib.Path({str(tmp_path)!r}), "
    code += f"b.SimulateOptions(1, {chosen})); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_options_are_light_to_import():
    code = "import sys, brainsegnet.simulation.simulate; print({'numpy', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


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


def test_the_same_seed_and_shapes_give_the_same_strokes(shapes, tmp_path):
    for name in ("a", "b"):
        simulate(tmp_path / name, SimulateOptions(2, 3, stroke="isles2022", shapes=shapes, detail=0.35))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") and len(hashes(tmp_path / "a")) == 8
    (folder,) = simulate(tmp_path / "c", SimulateOptions(1, 4, stroke="isles2022", shapes=shapes, detail=0.35))
    assert hashes(folder) == hashes(tmp_path / "a" / folder.name)


def test_isles_2022_is_found_and_loaded(tmp_path):
    names = []
    simulate(tmp_path, SimulateOptions(1, 9, stroke="isles2022", detail=0.35), Names(names))
    (found,) = find_cases([tmp_path])
    assert [found.name] == names == ["sub-strokephantom0009"]
    case = load_case(found, ISLES2022.sequences, ISLES2022, lesion=True)
    assert set(np.unique(case.lesion.array)) == {0, 1}


def test_isles_2017_has_seven_files_of_its_names(tmp_path):
    (folder,) = simulate(tmp_path, SimulateOptions(1, 2, stroke="isles2017", detail=0.35))
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


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no lesion masks .* name a folder"):
        open_library(tmp_path)


@pytest.mark.real
def test_real_shapes_and_territories_are_opened(real_data):
    library = open_library(real_data / "lesion_shapes")
    mask = library.draw_shape(np.random.default_rng(0))
    assert library.atlas is not None and library.atlas.shape == mask.shape and set(np.unique(mask.array)) == {0, 1}


def test_a_case_that_exists_is_not_replaced_and_a_stopped_run_continues(tmp_path):
    from brainsegnet._atomic import OutputOptions
    from brainsegnet.errors import OutputError

    out, two, three = tmp_path / "out", SimulateOptions(2, 0, SHAPE), SimulateOptions(3, 0, SHAPE)
    skip, replace, verify = OutputOptions(False, True), OutputOptions(True), OutputOptions(False, True, True)
    simulate(out, two)
    before, names = hashes(out), []
    with pytest.raises(OutputError, match=r"phantom0000 is there already \(and 1 more\); add --skip-existing"):
        simulate(out, three)
    assert hashes(out) == before
    assert len(simulate(out, three, Names(names), skip)) == 3 and names == ["phantom0002"]
    simulate(tmp_path / "whole", three)
    assert hashes(out) == hashes(tmp_path / "whole")

    with pytest.raises(OutputError, match="is another result: it was simulated with other options; add --overwrite"):
        simulate(out, SimulateOptions(2, 0, SMALL), output=skip)
    image = next((out / "phantom0001").rglob("*.mha"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    simulate(out, three, Names(names), skip)
    assert names == ["phantom0002"]
    simulate(out, three, Names(names), verify)
    assert names == ["phantom0002", "phantom0001"] and hashes(out) == hashes(tmp_path / "whole")
    (out / "phantom0000" / "simulated.json").unlink()
    simulate(out, three, Names(names), skip)
    simulate(out, SimulateOptions(1, 0, SMALL), Names(names), replace)
    assert names[2:] == ["phantom0000", "phantom0000"]
    assert hashes(out)["phantom0001/simulated.json"] and len(hashes(out)) == 18
