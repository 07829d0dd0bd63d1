"""A scan in slabs or mirrored: what is computed, what is kept, and what happens if memory is short."""

import numpy as np
import pytest
import torch

from brainsegnet.inference.tiling import (
    TiledPredictor,
    find_halo,
    interleave,
    overlapping,
    side_by_side,
    tta_probabilities,
)
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.inference.torch_prepare import OnDevice
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import fuse


class Sums:
    """A backend whose class is the sum over so many slices on either side, zero beyond the ends, modulo 7."""

    name, classes, multiples, halo = "sums", 7, (2, 4, 4), 3

    def __init__(self, room=10**9):
        self.room, self.seen = room, []

    def classify(self, image):
        self.seen.append(image.shape[1])
        if image.shape[1] > self.room:
            raise MemoryError
        assert all(n % m == 0 for n, m in zip(image.shape[1:], self.multiples, strict=True))
        wide = np.pad(image[0], [(self.halo, self.halo), (0, 0), (0, 0)])
        return (sum(wide[i : i + image.shape[1]] for i in range(2 * self.halo + 1)) % 7).astype(np.uint8)

    def classify_with_confidence(self, image, certainty=False):
        classes = self.classify(image)
        return np.stack([classes, 30 * classes, *([20 * classes] if certainty else [])])

    def probabilities(self, image):
        return np.eye(7, dtype=np.float32)[self.classify(image)].transpose(3, 0, 1, 2)

    def estimate_bytes(self, shape):
        return shape[0]

    def free_bytes(self):
        return None


@pytest.fixture
def whole(rng):
    return rng.integers(0, 7, (1, 23, 9, 6)).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 5, 20, 23])
@pytest.mark.parametrize("thickness", [2, 6, 40])
@pytest.mark.parametrize("halo", [0, 3])
def test_overlapping_slabs_keep_each_slice_once_and_know_its_neighbours(depth, thickness, halo):
    kept = []
    for tile in overlapping(depth, thickness, halo, 2):
        kept += range(tile.kept.start, tile.kept.stop)
        assert tile.computed.start % 2 == 0
        assert tile.computed.start <= max(tile.kept.start - halo, 0)
        assert tile.computed.stop >= min(tile.kept.stop + halo, depth)
    assert kept == list(range(depth))


def test_the_papers_slabs_are_computed_and_kept_alike():
    assert [tile.kept for tile in side_by_side(155, 31)] == [slice(31 * i, 31 * i + 31) for i in range(5)]
    assert all(tile.kept == tile.computed for tile in side_by_side(20, 7))


@pytest.mark.parametrize("max_bytes", [10, 12, 14, 23])
def test_slabs_for_lack_of_memory_give_the_result_of_one_pass(whole, max_bytes):
    expected = TiledPredictor(Sums()).classify(whole)
    predictor = TiledPredictor(sums := Sums(), max_bytes)
    np.testing.assert_array_equal(predictor.classify(whole), expected)
    assert max(sums.seen) <= max_bytes + 1
    np.testing.assert_array_equal(predictor.probabilities(whole).argmax(0), expected)
    assert bool(predictor.notes) == (max_bytes < 23)


def test_after_a_lack_of_memory_thinner_slabs_are_computed_and_noted(whole):
    expected = TiledPredictor(Sums()).classify(whole)
    predictor = TiledPredictor(Sums(room=14))
    np.testing.assert_array_equal(predictor.classify(whole), expected)
    assert [note.split("slabs of ")[1] for note in predictor.notes] == [
        "10 slices are computed",
        "4 slices are computed",
    ]


def test_at_last_the_fallback_computes(whole):
    fallback = Sums()
    fallback.name = "fallback"
    predictor = TiledPredictor(Sums(room=1), fallback=lambda: fallback)
    np.testing.assert_array_equal(predictor.classify(whole), TiledPredictor(Sums()).classify(whole))
    assert predictor.backend is fallback and predictor.notes[-1] == "sums: too little memory, so fallback computes"
    with pytest.raises(MemoryError, match="cut the scan into"):
        TiledPredictor(Sums(room=1)).classify(whole)


def test_too_little_memory_for_the_thinnest_slab_is_an_error_before_anything_is_computed(whole):
    predictor = TiledPredictor(sums := Sums(), max_bytes=3)
    with pytest.raises(MemoryError, match=r"the thinnest slab takes about .* allow more memory"):
        predictor.classify(whole)
    assert not sums.seen


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
def test_a_slice_depends_on_no_slice_beyond_the_halo_and_on_those_within(stride):
    net = BrainSegNet(1, 2, (2, 2, 2), 2, stride)
    for parameter in net.parameters():
        parameter.data.abs_().add_(0.1)
    halo = find_halo(3, stride[0])
    assert TorchBackend(net, "cpu").halo == halo
    image = torch.ones(1, 1, 2 * halo + 8 - 2 * halo % 4, 4, 4, dtype=torch.double)
    changed = image.clone()
    changed[:, :, 0] = 2
    fused = fuse(net.double())
    differs = (fused.logits(changed) != fused.logits(image)).any(4).any(3).any(1)[0]
    assert not differs[halo + 1 :].any()
    if stride == (1, 2, 2):
        assert differs[: halo + 1].all()


