"""Memory, counted from shapes: what a training step of the paper keeps for its backward pass."""

import torch
from torch import Tensor

from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FusedDecoder
from brainsegnet.training.losses import focal_loss
from brainsegnet.training.recipes import PAPER


def kept_gigabytes(fused_decoder: bool) -> float:
    """Activations in bf16 that the paper's batch of 40 samples of 12x128x128 keeps, weights apart."""
    with torch.device("meta"):
        net = BrainSegNet(4, 5, PAPER.widths, PAPER.refined).to(torch.bfloat16).train()
        images = torch.empty(PAPER.batch, 4, 12, 128, 128, dtype=torch.bfloat16)
        classes = torch.empty(PAPER.batch, 12, 128, 128, dtype=torch.uint8)
    weights = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        focal_loss((FusedDecoder(net) if fused_decoder else net)(images), classes, PAPER.stages[-1].gamma)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights) / 1e9


def test_the_papers_batch_fits_into_12_gigabytes():
    assert 5 < kept_gigabytes(fused_decoder=True) < 9.5


def test_the_fused_decoder_saves_a_third():
    assert kept_gigabytes(fused_decoder=True) < 0.67 * kept_gigabytes(fused_decoder=False)
