import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brainsegnet.model.architecture import BrainSegNet, pad
from brainsegnet.training.recipes import RECIPES


@pytest.fixture(scope="module")
def paper():
    return BrainSegNet(4, 5)


def small(**kwargs):
    torch.manual_seed(0)
    return BrainSegNet(2, 3, (4, 6, 8, 10), 8, **kwargs)


def convolutions(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv3d)]


def test_seventeen_convolutions_of_three_by_three_by_three_stand_in_the_blocks(paper):
    assert [len(convolutions(block)) for block in paper.blocks] == [2, 5, 5, 5]
    assert all(conv.kernel_size == (3, 3, 3) for conv in convolutions(paper.blocks))
    assert [convolutions(block)[-1].out_channels for block in paper.blocks] == [32, 64, 128, 256]
    assert sum(isinstance(m, nn.BatchNorm3d) for m in paper.blocks.modules()) == 17


@pytest.mark.parametrize("nonlinear", [True, False])
def test_the_paper_counts_twelve_million_parameters(nonlinear):
    net = BrainSegNet(4, 5, nonlinear=nonlinear)
    assert 11.8e6 < sum(p.numel() for p in net.parameters()) < 12.5e6


def test_the_refinement_module_has_an_adaptive_layer_per_block_and_three_units(paper):
    adaptive = [(a.in_channels, a.out_channels, a.kernel_size) for a in paper.adapt]
    assert adaptive == [(width, 128, (1, 1, 1)) for width in (32, 64, 128, 256)]
    assert len(paper.refine) == 3
    assert all((u.lateral.kernel_size, u.smooth.kernel_size) == ((1, 1, 1), (3, 3, 3)) for u in paper.refine)
    assert (paper.classify.in_channels, paper.classify.out_channels) == (128, 5)


def test_every_block_halves_rows_and_columns_and_keeps_the_slices():
    levels = small().levels(torch.randn(1, 2, 7, 16, 24))
    assert [tuple(y.shape[2:]) for y in levels] == [(7, 16, 24), (7, 8, 12), (7, 4, 6), (7, 2, 3)]


def test_all_dimensions_are_halved_when_asked():
    levels = small(stride=(2, 2, 2)).levels(torch.randn(1, 2, 8, 16, 24))
    assert [tuple(y.shape[2:]) for y in levels] == [(8, 16, 24), (4, 8, 12), (2, 4, 6), (1, 2, 3)]


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 2), (7, 9, 16), (3, 8, 1), (5, 13, 6), (12, 16, 16)])
def test_the_output_has_the_size_of_the_input_whatever_it_is(size, stride):
    net = small(stride=stride).eval()
    with torch.inference_mode():
        y = net(torch.randn(2, 2, *size))
    assert y.shape == (2, 3, *size) and y.isfinite().all()


def test_a_size_that_needs_no_padding_is_not_padded():
    x = torch.randn(1, 2, 3, 8, 16)
    assert pad(x, small().multiples) is x
    assert pad(x[..., :9], small().multiples).shape == (1, 2, 3, 8, 16)


def test_padding_counts_as_background():
    net, x = small().eval(), torch.randn(1, 2, 3, 13, 10)
    with torch.inference_mode():
        assert torch.equal(net(x), net(F.pad(x, (0, 6, 0, 3)))[..., :13, :10])


WIDTHS = sorted({(r.widths, r.refined) for r in RECIPES.values()} | {((16, 32, 64, 128), 64)})


@pytest.mark.parametrize("classes, nonlinear", [(2, True), (5, True), (5, False)])
@pytest.mark.parametrize("widths, refined", WIDTHS)
def test_the_first_loss_is_that_of_a_guess(widths, refined, classes, nonlinear):
    torch.manual_seed(1)
    net = BrainSegNet(4, classes, widths, refined, nonlinear=nonlinear)
    x, y = torch.randn(1, 4, 3, 16, 16), torch.randint(classes, (1, 3, 16, 16))
    with torch.no_grad():
        first = F.cross_entropy(net(x), y).item()
    assert first == pytest.approx(math.log(classes), rel=0.03)


def test_a_later_block_reaches_the_output():
    net, x = small().eval(), torch.randn(1, 2, 3, 16, 16)
    before = net(x)
    for i, block in enumerate(net.blocks):
        kernel = convolutions(block)[-1].weight
        with torch.no_grad():
            kernel.mul_(3.0)
            assert not torch.allclose(net(x), before), f"block {i + 1} does not matter"
            kernel.div_(3.0)


def test_the_names_of_tensors_differ_by_the_norms_alone():
    linear, nonlinear = small(nonlinear=False).state_dict().keys(), small(nonlinear=True).state_dict().keys()
    added = nonlinear - linear
    assert linear < nonlinear
    assert {name.rsplit(".", 1)[0] for name in added} == {"top.0.0", "refine.1.norm.0", "refine.2.norm.0"}


def test_the_finest_refine_unit_is_linear_in_either_reading():
    for nonlinear in (True, False):
        unit = small(nonlinear=nonlinear).refine[0].double()
        a, b = (torch.randn(1, 8, 2, 8, 8).double() for _ in range(2))
        y = torch.randn(1, 8, 2, 4, 4).double()
        nothing = unit(torch.zeros_like(a), torch.zeros_like(y))
        assert torch.allclose(unit(a + b, y) - nothing, unit(a, y) + unit(b, 0 * y) - 2 * nothing)