@pytest.mark.parametrize(("stride", "depth", "limit"), [((1, 2, 2), 97, 80), ((2, 2, 2), 203, 190)])
def test_a_network_in_slabs_gives_the_same_labels_in_every_voxel(net, stride, depth, limit, rng):
    torch.manual_seed(3)
    net = BrainSegNet(3, 4, (4, 4, 8, 8), 8, stride) if stride != net.stride else net
    image = rng.normal(size=(3, depth, 17, 13)).astype(np.float32)
    backend = TorchBackend(net, "cpu")
    expected = TiledPredictor(backend, 10**12).classify(image)
    predictor = TiledPredictor(backend, backend.estimate_bytes((limit, 17, 13)))
    np.testing.assert_array_equal(predictor.classify(image), expected)
    assert "so that a forward pass takes" in predictor.notes[0]


def test_interleave_puts_sub_pixels_in_their_places(rng):
    whole = rng.normal(size=(3, 4, 6, 10))
    parts = np.stack([whole[:, a::2, b::3, c::5] for a in range(2) for b in range(3) for c in range(5)], 1)
    np.testing.assert_array_equal(interleave(parts, (2, 3, 5)), whole)


def test_confidence_comes_with_the_classes_in_slabs_too(whole):
    for max_bytes in (10, 23):
        predictor = TiledPredictor(Sums(), max_bytes)
        classes, confidence = predictor.classify_with_confidence(whole)
        np.testing.assert_array_equal(classes, TiledPredictor(Sums()).classify(whole))
        np.testing.assert_array_equal(confidence, 30 * classes)


@pytest.fixture
def predictor(net):
    return TiledPredictor(TorchBackend(net, "cpu"))


@pytest.fixture
def unpadded(rng):
    """Of a size that needs no padding, which would be on the other side of a mirrored scan."""
    return rng.normal(size=(3, 5, 24, 32)).astype(np.float32)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_with_tta_a_mirrored_scan_gives_the_mirrored_result_and_without_it_does_not(predictor, unpadded, axes):
    turned = np.ascontiguousarray(np.flip(unpadded, axes))
    expected = tta_probabilities(predictor, unpadded)
    np.testing.assert_allclose(np.flip(tta_probabilities(predictor, turned), axes), expected, atol=1e-5)
    assert np.abs(np.flip(predictor.probabilities(turned), axes) - predictor.probabilities(unpadded)).max() > 0.1
    assert np.abs(expected - predictor.probabilities(unpadded)).max() > 0.1


def test_tta_is_the_mean_of_four_predictions_for_any_size(predictor, rng):
    image = rng.normal(size=(3, 4, 21, 27)).astype(np.float32)
    four = [np.flip(predictor.probabilities(np.flip(image, axes)), axes) for axes in ((), (2,), (3,), (2, 3))]
    found = tta_probabilities(predictor, image)
    np.testing.assert_allclose(found, np.mean(four, 0), atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_tta_uses_the_given_slabs(predictor, unpadded):
    whole, slabs = tta_probabilities(predictor, unpadded), tta_probabilities(predictor, unpadded, 2)
    assert np.abs(whole - slabs).max() > 0.01
    np.testing.assert_allclose(tta_probabilities(predictor, unpadded, 5), whole, atol=1e-6)


def test_an_image_on_a_device_is_mirrored_there(predictor, unpadded):
    on_device = OnDevice(torch.from_numpy(unpadded))
    assert isinstance(on_device.flipped((2, 3)), OnDevice)
    np.testing.assert_array_equal(tta_probabilities(predictor, on_device), tta_probabilities(predictor, unpadded))


def test_tta_notes_a_lack_of_memory_once_and_continues_on_the_fallback(net, unpadded):
    class Full(TorchBackend):
        def probabilities(self, image):
            raise MemoryError

    class Fallback(TorchBackend):
        def probabilities(self, image):
            assert isinstance(image, np.ndarray)
            return super().probabilities(image)

    predictor = TiledPredictor(Full(net, "cpu"), fallback=lambda: Fallback(net, "cpu"))
    found = tta_probabilities(predictor, OnDevice(torch.from_numpy(unpadded)))
    assert len(predictor.notes) == len(set(predictor.notes)) and "computes" in predictor.notes[-1]
    np.testing.assert_array_equal(found, tta_probabilities(TiledPredictor(TorchBackend(net, "cpu")), unpadded))
