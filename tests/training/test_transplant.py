"""Transplanted lesions: whose they are, where they may lie, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from brainsegnet.errors import Interrupted, TaskError
from brainsegnet.io.patients import patient_of
from brainsegnet.progress import Callback
from brainsegnet.task import BRATS2021
from brainsegnet.training import TrainOptions, loop
from brainsegnet.training import transplant as subject
from brainsegnet.training.lesion_bank import Tissue, find_lesions
from brainsegnet.training.loop import Plan, fit
from brainsegnet.training.recipes import FINETUNE, RAW, RECIPES, STRONG, Augmentation, Budget, Recipe, Stage
from brainsegnet.training.sampler import Sampler, Scan
from brainsegnet.training.split import load_scans, split_cases
from brainsegnet.training.train import train
from brainsegnet.training.transplant import Transplant, draw_transplant, transplant

ALWAYS = Stage(name="always", share=1, augment=1, gamma=0)
PLAIN = Stage(name="plain", share=1, augment=0, gamma=0)
RECIPE = Recipe(name="r", budget_epochs=1, sampling="lesion", transplant=1.0, augmentation=STRONG)
MM = (1.0, 1.0, 1.0)
SHAPE = (32, 48, 44)
STILL = Transplant(0, (0, 0, 0), (1, 1, 1), (0, 0, 0), 3.0, 7)


def ball(centre, radius, shape=SHAPE):
    """Distances to a centre that are below a radius, as a mask (D, H, W)."""
    return np.square(np.indices(shape) - np.array(centre)[:, None, None, None]).sum(0) <= radius**2


def head(centre=None, seed=0, name="", spacing_mm=MM, shape=SHAPE, value=3.0):
    """A scan of two sequences whose brain leaves a margin, with a bright ball around a darker one."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.3, (2, *shape)).astype(np.float32)
    classes = np.zeros(shape, np.uint8)
    if centre is not None:
        classes[ball(centre, 6, shape)] = 1
        classes[ball(centre, 3, shape)] = 2
        image[0] += value * (classes == 1) + 2 * value * (classes == 2)
    brain = np.zeros(shape, bool)
    brain[2:-2, 4:-4, 4:-4] = True
    return Scan(image * brain, classes * brain, shape[0], 0, spacing_mm, name=name)


def lesions_of(scan, patient="p"):
    return find_lesions(patient, scan.image, scan.classes, scan.spacing_mm)


def put(scan, lesion, how, tissue=None):
    """Image and classes of a whole scan with a lesion."""
    image, classes = torch.from_numpy(scan.image.copy()), torch.from_numpy(scan.classes.copy())
    transplant(image, classes, (0, 0, 0), lesion, how, tissue or scan.tissue, scan.spacing_mm)
    return image.numpy(), classes.numpy()


@pytest.fixture
def still(monkeypatch):
    """No deformation."""
    monkeypatch.setattr(subject, "BEND_MM", 0.0)


def sampler(scans, seed=0, patch=(8, 32, 32), **changes):
    return Sampler(scans, RECIPE.model_copy(update=changes), patch, seed, torch.device("cpu"))


@pytest.fixture
def scans():
    return [head((14, 20, 18), 1, "a"), head((18, 28, 26), 2, "b"), head((12, 30, 20), 3, "c")]


def test_a_sample_is_a_function_of_seed_and_number_alone_or_in_a_batch(scans):
    a, b = (sampler(scans, drop_sequences=0.5) for _ in range(2))
    numbers = range(2, 50, 5)
    first = [a.draw(k, ALWAYS) for k in numbers]
    assert first == [b.draw(k, ALWAYS) for k in reversed(numbers)][::-1]
    assert sum(spec.transplant is not None for spec in first) > 5
    images, classes = a.cut(first)
    for k, spec in enumerate(first):
        image, truth = b.cut([spec])
        assert torch.equal(image[0], images[k]) and torch.equal(truth[0], classes[k])


def test_no_patient_gets_a_lesion_of_their_own():
    scans = [head((14, 20, 18), k, name) for k, name in enumerate(("pat_1", "BraTS2021_00006", "BraTS-GLI-00006-001"))]
    cut = sampler(scans)
    drawn = [(spec.scan, cut.lesions[spec.transplant.lesion].patient) for spec in map_draw(cut) if spec.transplant]
    assert {donor for scan, donor in drawn if scan > 0} == {"pat_1"} and {scan for scan, _ in drawn} == {0, 1, 2}
    alone = sampler(scans[1:])
    assert not any(spec.transplant for spec in map_draw(alone)), "both scans are of one patient"


