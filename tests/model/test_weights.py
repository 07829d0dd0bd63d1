import pickle

import pytest
import torch

from brainsegnet.errors import ModelError
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.weights import load_into, read_tensors, write_tensors


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
