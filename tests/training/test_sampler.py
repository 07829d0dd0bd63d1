import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.task import WHITE_MATTER_LESIONS
from brainsegnet.training import TrainOptions
from brainsegnet.training.augment import AugmentParams
from brainsegnet.training.recipes import PAPER, STRONG, Augmentation, Recipe, Stage
from brainsegnet.training.sampler import Sampler, SampleSpec, Scan
from brainsegnet.training.split import DataSplit
from brainsegnet.training.train import make_plan

PLAIN = Stage(name="plain", share=1, augment=0, gamma=0)
ALWAYS = Stage(name="always", share=1, augment=1, gamma=0)
CPU = torch.device("cpu")
ORIENT = Augmentation(slice_gain=(1, 1), scale=(1, 1), flips=(0.5, 0.5, 0.5))
RESCALE = Augmentation(slice_gain=(1, 1), quarter_turns=False, flips=(0, 0, 0))


def sampler(scans, patch=(4, 16, 16), seed=0, **kwargs):
    recipe = Recipe(**{"name": "r", "budget_epochs": 1, "augmentation": STRONG, **kwargs})
    return Sampler(scans, recipe, patch, seed, CPU)


def box_of(classes, rows, columns):
    """Ones in so many rows and columns of every slice."""
    out = np.zeros(classes, np.uint8)
    out[:, rows[0] : rows[1], columns[0] : columns[1]] = 1
    return out


@pytest.fixture
def scans(make_scan):
    return [make_scan(seed=1), make_scan((9, 30, 26), depth=15, first=3, seed=2)]


@pytest.mark.parametrize("sampling", ["slabs", "lesion"])
def test_a_sample_is_a_function_of_seed_and_number(scans, sampling):
    a, b = (sampler(scans, sampling=sampling, drop_sequences=0.5) for _ in range(2))
    numbers = range(3, 60, 7)
    first = [a.draw(k, ALWAYS) for k in numbers]
    again = [b.draw(k, ALWAYS) for k in reversed(numbers)][::-1]
    assert first == again
    images, classes = a.cut(first)
    for k, spec in enumerate(again):
        image, truth = b.cut([spec])
        assert torch.equal(image[0], images[k]) and torch.equal(truth[0], classes[k])


@pytest.mark.parametrize("sampling", ["slabs", "lesion"])
def test_other_numbers_and_other_seeds_are_other_samples(scans, sampling):
    a, b = (sampler(scans, sampling=sampling, seed=s) for s in (0, 1))
    mine, theirs = ([s.draw(k, ALWAYS) for k in range(50)] for s in (a, b))
    assert all(x != y for x, y in itertools.combinations(mine, 2))
    assert all(x != y for x, y in zip(mine, theirs, strict=True))


def test_155_slices_are_13_samples_of_12(mirror):
    scan = mirror(np.zeros((140, 4, 4)), depth=155, first=9)
    cut = sampler([scan, scan], (12, 4, 4))
    assert len(cut.places) == 2 * 13 and len(sampler([mirror(np.zeros((20, 4, 4)))], (7, 4, 4)).places) == 3


def test_an_epoch_visits_every_slab_once_in_an_order_of_its_own(mirror):
    scans = [mirror(np.zeros((140, 4, 4)), depth=155, first=9), mirror(np.zeros((20, 4, 4)))]
    cut = sampler(scans, (12, 4, 4))
    epochs = []
    for epoch in range(3):
        specs = [cut.draw(epoch * len(cut.places) + k, PLAIN) for k in range(len(cut.places))]
        epochs.append([(d.scan, d.start + scans[d.scan].first) for d in specs])
        assert sorted(epochs[-1]) == sorted(cut.places)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_slab_holds_the_slices_of_the_whole_scan(mirror):
    """The box starts at slice 3 of 15: its slab 4 to 7 holds the box's slices 1 to 4, the last one slides back."""
    numbered = np.broadcast_to(np.arange(1, 10)[:, None, None], (9, 4, 4))
    cut = sampler([mirror(numbered, depth=15, first=3)], (4, 4, 4))
    seen = {}
    for k in range(4):
        spec = cut.draw(k, PLAIN)
        seen[spec.start] = cut.cut([spec])[1][0, :, 2, 2].tolist()
    assert seen == {-3: [0, 0, 0, 1], 1: [2, 3, 4, 5], 5: [6, 7, 8, 9], 8: [9, 0, 0, 0]}


def test_without_change_a_sample_is_a_piece_of_the_scan(scans):
    cut = sampler(scans)
    quiet = SampleSpec(1, 2, (5 + 7.5, 3 + 7.5), AugmentParams())
    loud = replace(quiet, params=cut.draw(0, ALWAYS).params)
    for batch in ([quiet], [quiet, loud]):
        images, classes = cut.cut(batch)
        assert images.dtype == torch.float32 and images.shape == (len(batch), 2, 4, 16, 16)
        assert np.array_equal(images[0].numpy(), scans[1].image[:, 2:6, 5:21, 3:19])
        assert np.array_equal(classes[0].numpy(), scans[1].classes[2:6, 5:21, 3:19]) and classes.dtype == torch.uint8


