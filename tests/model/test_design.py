import pytest
import torch
from torch import nn

from brainsegnet.benchmark.models import BASELINES
from brainsegnet.model.design import as_drawn, brain_segnet, count_parameters, multiply_adds

PATCH = (16, 32, 32)


def counted_by_hooks(design, sequences, size):
    """Multiply-adds per voxel, from the shapes that the convolutions of the network see."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        moved = inputs[0] if isinstance(module, nn.ConvTranspose3d) else output
        total += moved.numel() * module.weight[0].numel()

    with torch.device("meta"):
        net = design.build().eval()
        for module in net.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                module.register_forward_hook(count)
        design.runner(net)(torch.empty(1, sequences, *size))
    return total / torch.Size(size).numel()


def designs(sequences=2):
    ours = brain_segnet(sequences, 3, (4, 4, 8, 8), 8)
    return {
        "ours": as_drawn(ours),
        **{name: BASELINES[name](sequences, 3, PATCH, (1.0, 1.0, 1.0)) for name in BASELINES},
    }


@pytest.mark.parametrize("name", ["ours", *BASELINES])
def test_multiply_adds_are_those_of_the_convolutions(name):
    design = designs()[name]
    assert multiply_adds(design, 2) == pytest.approx(counted_by_hooks(design, 2, (32, 64, 64)), rel=1e-9)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
def test_the_fused_network_has_the_values_of_the_network_as_drawn(stride):
    design = brain_segnet(2, 3, (4, 4, 8, 8), 8, stride)
    torch.manual_seed(0)
    net = design.build().double().eval()
    x = torch.randn(1, 2, 5, 11, 9, dtype=torch.double)
    with torch.inference_mode():
        assert torch.allclose(design.runner(net)(x), as_drawn(design).runner(net)(x))
        assert torch.allclose(design.learner(net)(x), as_drawn(design).learner(net)(x))


def test_parameters_with_two_names_are_counted_once():
    design = designs()["dynunet"]
    with torch.device("meta"):
        net = design.build()
    named = dict(net.named_parameters(remove_duplicate=False)).values()
    assert count_parameters(design) == sum(p.numel() for p in set(named)) < sum(p.numel() for p in named)
