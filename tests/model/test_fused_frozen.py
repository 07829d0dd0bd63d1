import pytest
import torch
from torch import nn

from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import fuse, strided

STRIDES = [(1, 2, 2), (2, 2, 2), (1, 1, 2)]


def trained(stride=(1, 2, 2), nonlinear=True, widths=(4, 5, 6, 7)):
    """A network in double precision none of whose weights and statistics are what they are at the start."""
    torch.manual_seed(0)
    net = BrainSegNet(2, 3, widths, 8, stride, nonlinear).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("nonlinear", [True, False])
@pytest.mark.parametrize("size", [(3, 9, 11), (8, 16, 8), (1, 8, 8), (2, 1, 3)])
def test_frozen_is_the_same_function_at_odd_and_even_sizes_and_at_borders(stride, nonlinear, size):
    net = trained(stride, nonlinear)
    x = torch.randn(2, 2, *size, dtype=torch.double)
    expected = net(x)
    assert (fuse(net).logits(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_it_is_so_in_single_precision_too():
    net = trained().float()
    x = torch.randn(1, 2, 4, 16, 24)
    expected = net(x)
    assert (fuse(net).logits(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_more_and_fewer_blocks_than_the_papers():
    for widths in ((4, 5), (4, 5, 6), (4, 5, 6, 7, 8)):
        net = trained(widths=widths)
        x = torch.randn(1, 2, 3, 17, 16, dtype=torch.double)
        assert torch.allclose(fuse(net).logits(x), net(x))


def test_nothing_is_left_but_convolutions_and_relu_and_the_network_is_as_it_was():
    net = trained()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fused = fuse(net)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in fused.modules())
    assert sum(isinstance(module, nn.Conv3d) for module in fused.modules()) == 17 + 3 + 3 + 2
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_578_thousand_multiply_adds_per_voxel():
    with torch.device("meta"):
        fused, x = fuse(BrainSegNet(4, 5).eval()), torch.zeros(1, 4, 8, 64, 64)
        count = []
        for module in fused.modules():
            if isinstance(module, nn.Conv3d):
                module.register_forward_hook(lambda m, _, y: count.append(y.numel() * m.weight[0].numel()))
        fused(x)
    assert sum(count) / (8 * 64 * 64) == 578_048


@pytest.mark.parametrize("stride", STRIDES)
def test_a_strided_kernel_gives_the_sub_pixels_of_each_step(stride):
    kernel, x = torch.randn(3, 2, 3, 3, 3), torch.randn(1, 2, 4, 8, 6)
    whole = nn.functional.conv3d(x, kernel, padding=1)
    steps = nn.functional.conv3d(x, strided(kernel, stride), padding=1, stride=stride)
    p, q, r = stride
    for phase, place in enumerate((a, b, c) for a in range(p) for b in range(q) for c in range(r)):
        a, b, c = place
        found = steps[:, 3 * phase : 3 * phase + 3]
        assert torch.allclose(found, whole[:, :, a::p, b::q, c::r], atol=1e-5)