@pytest.mark.parametrize("sampling", ["slabs", "lesion"])
def test_image_and_classes_are_turned_and_flipped_as_one(make_scan, mirror, sampling):
    lesion = make_scan((9, 30, 26), centre=(4, 12, 16), radius=6).classes
    cut = sampler([mirror(lesion, depth=12, first=1)], sampling=sampling, augmentation=ORIENT)
    specs = [cut.draw(k, ALWAYS) for k in range(40)]
    images, classes = cut.cut(specs)
    assert torch.equal(images[:, 0], classes.float()) and classes.amax((1, 2, 3)).bool().sum() > 10
    assert len({(d.params.turns, d.params.flips) for d in specs}) > 15


@pytest.mark.parametrize("how", [RESCALE, RESCALE.model_copy(update={"angle_deg": 90.0, "scale": (0.8, 1.5)})])
def test_image_and_classes_are_rescaled_and_rotated_as_one(make_scan, mirror, how):
    lesion = (make_scan((4, 64, 64), centre=(2, 30, 34), radius=16).classes > 0).astype(np.uint8)
    cut = sampler([mirror(lesion)], (4, 48, 48), augmentation=how)
    images, classes = cut.cut([cut.draw(k, ALWAYS) for k in range(30)])
    bright, truth = images[:, 0] > 0.5, classes > 0
    dice = 2 * (bright & truth).sum((1, 2, 3)) / (bright.sum((1, 2, 3)) + truth.sum((1, 2, 3)))
    assert dice.min() > 0.95 and set(classes.unique().tolist()) == {0, 1}
    assert classes.sum((1, 2, 3)).unique().numel() > 10


def test_rescaling_changes_the_area_by_the_square_of_the_scale(mirror):
    cut = sampler([mirror(box_of((4, 64, 64), (20, 44), (20, 44)))], (4, 40, 40))
    for scale in (0.5, 1.0, 1.5):
        _, classes = cut.cut([SampleSpec(0, 0, (31.5, 31.5), AugmentParams(scale=scale))])
        assert classes.sum().item() == pytest.approx(4 * (24 * scale) ** 2, rel=0.05)


def edges(spec, patch):
    """First and last row, then column, of the scan that a sample covers."""
    extent = [n / spec.params.scale for n in patch[1:]]
    return [(c - (e - 1) / 2, c + (e - 1) / 2) for c, e in zip(spec.centre, extent, strict=True)]


@pytest.mark.parametrize("stage", [PLAIN, ALWAYS])
@pytest.mark.parametrize("rows, columns", [((3, 9), (20, 31)), ((0, 13), (5, 6)), ((30, 40), (0, 12))])
def test_a_crop_holds_the_whole_lesion_of_its_slices(mirror, rows, columns, stage):
    """13 x 1 to 10 x 12 voxels fit into 16 even when magnified by 1.2."""
    cut = sampler([mirror(box_of((8, 40, 32), rows, columns))], augmentation=RESCALE)
    specs = [cut.draw(k, stage) for k in range(200)]
    for spec in specs:
        for (first, last), (low, high) in zip(edges(spec, cut.patch), (rows, columns), strict=True):
            assert first <= low + 1e-6 and last >= high - 1 - 1e-6
    assert len({d.centre for d in specs}) > 15
    if stage is PLAIN:
        whole = 4 * (rows[1] - rows[0]) * (columns[1] - columns[0])
        assert all(cut.cut([d])[1].sum() == whole for d in specs[:50])


@pytest.mark.parametrize("stage", [PLAIN, ALWAYS])
def test_a_crop_too_small_for_the_lesion_lies_inside_its_box(mirror, stage):
    """36 x 37 voxels are too many for 16 even at half the size."""
    rows, columns = (1, 37), (2, 39)
    cut = sampler([mirror(box_of((8, 40, 40), rows, columns))], augmentation=RESCALE)
    specs = [cut.draw(k, stage) for k in range(200)]
    for spec in specs:
        for (first, last), (low, high) in zip(edges(spec, cut.patch), (rows, columns), strict=True):
            assert first >= low - 1e-6 and last <= high - 1 + 1e-6
    assert len({d.centre for d in specs}) > 100


def test_only_the_lesion_of_the_own_slices_counts(mirror):
    classes = box_of((8, 64, 64), (2, 6), (2, 6))
    classes[4:] = box_of((4, 64, 64), (50, 60), (40, 50))
    cut = sampler([mirror(classes)])
    for k in range(60):
        spec = cut.draw(k, PLAIN)
        assert cut.cut([spec])[1].sum() == 4 * (16 if spec.start == 0 else 100)


