"""The network with fewer operations: the fused decoder in training, and the fused network afterwards."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FusedDecoder, fuse, shuffle, strided, subpixel, taps

STRIDES = [(1, 2, 2), (2, 2, 2)]
SIZES = [(1, 1, 1), (2, 2, 2), (1, 2, 3), (4, 9, 11), (3, 16, 7)]


def random_net(dtype=torch.float64, widths=(4, 6, 8, 10), **kwargs):
    """A network in which no bias, norm or running statistic has its initial value, and the classifier matters."""
    torch.manual_seed(3)
    net = BrainSegNet(2, 3, widths, 8, **kwargs)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.ndim == 1:
                tensor.normal_()
        net.classify.weight.normal_()
    return net.to(dtype)


def gradients(module, net, x, weights):
    """Logits, the gradient of the input, and those of all parameters by name."""
    x = x.clone().requires_grad_()
    net.zero_grad()
    y = module(x)
    (y * weights).sum().backward()
    return y.detach(), x.grad, {name: p.grad for name, p in net.named_parameters()}


def off(a, b):
    """Relative difference of two tensors, by norm."""
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()


def compare(net, size, tolerance):
    x = torch.randn(2, net.sequences, *size, dtype=next(net.parameters()).dtype)
    twin, weights = copy.deepcopy(net), torch.randn(2, net.classes, *size).to(x)
    y, dx, plain = gradients(net, net, x, weights)
    z, dz, fewer = gradients(FusedDecoder(twin), twin, x, weights)
    assert y.shape == z.shape and off(z, y) < tolerance and off(dz, dx) < tolerance
    assert all(g is not None for g in fewer.values())
    total = torch.cat([g.flatten() for g in plain.values()]).norm()
    for name, gradient in plain.items():
        assert (fewer[name] - gradient).norm() / total < tolerance, name
    for name, buffer in net.named_buffers():
        assert torch.allclose(twin.get_buffer(name), buffer, rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("train, nonlinear", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_the_network(size, stride, train, nonlinear):
    compare(random_net(stride=stride, nonlinear=nonlinear).train(train), size, 1e-12)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(2, 2, 1), (4, 9, 11), (3, 16, 24)])
def test_single_precision_is_good_to_five_digits(size, stride):
    compare(random_net(torch.float32, stride=stride).eval(), size, 1e-5)


@pytest.mark.parametrize("nonlinear", [True, False])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(6, 8, 16), (6, 9, 11)])
def test_the_outermost_voxels_agree(size, stride, nonlinear):
    net = random_net(stride=stride, nonlinear=nonlinear).eval()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    with torch.inference_mode():
        y, z = net(x), FusedDecoder(net)(x)
    for axis in (2, 3, 4):
        for place in (0, 1, -2, -1):
            assert off(z.select(axis, place), y.select(axis, place)) < 1e-12, (axis, place)


def test_a_bias_before_the_zero_padding_counts_for_less_at_the_border():
    """With nothing but that bias alive the plain network is not constant, and neither is the fused decoder."""
    net = random_net(nonlinear=False).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name not in ("refine.0.lateral.bias", "refine.0.smooth.weight", "classify.weight"):
                p.zero_()
    with torch.inference_mode():
        x = torch.zeros(1, 2, 5, 8, 8, dtype=torch.float64)
        y, z = net(x), FusedDecoder(net)(x)
    assert off(z, y) < 1e-12
    assert not torch.allclose(y[..., 0, 0], y[..., 4, 4]) and torch.allclose(y[..., 2, 3, 3], y[..., 2, 4, 4])


def multiply_adds_per_voxel(module, x):
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() / 2 / x[0, 0].numel()


def test_1022_thousand_multiply_adds_per_voxel_become_575():
    net, x = BrainSegNet(4, 5).to("meta"), torch.zeros(1, 4, 48, 192, 192, device="meta")
    assert multiply_adds_per_voxel(net, x) == pytest.approx(1_021_696, rel=0.001)
    assert multiply_adds_per_voxel(FusedDecoder(net), x) == pytest.approx(575_000, rel=0.01)


def test_the_maps_of_128_channels_are_never_made_at_full_resolution():
    net, largest = random_net(torch.float32).eval(), []
    for module in net.modules():
        module.register_forward_hook(lambda m, i, y: largest.append(y.shape[1]) if y.shape[-1] == 16 else None)
    with torch.inference_mode():
        FusedDecoder(net)(torch.randn(1, 2, 2, 16, 16))
        seen, _ = max(largest), largest.clear()
        net(torch.randn(1, 2, 2, 16, 16))
    assert (seen, max(largest)) == (4, 8)


def test_the_fused_decoder_has_no_weights_of_its_own():
    net = random_net()
    assert {id(p) for p in FusedDecoder(net).parameters()} == {id(p) for p in net.parameters()}
    fused, x = FusedDecoder(net.eval()), torch.randn(1, 2, 2, 8, 8, dtype=torch.float64)
    before = fused(x)
    with torch.no_grad():
        net.classify.bias.add_(1)
    assert torch.allclose(fused(x), before + 1)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (1, 1, 1), (3, 2, 1)])
def test_a_convolution_after_repetition_is_a_shuffle_of_smaller_ones(stride):
    kernel, x = torch.randn(3, 2, 3, 3, 3).double(), torch.randn(2, 2, 3, 4, 5).double()
    repeated = x
    for axis, times in zip((2, 3, 4), stride, strict=True):
        repeated = repeated.repeat_interleave(times, axis)
    expected = torch.nn.functional.conv3d(repeated, kernel, padding=1)
    found = shuffle(torch.nn.functional.conv3d(x, subpixel(kernel, stride), padding=1), stride)
    assert torch.allclose(found, expected)


def test_every_fine_tap_falls_on_one_coarse_tap():
    for stride in (1, 2, 3):
        assert torch.equal(taps(stride).sum(1), torch.ones(stride, 3))


@pytest.mark.parametrize("stride", (*STRIDES, (1, 1, 2)))
@pytest.mark.parametrize("nonlinear", [True, False])
@pytest.mark.parametrize("size", [(3, 9, 11), (8, 16, 8), (1, 8, 8), (2, 1, 3)])
def test_the_fused_network_is_the_same_function_at_odd_and_even_sizes_and_at_borders(stride, nonlinear, size):
    net = random_net(stride=stride, nonlinear=nonlinear).eval()
    x = torch.randn(2, 2, *size, dtype=torch.double)
    expected = net(x)
    assert (fuse(net).logits(x) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_the_fused_network_is_exact_to_five_digits_in_single_precision():
    net = random_net(torch.float32).eval()
    x = torch.randn(1, 2, 4, 16, 24)
    expected = net(x)
    assert (fuse(net).logits(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_networks_of_more_and_fewer_blocks_than_the_papers_are_fused():
    for widths in ((4, 5), (4, 5, 6), (4, 5, 6, 7, 8)):
        net = random_net(widths=widths).eval()
        x = torch.randn(1, 2, 3, 17, 16, dtype=torch.double)
        assert torch.allclose(fuse(net).logits(x), net(x))


def test_only_convolutions_and_relu_are_left_and_the_network_is_not_changed():
    net = random_net().eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fused = fuse(net)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in fused.modules())
    assert sum(isinstance(module, nn.Conv3d) for module in fused.modules()) == 17 + 3 + 3 + 2
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_the_fused_network_has_578_thousand_multiply_adds_per_voxel():
    with torch.device("meta"):
        fused, x = fuse(BrainSegNet(4, 5).eval()), torch.zeros(1, 4, 8, 64, 64)
        count = []
        for module in fused.modules():
            if isinstance(module, nn.Conv3d):
                module.register_forward_hook(lambda m, _, y: count.append(y.numel() * m.weight[0].numel()))
        fused(x)
    assert sum(count) / (8 * 64 * 64) == 578_048


@pytest.mark.parametrize("stride", (*STRIDES, (1, 1, 2)))
def test_a_strided_kernel_gives_the_sub_pixels_of_each_step(stride):
    kernel, x = torch.randn(3, 2, 3, 3, 3), torch.randn(1, 2, 4, 8, 6)
    whole = nn.functional.conv3d(x, kernel, padding=1)
    steps = nn.functional.conv3d(x, strided(kernel, stride), padding=1, stride=stride)
    p, q, r = stride
    for phase, place in enumerate((a, b, c) for a in range(p) for b in range(q) for c in range(r)):
        a, b, c = place
        found = steps[:, 3 * phase : 3 * phase + 3]
        assert torch.allclose(found, whole[:, :, a::p, b::q, c::r], atol=1e-5)
