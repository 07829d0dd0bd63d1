import math

import pytest
import torch
import torch.nn.functional as F

from brainsegnet.training.losses import AROUND, dice_loss, focal_loss, loss_of, weigh_small_lesions
from brainsegnet.training.recipes import Recipe, Stage


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(2, 4, 3, 5, 6, requires_grad=True), torch.randint(4, (2, 3, 5, 6))


def one_voxel(probability):
    """Logits of two classes for a voxel of class 1 whose soft-max probability is `probability`."""
    return torch.tensor([0.0, math.log(probability / (1 - probability))]).reshape(1, 2, 1, 1, 1), torch.ones(1, 1, 1, 1)


def sure(classes, count):
    """Logits that leave no warning."""
    return 100 * F.one_hot(classes, count).movedim(-1, 1).float()


def test_focal_loss_with_gamma_zero_is_cross_entropy(batch):
    assert torch.allclose(focal_loss(*batch, gamma=0), F.cross_entropy(*batch), rtol=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("gamma", [0.5, 1, 2, 5])
def test_focal_loss_is_the_equation_of_the_paper(p, gamma):
    assert focal_loss(*one_voxel(p), gamma=gamma).item() == pytest.approx(-((1 - p) ** gamma) * math.log(p), rel=1e-3)


def test_focal_loss_is_a_mean_over_voxels_of_all_classes(batch):
    logits, classes = batch
    p = logits.softmax(1).gather(1, classes[:, None])
    assert torch.allclose(focal_loss(logits, classes, 2), (-((1 - p) ** 2) * p.log()).mean())


def test_the_default_focuses_with_gamma_two(batch):
    assert torch.equal(focal_loss(*batch), focal_loss(*batch, gamma=2.0))


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_focal_loss_and_its_gradient_stay_finite_where_all_is_certain(gamma):
    for truth in (0, 1):
        logits = torch.tensor([200.0, -200.0]).reshape(1, 2, 1, 1, 1).requires_grad_()
        loss = focal_loss(logits, torch.full((1, 1, 1, 1), truth), gamma)
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()
        assert (loss == 0 and not logits.grad.any()) if truth == 0 else (loss > 100 and logits.grad.any())


@pytest.mark.parametrize("loss", [focal_loss, dice_loss, lambda z, y: focal_loss(z, y, 0)])
def test_a_step_down_the_gradient_lowers_the_loss(batch, loss):
    logits, classes = batch
    before = loss(logits, classes)
    before.backward()
    after = loss(logits.detach() - 0.1 * logits.grad / logits.grad.norm(), classes)
    assert after < before


def test_focal_loss_turns_to_the_hard_voxels():
    easy, hard = (
        focal_loss(*one_voxel(p), gamma=2).item() / focal_loss(*one_voxel(p), gamma=0).item() for p in (0.9, 0.1)
    )
    assert (easy, hard) == (pytest.approx(0.01, rel=1e-3), pytest.approx(0.81, rel=1e-3))


def test_dice_loss_lies_between_zero_and_one(batch):
    logits, classes = batch
    for scale in (0.01, 1, 100):
        assert 0 <= dice_loss(scale * logits, classes).item() <= 1


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_nearly_all(batch):
    _, classes = batch
    assert dice_loss(sure(classes, 4), classes).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(sure((classes + 1) % 4, 4), classes).item() > 0.9


def test_dice_loss_is_one_minus_the_overlap_by_hand():
    """8 voxels: class 1 is predicted in 4, true in 2, both in 2; class 2 is nowhere and does not count."""
    truth, found = torch.zeros(2, 1, 2, 4, dtype=torch.long)
    truth[0, 0, :2], found[0, 0, :4] = 1, 1
    expected = 1 - (2 * 2 + 1) / (4 + 2 + 1)
    assert dice_loss(sure(found[None], 3), truth[None]).item() == pytest.approx(expected, abs=1e-6)


def test_dice_loss_of_regions_by_hand():
    """The union of classes 1 and 2 is found whole; class 2 by itself is taken for class 1."""
    truth, found = torch.zeros(2, 1, 2, 4, dtype=torch.long)
    truth[0, 0], found[0, 0] = torch.tensor([1, 1, 2, 2]), 1
    alone = 1 - (0 + 1) / (2 + 1)
    assert dice_loss(sure(found[None], 3), truth[None], [[1, 2], [2]]).item() == pytest.approx(alone / 2, abs=1e-6)
    assert dice_loss(sure(found[None], 3), truth[None], [[1, 2]]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("regions", [(), [[1, 2]], [[2], [1]]])
def test_dice_loss_leaves_the_background_and_absent_regions_out(regions):
    truth = torch.zeros(1, 2, 4, 4, dtype=torch.long)
    logits = torch.randn(1, 3, 2, 4, 4, requires_grad=True)
    loss = dice_loss(logits, truth, regions)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_dice_loss_counts_over_the_whole_batch(batch):
    logits, classes = batch
    as_one = torch.cat(list(logits), 1)[None], torch.cat(list(classes), 0)[None]
    assert dice_loss(logits, classes).item() == pytest.approx(dice_loss(*as_one).item(), rel=1e-6)


def test_losses_are_computed_in_single_precision(batch):
    logits, classes = batch
    for loss in (focal_loss, dice_loss):
        assert loss(logits.bfloat16(), classes.to(torch.uint8)).dtype == torch.float32


def test_the_loss_of_a_stage_is_focal_plus_weighted_dice(batch):
    stage = Stage(name="s", share=1, augment=0, gamma=1.5)
    plain, both = (Recipe(name="r", budget_epochs=1, dice=weight) for weight in (0, 0.7))
    focal = focal_loss(*batch, gamma=1.5)
    assert torch.equal(loss_of(*batch, recipe=plain, stage=stage), focal)
    assert torch.allclose(loss_of(*batch, recipe=both, stage=stage), focal + 0.7 * dice_loss(*batch))
    regions = [[1, 2, 3], [3]]
    found = loss_of(*batch, recipe=both, stage=stage, regions=regions)
    assert torch.allclose(found, focal + 0.7 * dice_loss(*batch, regions=regions))


def balls(radius):
    """Classes (1, 24, 48, 48) with a ball of class 2 in the middle."""
    d, h, w = torch.meshgrid(*(torch.arange(n) - n // 2 for n in (24, 48, 48)), indexing="ij")
    return 2 * (d**2 + h**2 + w**2 <= radius**2).long()[None]


def test_the_smaller_a_lesion_the_more_its_voxels_weigh():
    small, large = balls(1), balls(10)
    weights = [weigh_small_lesions(classes, 0.5) for classes in (small, large)]
    assert all(
        (w[classes == 0] == 1).all() and (w >= 1).all() for w, classes in zip(weights, (small, large), strict=True)
    )
    assert weights[1][0, 12, 24, 24] == 1
    assert weights[0][0, 12, 24, 24] == pytest.approx((math.prod(AROUND) / 7) ** 0.5, rel=1e-5)
    shares = [w[c > 0].sum() / (c > 0).sum() for w, c in zip(weights, (small, large), strict=True)]
    assert shares[0] > 5 * shares[1] and shares[1] < 1.6


def test_a_lesion_in_the_corner_weighs_by_what_of_the_box_lies_within_the_sample():
    corner = torch.zeros(1, 8, 12, 12, dtype=torch.long)
    corner[0, 0, 0, 0] = 1
    assert weigh_small_lesions(corner, 0.5)[0, 0, 0, 0] == pytest.approx((3 * 5 * 5) ** 0.5, rel=1e-5)
    whole = torch.ones(1, 8, 12, 12, dtype=torch.long)
    assert weigh_small_lesions(whole, 0.5) == pytest.approx(torch.ones(whole.shape))
    assert (weigh_small_lesions(whole - 1, 1.0) == 1).all()


def test_small_lesions_weigh_in_the_focal_loss_alone_and_only_where_the_recipe_says_so(batch):
    logits, classes = batch
    plain, small = (
        Recipe(name="p", dice=0.5, budget_epochs=1),
        Recipe(name="s", dice=0.5, small_lesion_power=0.5, budget_epochs=1),
    )
    stage = Stage(name="a", share=1, augment=0, gamma=2)
    assert torch.equal(
        loss_of(logits, classes, plain, stage), focal_loss(logits, classes) + 0.5 * dice_loss(logits, classes)
    )
    weighted = focal_loss(logits, classes, 2.0, weigh_small_lesions(classes, 0.5)) + 0.5 * dice_loss(logits, classes)
    assert torch.equal(loss_of(logits, classes, small, stage), weighted)
    p = logits.softmax(1).gather(1, classes[:, None])[:, 0]
    by_hand = (weigh_small_lesions(classes, 0.5) * -((1 - p) ** 2) * p.log()).mean()
    assert torch.allclose(focal_loss(logits, classes, 2.0, weigh_small_lesions(classes, 0.5)), by_hand)
