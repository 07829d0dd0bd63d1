"""Brain extraction: the same brain however a scan is stored, sequences compared, and no mask where no brain is."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.heads import brain_mask, from_synthseg
from brainsegnet.errors import ImageError, ModelError
from brainsegnet.inference.brain import BrainExtractor, extract_brain
from brainsegnet.io.dicom import read_study
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.metrics.scores import dice
from brainsegnet.model.brain_card import BRAIN_HOME
from brainsegnet.preprocessing.alignment import Alignment, Motion, align
from brainsegnet.preprocessing.geometry import Turn, turn, turn_array
from brainsegnet.simulation.head import BRIGHTNESS, SEQUENCES
from brainsegnet.volume import Volume, load_itk

MARGIN = 6
NAMES = ("flair", "t1", "t1c", "t2")


@pytest.fixture(scope="module")
def extractor():
    return BrainExtractor(threads=2)


@pytest.fixture(scope="module")
def head(onion):
    return from_synthseg(onion())


@pytest.fixture(scope="module")
def truth(head):
    return np.pad(brain_mask(head), MARGIN)


@pytest.fixture(scope="module")
def images(head):
    """Four sequences of a head of balls, on one grid of 2 mm, with noise and air around."""
    rng, result = np.random.default_rng(0), {}
    for name in NAMES:
        *tissues, fat, muscle = (row[SEQUENCES.index(name)] for row in BRIGHTNESS.values())
        table = np.array([*tissues, *[fat] * 4, *[muscle] * 4], np.float32)
        array = np.pad(table[head.array], MARGIN)
        result[name] = Volume(array + 0.02 * rng.standard_normal(array.shape).astype(np.float32), head.affine)
    return result


def in_place(names=NAMES):
    return Alignment(names[0], {name: Motion("in place") for name in names})


def moved(volume, shift_mm):
    affine = volume.affine.copy()
    affine[:3, 3] += shift_mm
    return Volume(volume.array, affine)


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_the_brain_in_any_sequence(name, images, truth, extractor):
    found = extractor(images[name])
    assert found.is_brain and not found.defect
    assert dice(found.mask_on(images[name]), truth) > 0.7
    assert found.to_json() == pytest.approx(
        {
            "volume_ml": found.volume_ml,
            "largest_share": found.largest_share,
            "mean_probability": found.mean_probability,
            "detail": found.detail,
        },
        abs=0.06,
    )


@pytest.mark.parametrize("how", [Turn((2, 0, 1), (True, False, True)), Turn((0, 1, 2), (False, False, True))])
def test_axes_of_the_file_change_nothing(how, images, extractor):
    scan = images["t1"]
    stored = turn(scan, how)
    assert np.array_equal(extractor(stored).mask_on(stored), turn_array(extractor(scan).mask_on(scan), how))


def test_the_mirror_image_has_the_mirrored_brain(images, extractor):
    image = extractor.run(images["t2"].array)
    assert extractor.run(images["t2"].array[..., ::-1])[..., ::-1] == pytest.approx(image, abs=1e-3)


def test_the_unit_of_intensities_changes_nothing(images, extractor):
    scan = images["flair"]
    scaled = scan.with_array(scan.array * 731 + 50)
    assert dice(extractor(scaled).mask_on(scan), extractor(scan).mask_on(scan)) > 0.99


@pytest.mark.parametrize("axis", range(3))
def test_thick_slices_hold_the_same_brain(axis, images, extractor):
    scan, step = images["t1"], 3
    count = scan.shape[axis] // step * step
    cut = scan.array.take(range(count), axis)
    parts = np.stack([cut.take(range(i, count, step), axis) for i in range(step)]).mean(0)
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (step - 1) / 2
    affine[:3, axis] *= step
    thick = Volume(parts, affine)
    found, whole = extractor(thick), extractor(scan)
    assert found.is_brain
    assert found.volume_ml == pytest.approx(whole.volume_ml, rel=0.15)


def test_a_cut_field_of_view_is_a_head_too(images, extractor):
    scan = images["t2"]
    assert extractor(scan.with_array(scan.array[20:, :, 15:])).is_brain


def test_threads_share_one_network(images, extractor):
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(extractor, images.values()))
    for one, image in zip(together, images.values(), strict=True):
        assert np.array_equal(one.logits.array, extractor(image).logits.array)


NOTHING = {
    "noise": np.random.default_rng(1).rayleigh(1, (60, 60, 60)).astype(np.float32),
    "constant": np.full((40, 50, 60), 7, np.int16),
    "one slice": np.random.default_rng(2).random((1, 60, 60)),
    "tiny": np.arange(27.0).reshape(3, 3, 3),
    "one voxel": np.ones((1, 1, 1)),
    "NaN": np.full((20, 20, 20), np.nan, np.float32),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_no_brain_is_one_sentence_that_names_case_sequence_and_remedy(kind, images, extractor):
    scans = {**images, "t2": Volume(NOTHING[kind], np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]])}
    with pytest.raises(ImageError, match=r"^case p7: no brain was found in t2: \d+ ml .*--brain-mask") as error:
        extract_brain("p7", scans, in_place(), images["t1"], extractor)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def whole(images, extractor):
    return extract_brain("p7", images, in_place(), images["flair"], extractor)


def test_sequences_that_agree_give_one_brain(whole, truth):
    assert whole.mask.shape == truth.shape and dice(whole.mask, truth) > 0.7
    assert set(whole.volumes_ml) == set(NAMES)
    report = json.loads(json.dumps(whole.to_json()))
    assert report["how"] == "extracted" and min(one["agreement"] for one in report["sequences"].values()) > 0.85


@pytest.mark.parametrize(
    ("shift_mm", "lacks", "adds"),
    [((0, 0, 24), "at the bottom", "at the top"), ((0, -24, 0), "at the back", "at the front"),
     ((24, 0, 0), "on the right", "on the left")],
)  # fmt: skip
def test_a_sequence_that_moved_is_named_with_place_and_volume(shift_mm, lacks, adds, images, whole, extractor):
    scans = {**images, "t1c": moved(images["t1c"], shift_mm)}
    brain = extract_brain("p7", scans, in_place(), images["flair"], extractor)
    (warning,) = (said for said in brain.warnings if said.startswith("t1c"))
    assert lacks in warning and adds in warning
    assert brain.agreement["t1c"].lacks_ml > 60
    assert dice(brain.mask, whole.mask) > 0.97, "the others outvote it"


def test_a_transform_brings_a_moved_sequence_back(images, extractor):
    shift = load_itk().TranslationTransform(3, (0.0, 0.0, 24.0))
    alignment = Alignment("flair", {**in_place().motions, "t1c": Motion("registered", None, shift)})
    scans = {**images, "t1c": moved(images["t1c"], (0, 0, 24))}
    brain = extract_brain("p7", scans, alignment, images["flair"], extractor)
    assert not [said for said in brain.warnings if said.startswith("t1c lacks")]
    assert brain.agreement["t1c"].dice > 0.85


def test_what_was_not_scanned_is_said_and_no_vote_against_it(images, whole, extractor):
    t2 = images["t2"]
    affine = t2.affine.copy()
    affine[:3, 3] += affine[:3, 0] * 35
    scans = {**images, "t2": Volume(t2.array[35:], affine)}
    brain = extract_brain("p7", scans, in_place(), images["flair"], extractor)
    (warning,) = (said for said in brain.warnings if said.startswith("t2 "))
    assert "was not scanned in" in warning and "at the bottom" in warning
    assert brain.agreement["t2"].unseen_ml > 20
    assert dice(brain.mask, whole.mask) > 0.95


def test_the_grid_of_the_model_may_be_another(images, whole, truth, extractor):
    fine = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    fine[:3, 3] = images["t1"].affine[:3, 3] - 0.5
    grid = Volume(np.broadcast_to(np.uint8(0), tuple(2 * n for n in truth.shape)), fine)
    brain = extract_brain("p7", images, in_place(), grid, extractor)
    assert brain.mask.sum() / 8 == pytest.approx(whole.mask.sum(), rel=0.02)


def test_the_reference_may_be_stripped_and_have_no_part(images, whole, extractor):
    rest = {name: image for name, image in images.items() if name != "flair"}
    brain = extract_brain("p7", rest, in_place(), images["flair"], extractor)
    assert set(brain.found) == set(rest) and dice(brain.mask, whole.mask) > 0.95


def test_a_doubtful_sequence_has_no_vote_among_three(images, extractor):
    class Doubting(BrainExtractor):
        def __call__(self, scan):
            found = super().__call__(scan)
            if scan is images["t2"]:
                object.__setattr__(found, "mean_probability", 0.5)
            return found

    doubting = Doubting(threads=2)
    brain = extract_brain("p7", images, in_place(), images["flair"], doubting)
    assert [said for said in brain.warnings if said.startswith("t2 shows no clear brain")]
    three = {name: image for name, image in images.items() if name != "t2"}
    alone = extract_brain("p7", three, in_place(tuple(three)), images["flair"], extractor)
    assert np.array_equal(brain.mask, alone.mask)
    two = {name: images[name] for name in ("flair", "t2")}
    with pytest.raises(ImageError, match="no brain was found in t2: nothing looks clearly like a brain"):
        extract_brain("p7", two, in_place(tuple(two)), images["flair"], doubting)


def test_a_lesion_at_the_surface_stays(images, truth, extractor):
    """A bright ball across the surface of the brain, as a tumour under the skull."""
    where = np.argwhere(truth)
    centre = where[np.argmax(where[:, 2])]
    inside = np.linalg.norm(np.moveaxis(np.indices(truth.shape), 0, -1) - (centre - (0, 0, 6)), axis=-1) < 7
    lesion = inside & ndimage.binary_fill_holes(truth)
    scans = {name: image.with_array(np.where(lesion, 1.6, image.array)) for name, image in images.items()}
    brain = extract_brain("p7", scans, in_place(), images["flair"], extractor)
    assert brain.mask[lesion].mean() > 0.9


def test_an_altered_model_is_refused(tmp_path):
    home = shutil.copytree(BRAIN_HOME, tmp_path / "brain")
    with (home / "brain.xml").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=r"brain.xml is not the file that its card describes"):
        BrainExtractor(home=home)
    (home / "brain.xml").unlink()
    with pytest.raises(ModelError, match=r"brain.xml cannot be read"):
        BrainExtractor(home=home)
    card = json.loads((home / "brain.json").read_text())
    (home / "brain.json").write_text(json.dumps({**card, "format": 2}))
    with pytest.raises(ModelError, match="has format 2, this version reads 1"):
        BrainExtractor(home=home)
    (home / "brain.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        BrainExtractor(home=home)


@pytest.mark.real
def test_a_test_pattern_shows_no_brain_and_a_head_does(real_data, extractor):
    (pattern,) = read_study(real_data / "dicom" / "ge_t1").series
    assert not extractor(pattern.read()).is_brain
    (head,) = read_study(real_data / "dicom" / "head_t1").series
    assert extractor(head.read()).is_brain


@pytest.mark.real
@pytest.mark.parametrize(
    "place",
    ["lesjak-p01/study1_T1W.nii.gz", "lesjak-p01/study1_T2W.nii.gz", "lesjak-p01/study1_FLAIR.nii.gz",
     "heads/flair_py_synthsr.nii.gz", "heads/t1_elderly.nii.gz", "thick_t1c/brain1_image.nrrd"],
)  # fmt: skip
def test_every_real_head_shows_a_brain(place, real_data, extractor):
    found = extractor(read_image(real_data / "raw" / place))
    assert found.is_brain and 800 < found.volume_ml < 2000


@pytest.mark.real
def test_the_brain_of_a_patient_agrees_with_that_of_another_tool(real_data, extractor):
    folder = real_data / "raw" / "tcga-fg-6692"
    scans = {name: read_image(folder / f"TCGA-FG-6692_{name}.nii.gz") for name in NAMES}
    alignment = align("p", scans)
    brain = extract_brain("p", scans, alignment, scans[alignment.reference], extractor)
    assert not brain.warnings
    scores = []
    for name, scan in scans.items():
        mask = read_labels(folder / f"TCGA-FG-6692_{name}_hdbet_mask.nii.gz").array > 0
        scores.append(dice(extractor(scan).mask_on(scan), mask))
        if name == alignment.reference:
            assert dice(brain.mask, mask) > 0.94
    assert np.mean(scores) > 0.95


def test_a_bottle_of_the_size_of_a_head_is_no_brain(extractor, rng):
    z, y, x = np.ix_(*((np.arange(96) - 47.5) * 2,) * 3)
    bottle = np.where((np.hypot(y, x) < 85) & (np.abs(z) < 85), 800 + 80 * np.cos(x / 40), 0.0)
    noisy = np.abs(bottle + rng.normal(0, 15, bottle.shape)).astype(np.float32)
    found = extractor(Volume(noisy, np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]))
    assert not found.is_brain and found.volume_ml > 500 and "as a phantom is" in found.defect
