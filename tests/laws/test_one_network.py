"""The network that is trained is the one that is saved, loaded and run on scans."""

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import FusedDecoder
from brainsegnet.model.network import load_into, read_tensors, write_tensors
from brainsegnet.preprocessing.geometry import slab_starts
from brainsegnet.training.loop import Monitoring, Plan, fit
from brainsegnet.training.recipes import Budget, Recipe
from brainsegnet.training.sampler import Sampler, Scan

RECIPE = Recipe(name="r", widths=(2, 4, 4, 4), refined=4, batch=2, budget_epochs=1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scan(rng):
    classes = np.zeros((8, 24, 24), np.uint8)
    classes[2:6, 6:16, 8:18] = 1
    return Scan(np.stack([classes + rng.normal(0, 0.2, classes.shape)]).astype(np.float32), classes, 8, 0)


@pytest.mark.parametrize("nonlinear", [True, False])
def test_saved_and_loaded_weights_compute_what_the_training_computed_plain_and_fused(scan, tmp_path, nonlinear):
    plan = Plan(RECIPE.model_copy(update={"nonlinear": nonlinear}), Budget(steps=4), 1, 2, (4, 16, 16))
    path = tmp_path / "weights.safetensors"
    monitoring = Monitoring(keep=lambda name, weights, steps: write_tensors(weights, path))
    trained = fit([scan], plan, Fabric(accelerator="cpu", devices=1), monitoring)
    loaded = BrainSegNet(1, 2, RECIPE.widths, RECIPE.refined, nonlinear=nonlinear).eval()
    load_into(loaded, read_tensors(path)[0], "it")
    x = torch.from_numpy(scan.image)[None, :, :, :23, :21]
    with torch.inference_mode():
        assert torch.allclose(loaded(x), trained(x), rtol=1e-5, atol=1e-6)
        assert torch.allclose(FusedDecoder(loaded)(x), loaded(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth, thickness", [(155, 12), (20, 7), (13, 13), (5, 7)])
def test_the_slabs_of_an_epoch_show_every_slice_as_often_as_the_slabs_of_preprocessing(depth, thickness):
    """Each slice carries its number; what lies beyond a thin scan is zero."""
    numbered = np.broadcast_to(np.arange(1, depth + 1, dtype=np.float32)[:, None, None], (depth, 4, 4))
    sampler = Sampler(
        [Scan(numbered[None].copy(), np.zeros((depth, 4, 4), np.uint8), depth, 0)],
        RECIPE, (thickness, 4, 4), 0, torch.device("cpu"),
    )  # fmt: skip
    images, _ = sampler.cut([sampler.draw(k, RECIPE.stages[0]) for k in range(len(sampler.places))])
    seen = sorted(images[:, 0, :, 0, 0].flatten().int().tolist())
    starts = slab_starts(depth, thickness)
    expected = [s + k + 1 if s + k < depth else 0 for s in starts for k in range(thickness)]
    assert seen == sorted(expected) and set(range(1, depth + 1)) <= set(seen)
