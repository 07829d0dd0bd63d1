"""The network of brain extraction: any size goes in and comes out, and training meets every weight."""

import pytest
import torch

from brainsegnet.model.brain import BrainNet


@pytest.mark.parametrize("shape", [(16, 32, 16), (17, 23, 31)])
def test_a_logit_for_every_voxel(shape):
    net = BrainNet((8, 8, 8, 8), 8).eval()
    assert net(torch.rand(2, 1, *shape)).shape == (2, 1, *shape)


def test_it_is_the_network_of_the_paper_on_blocks():
    net = BrainNet((8, 8, 8, 8), 8).eval()
    x = torch.rand(1, 1, 32, 32, 16)
    logits = net(x)
    voxel = net.blocks(_blocks(x))
    assert torch.allclose(logits[0, 0, 1::2, ::2, 1::2], voxel[0, 5], atol=1e-4)


def _blocks(x):
    return torch.stack([x[0, 0, p::2, q::2, r::2] for p in (0, 1) for q in (0, 1) for r in (0, 1)])[None]


def test_every_weight_is_trained():
    net = BrainNet((8, 8, 8, 8), 8)
    torch.nn.init.normal_(net.blocks.classify.weight)
    net(torch.rand(2, 1, 32, 32, 32)).square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]