def map_draw(cut, count=120, stage=PLAIN):
    return [cut.draw(k, stage) for k in range(count)]


def test_a_simulated_scan_gives_no_lesion_and_gets_those_of_patients(scans):
    cut = Sampler(scans[:1], RECIPE, (8, 32, 32), 0, torch.device("cpu"), depths=(32,))
    cut.put(1, replace(head((18, 28, 26), 5, "simulated7"), classes=np.zeros(SHAPE, np.uint8)))
    assert {lesion.patient for lesion in cut.lesions} == {"a"}
    assert {spec.scan for spec in map_draw(cut) if spec.transplant} == {1}


def test_a_held_out_patient_gives_no_lesion(phantoms, tiny, tmp_path, monkeypatch):
    kept = []

    class Watched(Sampler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            kept.append({lesion.patient for lesion in self.lesions})

    monkeypatch.setattr(loop, "Sampler", Watched)
    recipe = tiny.model_copy(update={"sampling": "lesion", "transplant": 1.0})
    for held in ("phantom0000", "phantom0002"):
        train(phantoms, "brats2015", tmp_path / held, TrainOptions(recipe, steps=1, hold_out=(held,)))
    assert kept == [{"phantom0001", "phantom0002"}, {"phantom0000", "phantom0001"}]


def test_a_tissue_of_a_held_out_patient_alone_is_in_no_sample(scans):
    """Class 2 occurs in the first scan alone."""
    others = [replace(scan, classes=(scan.classes > 0).astype(np.uint8)) for scan in scans[1:]]
    for trained, expected in ((others, {0, 1}), ([scans[0], *others], {0, 1, 2})):
        cut = sampler(trained)
        assert set(cut.cut(map_draw(cut, 60))[1].unique().tolist()) == expected


def test_all_scans_of_a_held_out_real_patient_are_left_out(real_data):
    folders = [real_data / "tumour" / name for name in ("brats2021", "brats2023")]
    names = ("BraTS2021_00006", "BraTS2021_01480", "BraTS-GLI-00000-000")
    known = {case.name for case in split_cases(folders, BRATS2021, TrainOptions(validation=0)).training}
    options = TrainOptions(hold_out=names[:1], exclude=tuple(sorted(known - set(names))))
    split = split_cases(folders, BRATS2021, options)
    cut = Sampler(list(load_scans(split.training, split).values()), RECIPE, (24, 96, 96), 0, torch.device("cpu"))
    assert {lesion.patient for lesion in cut.lesions} == {patient_of(name) for name in names[1:]}
    specs = [spec for spec in map_draw(cut, 20) if spec.transplant]
    assert len(specs) > 5 and all(image.isfinite().all() for image in cut.cut(specs)[0])


@pytest.mark.parametrize("seed", range(6))
def test_nothing_changes_outside_the_brain_and_on_other_lesions(scans, seed):
    rng, (donor, target) = np.random.default_rng(seed), scans[:2]
    (lesion,) = lesions_of(donor)
    how = subject._draw_place(rng, 0, lesion, SHAPE)  # wherever, even over the lesion or the margin
    image, classes = put(target, lesion, how)
    assert np.array_equal(image == 0, target.image == 0) and (classes != target.classes).any()
    there = target.classes > 0
    assert np.array_equal(classes[there], target.classes[there])
    assert np.array_equal(image[:, there], target.image[:, there]) and not classes[image[0] == 0].any()


def test_a_place_lies_in_the_brain_and_on_no_lesion(scans):
    target, rng = scans[1], np.random.default_rng(0)
    lesions = lesions_of(scans[0])
    asked = lesions, "q", target.image, target.classes, target.tissue, MM
    found = [how for _ in range(60) if (how := draw_transplant(rng, *asked)) is not None]
    assert len(found) > 40 and {how.scale[2] > 0 for how in found} == {True, False}
    for how in found:
        d, h, w = np.rint(how.carry(np.concatenate(lesions[0].points_mm), MM)).astype(int).T
        assert (target.image[0][d, h, w] != 0).mean() >= subject.IN_BRAIN and not target.classes[d, h, w].any()


def test_where_there_is_no_room_the_sample_stays_as_it_is(scans):
    full = replace(scans[1], classes=np.ones(SHAPE, np.uint8))
    cut = sampler([scans[0], full])
    specs = [spec for spec in map_draw(cut) if spec.scan == 1]
    assert specs and not any(spec.transplant for spec in specs)


def test_tissue_of_unusual_intensity_is_not_replaced(scans):
    """Half of the brain is as bright as cerebrospinal fluid."""
    target, rng = head(seed=4), np.random.default_rng(0)
    target.image[:, :, :24] += 8 * (target.image[:, :, :24] != 0)
    asked = (
        lesions_of(scans[1]),
        "q",
        target.image,
        target.classes,
        Tissue.of(target.image[:, :, 24:], target.classes[:, 24:]),
    )
    found = [how for _ in range(100) if (how := draw_transplant(rng, *asked, MM)) is not None]
    assert len(found) > 10 and min(how.place[1] for how in found) > 22


def test_a_lesion_goes_back_to_where_it_was(scans, still):
    """Cut and put back unchanged: classes exactly, intensities but for rounding."""
    donor, (lesion,) = scans[0], lesions_of(scans[0])
    healthy = head(seed=9)
    target = replace(healthy, classes=np.zeros(SHAPE, np.uint8))
    place = np.array(lesion.where) * SHAPE - 0.5
    image, classes = put(target, lesion, replace(STILL, place=tuple(place)), donor.tissue)
    there = donor.classes > 0
    assert np.array_equal(classes[there], donor.classes[there])
    assert np.allclose(image[:, there], donor.image[:, there], atol=1e-4)
    far = ~ball(np.rint(place), 10)
    assert np.array_equal(image[:, far], healthy.image[:, far]) and not classes[~ball(np.rint(place), 8)].any()
    ring = ball(np.rint(place), 7) & ~there
    assert ((image != donor.image) & (image != healthy.image))[:, ring].mean() > 0.5, "the edge is soft"


@pytest.mark.parametrize("gain, offset", [(2.0, 0.0), (0.5, 3.0)])
def test_contrast_follows_the_scan_and_not_the_scanner_of_the_lesion(scans, gain, offset):
    def scanned(scan):
        return replace(scan, image=np.where(scan.image != 0, gain * scan.image + offset, 0).astype(np.float32))

    donor, target = scans[:2]
    how = Transplant(0, (12.0, 14.0, 18.0), (1.1, 0.9, -1.0), (10.0, 5.0, -5.0), 2.5, 3)
    (lesion,), (other,) = lesions_of(donor), lesions_of(scanned(donor))
    before, classes = put(target, lesion, how)
    after, again = put(scanned(target), other, how)
    brain = target.image != 0
    assert np.array_equal(classes, again) and (classes != target.classes).sum() > 200
    assert np.allclose(after[brain], gain * before[brain] + offset, atol=0.05)


def test_classes_move_with_the_image(scans):
    """The lesion is the only bright thing of its sequence."""
    cut = sampler([head((16, 24, 22), 1, "a"), head(seed=2, name="b")], patch=SHAPE, augmentation=Augmentation())
    specs = [spec for spec in map_draw(cut, stage=PLAIN) if spec.transplant and spec.scan == 1]
    images, classes = cut.cut(specs[:20])
    bright, truth = images[:, 0] > 1.5, classes > 0
    dice = 2 * (bright & truth).sum((1, 2, 3)) / (bright.sum((1, 2, 3)) + truth.sum((1, 2, 3)))
    assert dice.min() > 0.85 and len(dice) == 20
    assert truth.sum((1, 2, 3)).unique().numel() > 15


def test_millimetres_count_and_not_voxels(still):
    """A ball of 6 mm in slices of 3 mm has a third of its voxels."""
    (lesion,) = lesions_of(head((16, 24, 22), 1))
    target = head(seed=2, spacing_mm=(3.0, 1.0, 1.0))
    _, classes = put(target, lesion, replace(STILL, place=(16, 24, 22), scale=(1, 1, -1)))
    assert 3 * (classes > 0).sum() == pytest.approx(lesion.volume_mm3, rel=0.1)
    _, larger = put(target, lesion, replace(STILL, place=(16, 24, 22), scale=(1.3, 1.3, 1.3)))
    assert (larger > 0).sum() / (classes > 0).sum() == pytest.approx(1.3**3, rel=0.1)


def test_a_part_of_a_scan_gets_the_part_of_the_lesion(scans, still):
    (lesion,), target = lesions_of(scans[0]), head(seed=2)
    how = replace(STILL, place=(15.0, 20.0, 18.0), angles_deg=(20, 0, 0))
    whole = put(target, lesion, how)
    part = torch.from_numpy(target.image[:, 12:18, 10:30, 5:40].copy()), torch.zeros((6, 20, 35), dtype=torch.uint8)
    transplant(*part, (12, 10, 5), lesion, how, target.tissue, MM)
    assert np.allclose(part[0], whole[0][:, 12:18, 10:30, 5:40], atol=1e-4)
    assert (part[1].numpy() != whole[1][12:18, 10:30, 5:40]).mean() < 1e-3
    away = torch.from_numpy(target.image.copy()), torch.zeros(SHAPE, dtype=torch.uint8)
    transplant(*away, (0, 0, 0), lesion, replace(how, place=(-7.5, -7.0, -7.0)), target.tissue, MM)
    assert np.array_equal(away[0], target.image) and not away[1].any(), "a corner of its box, and nothing of it"
    assert part[1].any() and (whole[1][:12].any() or whole[1][18:].any())


def test_near_parts_are_one_lesion_and_specks_are_none():
    scan = head((14, 16, 14), 1)
    scan.classes[14, 16, 22:24], scan.classes[28, 40, 38] = 1, 1
    (lesion,) = lesions_of(scan)
    assert lesion.volume_mm3 == (scan.classes > 0).sum() - 1
    scan.classes[14, 36:42, 30:38] = 1
    assert len(lesions_of(scan)) == 1, "48 mm3 are too few"
    scan.classes[12:17, 36:42, 30:38] = 1
    assert sorted(lesion.volume_mm3 for lesion in lesions_of(scan))[0] == 5 * 48


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_as_many_samples_get_a_lesion_as_the_recipe_says(scans, share):
    small = [replace(scan, classes=scan.classes * ball((14, 20, 18), 9)) for scan in scans]
    cut = sampler([*small[:1], head(seed=5, name="d"), head(seed=6, name="e")], transplant=share)
    specs = [spec for spec in map_draw(cut, 400) if spec.scan]
    assert np.mean([spec.transplant is not None for spec in specs]) == pytest.approx(share, abs=0.08)
    assert bool(cut.lesions) == bool(share)


def test_samples_without_a_share_are_those_of_before(scans):
    """With a share of 0 no random number is drawn, so trainings by other recipes stay the same."""
    plain, none = (sampler(scans, transplant=share) for share in (0.0, 1.0))
    none.lesions = []
    for k in range(20):
        a, b = plain.draw(k, ALWAYS), none.draw(k, ALWAYS)
        assert a.params == b.params and a.scan == b.scan and b.transplant is None


def test_resumed_equals_uninterrupted_bit_for_bit(scans, tmp_path):
    class Stop(Callback):
        def on_progress(self, event):
            if event.step == 3:
                raise Interrupted(2)

    recipe = RECIPE.model_copy(update={"widths": (2, 4, 4, 4), "refined": 4, "batch": 2, "drop_sequences": 0.5})
    plan = Plan(recipe, Budget(steps=6), 2, 3, (4, 16, 16), seed=3)
    fabric = Fabric(accelerator="cpu", devices=1)
    whole = fit(scans, plan, fabric, loop.Monitoring(state_file=tmp_path / "one"))
    every = loop.Monitoring((Stop(),), state_file=tmp_path / "two", state_minutes=0)
    with pytest.raises(Interrupted):
        fit(scans, plan, fabric, every)
    again = fit(scans, plan, fabric, loop.Monitoring(state_file=tmp_path / "two"), resume=True)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_slabs_are_refused():
    recipe = RECIPE.model_copy(update={"sampling": "slabs"})
    with pytest.raises(TaskError, match="recipe r: lesions are transplanted only with sampling 'lesion', and this one"):
        Plan(recipe, Budget(steps=1), 2, 3, (4, 16, 16)).check(1)


def test_one_recipe_transplants_and_keeps_half_of_the_weights():
    (recipe,) = (one for one in RECIPES.values() if one.transplant)
    plain = {"name": "finetune", "transplant": 0.0, "drop_sequences": 0.0, "augmentation": FINETUNE.augmentation}
    assert recipe.name == "transplant" and recipe.model_copy(update=plain) == FINETUNE
    assert recipe.drop_sequences == 0.5 and recipe.augmentation == RAW.augmentation and RAW.augmentation.faults.any
