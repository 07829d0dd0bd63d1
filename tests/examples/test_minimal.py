"""The page `examples/minimal.py` computes what the package computes, fits on one page, and learns."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.preprocessing.geometry import slab_starts
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.task import BRATS2015
from brainsegnet.training.losses import focal_loss
from brainsegnet.training.recipes import PAPER, PAPER_STAGES

PAGE = Path(__file__).parents[2] / "examples" / "minimal.py"


@pytest.fixture(scope="module")
def minimal():
    spec = importlib.util.spec_from_file_location("minimal", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def twin(minimal, net):
    """The tiny network of the package as one of the page, with the same weights."""
    same = minimal.BrainSegNet(net.sequences, net.classes, net.widths, net.top[1].out_channels)
    same.load_state_dict(net.state_dict())
    return same.eval()


@pytest.fixture
def small(minimal, monkeypatch):
    """The page at a size for tests."""
    monkeypatch.setattr(minimal, "SCAN", (24, 40, 40))
    monkeypatch.setattr(minimal, "SAMPLE", (6, 24, 24))
    return minimal


@pytest.fixture
def scan():
    """Two sequences that count their voxels, and a lesion in rows 8 to 13 and columns 20 to 22 of slices 2 to 5."""
    voxels = torch.arange(8 * 30 * 26, dtype=torch.float32).reshape(8, 30, 26) + 1
    classes = torch.zeros(8, 30, 26, dtype=torch.long)
    classes[2:6, 8:14, 20:23] = 1
    return torch.stack([voxels, -voxels]), classes


def test_it_is_one_page():
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 170


def test_its_network_is_that_of_the_package(twin, net):
    x = torch.randn(2, 3, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(twin(x), net(x))


def test_at_full_width_it_has_the_weights_of_the_paper(minimal):
    with torch.device("meta"):
        ours, theirs = minimal.BrainSegNet(4, 5, PAPER.widths, PAPER.refined), BrainSegNet(4, 5)
    shapes = [{name: tensor.shape for name, tensor in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_its_focal_loss_is_that_of_the_package(minimal, gamma):
    logits, classes = 3 * torch.randn(2, 5, 3, 4, 5), torch.randint(5, (2, 3, 4, 5))
    ours = minimal.focal_loss(logits, classes, gamma)
    torch.testing.assert_close(ours, focal_loss(logits, classes, gamma), rtol=1e-6, atol=0)


def test_its_curriculum_is_that_of_the_paper(minimal):
    assert minimal.STAGES == {stage.name: (stage.augment, stage.gamma) for stage in PAPER_STAGES}
    assert len({stage.share for stage in PAPER_STAGES}) == 1


def test_its_augmentation_has_the_ranges_of_the_recipe(minimal):
    paper = PAPER.augmentation
    assert (minimal.GAIN, minimal.SCALE) == (paper.slice_gain, paper.scale)
    assert (0.0, minimal.FLIP, minimal.FLIP) == paper.flips and paper.quarter_turns
    assert minimal.REGIONS == BRATS2015.regions


@pytest.mark.parametrize(("depth", "thickness"), [(155, 12), (20, 7), (5, 7)])
def test_its_slabs_are_those_of_the_package(minimal, depth, thickness):
    assert tuple(minimal.slab_starts(depth, thickness)) == slab_starts(depth, thickness)


def test_a_sample_as_it_is_holds_the_lesion_and_changes_no_voxel(minimal, monkeypatch, scan, rng):
    monkeypatch.setattr(minimal, "SAMPLE", (4, 12, 16))
    for _ in range(20):
        image, classes = minimal.cut_sample(rng, scan, 2, augment=False)
        assert image.shape == (2, 4, 12, 16) and classes.shape == (4, 12, 16)
        assert classes.sum() == 4 * 6 * 3
        inside = image[0][image[0] != 0]
        assert torch.equal(scan[1].flatten()[inside.long() - 1], classes[image[0] != 0])


def test_a_crop_below_the_lesion_is_filled_by_it(minimal, monkeypatch, scan, rng):
    monkeypatch.setattr(minimal, "SAMPLE", (4, 5, 3))
    assert all(minimal.cut_sample(rng, scan, 2, augment=False)[1].all() for _ in range(20))


def test_augmented_samples_keep_labels_on_their_voxels(minimal, monkeypatch, scan, rng):
    monkeypatch.setattr(minimal, "SAMPLE", (4, 16, 16))
    marked = scan[1][None].float(), scan[1]
    factors = []
    for _ in range(40):
        image, classes = minimal.cut_sample(rng, marked, 2, augment=True)
        assert image.shape == (1, 4, 16, 16) and classes.any()
        assert image[0][classes == 1].mean() > 2 * image[0][classes == 0].mean()
        factors += image.amax((0, 2, 3)).tolist()
    assert min(factors) >= 0.6 and max(factors) <= 1.2 and max(factors) - min(factors) > 0.2


@pytest.mark.parametrize("size", [(8, 17, 13), (12, 16, 24), (4, 30, 21)])
def test_its_prediction_of_any_size_is_that_of_the_package(minimal, twin, net, size):
    image = np.random.default_rng(1).normal(size=(3, *size)).astype(np.float32)
    for thickness in (size[0], 4):
        predictor = TiledPredictor(TorchBackend(net, "cpu", 1))
        theirs = predictor.classify(image, None if thickness == size[0] else thickness)
        ours = minimal.predict(twin, torch.from_numpy(image), thickness).numpy()
        assert np.mean(ours != theirs) < 1e-3  # the package sums in another order


def test_it_normalises_like_the_package(small):
    image, classes = small.simulate(3)
    case = simulate_phantom(3, small.SCAN)
    prepared = prepare(case)
    box = (..., *prepared.box.slices)
    np.testing.assert_allclose(image.numpy()[box], prepared.image, atol=1e-4)
    assert torch.equal(classes, torch.from_numpy(case.lesion.array.astype(np.int64)))


def test_the_loss_falls_and_the_network_predicts(small, one_thread, capsys):
    scans = [small.simulate(seed) for seed in range(2)]
    net = small.train(scans, epochs=3)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 9 and losses[5] < 0.7 * losses[0]
    found = small.predict(net, scans[0][0])
    assert found.shape == scans[0][1].shape and set(found.unique().tolist()) <= {*range(5)}
    assert small.dice(scans[0][1], scans[0][1], (1, 3, 4)) == 1.0