def test_a_slab_without_lesion_is_cropped_anywhere_in_the_box(mirror):
    cut = sampler([mirror(np.zeros((8, 24, 20)))])
    corners = {tuple(round(first) for first, _ in edges(cut.draw(k, PLAIN), cut.patch)) for k in range(600)}
    assert corners == {(row, column) for row in range(9) for column in range(5)}


def test_a_scan_smaller_than_the_sample_is_padded_with_zeros(mirror):
    for sampling in ("slabs", "lesion"):
        cut = sampler([mirror(np.ones((3, 10, 7)))], sampling=sampling)
        images, classes = cut.cut([cut.draw(k, PLAIN) for k in range(5)])
        assert all(classes.sum((1, 2, 3)) == 210) and torch.equal(images[:, 0], classes.float())


def test_every_second_sample_is_centred_near_the_lesion(mirror):
    """A lesion of 1 in 64 x 64: a crop of 16 around it shows it nearly always, one anywhere seldom."""
    classes = np.zeros((16, 64, 64), np.uint8)
    classes[8, 31, 33] = 1
    cut = sampler([mirror(classes)], (8, 16, 16), sampling="lesion")
    shown = sum(bool(cut.cut([cut.draw(k, PLAIN)])[1].any()) for k in range(400)) / 400
    assert 0.45 < shown < 0.65


def test_classes_are_specs_alike_however_rare(mirror):
    """A class of 4 voxels and one of 3600, far apart."""
    classes = np.zeros((4, 128, 64), np.uint8)
    classes[:, 64:94, 17:47], classes[:, 10, 32] = 1, 2
    cut = sampler([mirror(classes)], sampling="lesion")
    seen = [set(cut.cut([cut.draw(k, PLAIN)])[1].unique().tolist()) - {0} for k in range(600)]
    rare = sum(s == {2} for s in seen)
    assert 100 < rare < 200, "a quarter of 600"


def test_a_crop_anywhere_stays_in_a_box_that_holds_it(mirror):
    cut = sampler([mirror(np.ones((9, 30, 26)), depth=20, first=5)], sampling="lesion")
    specs = [cut.draw(k, PLAIN) for k in range(200)]
    _, classes = cut.cut(specs)
    assert classes.all() and len({d.start for d in specs}) == 6


@pytest.mark.parametrize("share", [s.augment for s in PAPER.stages])
def test_as_many_samples_are_augmented_as_the_stage_says(scans, share):
    cut, count = sampler(scans), 1500
    stage = Stage(name="s", share=1, augment=share, gamma=0)
    augmented = sum(cut.draw(k, stage).params != AugmentParams() for k in range(count))
    assert abs(augmented - share * count) <= 4 * math.sqrt(count * share * (1 - share))


def test_as_many_samples_lose_sequences_as_the_recipe_says(scans):
    cut = sampler(scans, drop_sequences=0.3)
    specs = [cut.draw(k, PLAIN) for k in range(600)]
    dropped = [d for d in specs if d.params.kept]
    assert abs(len(dropped) - 180) < 4 * math.sqrt(600 * 0.3 * 0.7)
    assert {d.params.kept for d in dropped} == {(True, False), (False, True)}
    images, _ = cut.cut(dropped)
    for image, draw in zip(images, dropped, strict=True):
        assert not image[draw.params.kept.index(False)].any() and image[draw.params.kept.index(True)].any()


def test_no_sample_loses_a_required_sequence(scans):
    recipe = sampler(scans).recipe.model_copy(update={"drop_sequences": 1.0})
    cut = Sampler(scans, recipe, (4, 16, 16), 0, CPU, required=(1,))
    assert {cut.draw(k, PLAIN).params.kept for k in range(20)} == {(False, True)}
    split = DataSplit(WHITE_MATTER_LESIONS, ("t1", "flair"), [])
    assert make_plan(split, TrainOptions(simulated=1, steps=1), None).required == (1,)


def test_a_stage_changes_whether_a_sample_is_augmented_and_nothing_else(scans):
    """Samples that both stages leave alone are the same crops."""
    cut, half = sampler(scans), Stage(name="half", share=1, augment=0.5, gamma=2)
    pairs = [(cut.draw(k, PLAIN), cut.draw(k, half)) for k in range(80)]
    alone = [(a, b) for a, b in pairs if b.params == AugmentParams()]
    assert len(alone) > 20 and all(a == b for a, b in alone)
    assert all((a.scan, a.start) == (b.scan, b.start) for a, b in pairs)


def test_lesion_voxels_are_remembered_by_class(mirror):
    classes = np.zeros((40, 40, 40), np.uint8)
    classes[:20], classes[30, 3, 4] = 1, 3
    many, one = Scan(classes[None].astype(np.float32), classes, 40, 0).centres
    assert one.tolist() == [[30, 3, 4]] and 10_000 < len(many) <= 32_000 and many[:, 0].max() == 19
    assert mirror(np.zeros((2, 2, 2))).centres == []
