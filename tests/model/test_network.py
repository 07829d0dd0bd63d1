"""Networks as values, and their weights as files."""

import pickle

import pytest
import torch
from torch import nn

from brainsegnet.benchmark.models import BASELINES
from brainsegnet.errors import ModelError
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.network import (
    as_drawn,
    brain_segnet,
    count_parameters,
    load_into,
    multiply_adds,
    read_tensors,
    write_tensors,
)

PATCH = (16, 32, 32)


def tiny(**kwargs):
    return BrainSegNet(2, 3, (2, 2, 2, 2), 4, **kwargs)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_tensors(tiny().state_dict(), path, {"note": "schön\nund gut"})
    return path


def refusal(action, *arguments):
    with pytest.raises(ModelError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_and_notes_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    last = torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    tensors = {
        "float": torch.tensor([0.1, -0.0, float("nan"), float("inf"), 1e-42]),
        "count": torch.tensor(2**40),
        "half": torch.randn(3).bfloat16(),
        "channels last": last,
        "view": torch.arange(12).reshape(3, 4).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_tensors(tensors, path, {"a": "schön\n"})
    found, notes = read_tensors(path)
    assert notes == {"a": "schön\n"} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.allclose(found[name], tensor, rtol=0, atol=0, equal_nan=True), name


def test_a_network_comes_back_bit_for_bit(weights):
    tensors, notes = read_tensors(weights)
    net = tiny()
    load_into(net, tensors, "it")
    assert notes == {"note": "schön\nund gut"}
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in tensors.items())


def test_loading_keeps_the_memory_layout_of_the_network(weights):
    net = tiny().to(memory_format=torch.channels_last_3d)
    load_into(net, read_tensors(weights)[0], "it")
    assert net.blocks[0][1][0].weight.is_contiguous(memory_format=torch.channels_last_3d)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_is_refused_and_not_executed(tmp_path, save):
    path = tmp_path / "weights.safetensors"
    save({"a": Bomb()}, path)
    text = refusal(read_tensors, path)
    assert str(path) in text and "execute code" in text


@pytest.mark.parametrize("keep", [0, 4, 20, 0.3, 0.99])
def test_a_truncated_file_is_refused(weights, keep):
    whole = weights.read_bytes()
    weights.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    assert "is not a safetensors file" in refusal(read_tensors, weights)


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    assert "does not exist" in refusal(read_tensors, tmp_path / "nothing")
    refusal(read_tensors, tmp_path)


def test_tensors_that_do_not_fit_are_refused_by_name(weights):
    tensors, _ = read_tensors(weights)
    name = "classify.weight"
    without = {key: tensor for key, tensor in tensors.items() if key != name}
    assert f"{name} first" in refusal(load_into, tiny(), without, "model m")
    assert "stranger first" in refusal(load_into, tiny(), {**tensors, "stranger": torch.ones(1)}, "model m")
    text = refusal(load_into, tiny(), {**tensors, name: torch.ones(3, 4)}, "model m")
    assert name in text and "(3, 4)" in text and "(3, 4, 1, 1, 1)" in text
    assert "refine.1.norm.0.bias first" in refusal(load_into, tiny(nonlinear=False), tensors, "model m")


def test_a_refused_set_of_tensors_leaves_the_network_as_it_was(weights):
    tensors, _ = read_tensors(weights)
    net = tiny()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    refusal(load_into, net, {**tensors, "classify.weight": torch.ones(1)}, "model m")
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_place_that_cannot_be_written_is_an_error_of_the_operating_system(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_tensors({"a": torch.ones(1)}, tmp_path / "no" / "a.safetensors")
    assert not (tmp_path / "no").exists()


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
