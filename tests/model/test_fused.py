import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import fuse_decoder, shuffle, subpixel, taps

STRIDES = [(1, 2, 2), (2, 2, 2)]
SIZES = [(1, 1, 1), (2, 2, 2), (1, 2, 3), (4, 9, 11), (3, 16, 7)]


def shaken(dtype=torch.float64, **kwargs):
    """A network in which no bias, norm or running statistic is at its beginning, and the classifier matters."""
    torch.manual_seed(3)
    net = BrainSegNet(2, 3, (4, 6, 8, 10), 8, **kwargs)
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
    z, dz, fewer = gradients(fuse_decoder(twin), twin, x, weights)
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
    compare(shaken(stride=stride, nonlinear=nonlinear).train(train), size, 1e-12)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(2, 2, 1), (4, 9, 11), (3, 16, 24)])
def test_single_precision_is_good_to_five_digits(size, stride):
    compare(shaken(torch.float32, stride=stride).eval(), size, 1e-5)


@pytest.mark.parametrize("nonlinear", [True, False])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(6, 8, 16), (6, 9, 11)])
def test_the_outermost_shells_agree(size, stride, nonlinear):
    net = shaken(stride=stride, nonlinear=nonlinear).eval()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    with torch.inference_mode():
        y, z = net(x), fuse_decoder(net)(x)
    for axis in (2, 3, 4):
        for place in (0, 1, -2, -1):
            assert off(z.select(axis, place), y.select(axis, place)) < 1e-12, (axis, place)


def test_a_bias_before_the_zero_padding_counts_for_less_at_the_border():
    """With nothing but that bias alive the plain network is not constant, and neither is its twin."""
    net = shaken(nonlinear=False).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name not in ("refine.0.lateral.bias", "refine.0.smooth.weight", "classify.weight"):
                p.zero_()
    with torch.inference_mode():
        x = torch.zeros(1, 2, 5, 8, 8, dtype=torch.float64)
        y, z = net(x), fuse_decoder(net)(x)
    assert off(z, y) < 1e-12
    assert not torch.allclose(y[..., 0, 0], y[..., 4, 4]) and torch.allclose(y[..., 2, 3, 3], y[..., 2, 4, 4])


def multiply_adds_per_voxel(module, x):
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() / 2 / x[0, 0].numel()


def test_1022_thousand_multiply_adds_per_voxel_become_575():
    net, x = BrainSegNet(4, 5).to("meta"), torch.zeros(1, 4, 48, 192, 192, device="meta")
    assert multiply_adds_per_voxel(net, x) == pytest.approx(1_021_696, rel=0.001)
    assert multiply_adds_per_voxel(fuse_decoder(net), x) == pytest.approx(575_000, rel=0.01)


def test_the_maps_of_128_channels_are_never_made_at_full_resolution():
    net, largest = shaken(torch.float32).eval(), []
    for module in net.modules():
        module.register_forward_hook(lambda m, i, y: largest.append(y.shape[1]) if y.shape[-1] == 16 else None)
    with torch.inference_mode():
        fuse_decoder(net)(torch.randn(1, 2, 2, 16, 16))
        seen, _ = max(largest), largest.clear()
        net(torch.randn(1, 2, 2, 16, 16))
    assert (seen, max(largest)) == (4, 8)


def test_the_twin_has_no_weights_of_its_own():
    net = shaken()
    assert {id(p) for p in fuse_decoder(net).parameters()} == {id(p) for p in net.parameters()}
    twin, x = fuse_decoder(net.eval()), torch.randn(1, 2, 2, 8, 8, dtype=torch.float64)
    before = twin(x)
    with torch.no_grad():
        net.classify.bias.add_(1)
    assert torch.allclose(twin(x), before + 1)


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
