import numpy as np
import pytest
import torch

from brainsegnet.inference.tiling import TiledPredictor, find_halo, interleave, overlapping, side_by_side
from brainsegnet.inference.torch_backend import TorchBackend
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

    def classify_with_confidence(self, image):
        classes = self.classify(image)
        return np.stack([classes, 30 * classes])

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
    for piece in overlapping(depth, thickness, halo, 2):
        kept += range(piece.kept.start, piece.kept.stop)
        assert piece.computed.start % 2 == 0
        assert piece.computed.start <= max(piece.kept.start - halo, 0)
        assert piece.computed.stop >= min(piece.kept.stop + halo, depth)
    assert kept == list(range(depth))


def test_the_papers_slabs_are_computed_and_kept_alike():
    assert [p.kept for p in side_by_side(155, 31)] == [slice(31 * i, 31 * i + 31) for i in range(5)]
    assert all(p.kept == p.computed for p in side_by_side(20, 7))


@pytest.mark.parametrize("max_bytes", [10, 12, 14, 23])
def test_slabs_for_want_of_memory_give_what_one_pass_gives(whole, max_bytes):
    expected = TiledPredictor(Sums()).classify(whole)
    predictor = TiledPredictor(sums := Sums(), max_bytes)
    np.testing.assert_array_equal(predictor.classify(whole), expected)
    assert max(sums.seen) <= max_bytes + 1
    np.testing.assert_array_equal(predictor.probabilities(whole).argmax(0), expected)
    assert bool(predictor.notes) == (max_bytes < 23)


def test_a_pass_that_fails_for_memory_is_cut_and_said(whole):
    expected = TiledPredictor(Sums()).classify(whole)
    predictor = TiledPredictor(Sums(room=14))
    np.testing.assert_array_equal(predictor.classify(whole), expected)
    assert [note.split("slabs of ")[1] for note in predictor.notes] == [
        "10 slices are computed",
        "4 slices are computed",
    ]


def test_at_last_the_spare_backend_computes(whole):
    spare = Sums()
    spare.name = "spare"
    predictor = TiledPredictor(Sums(room=1), spare=lambda: spare)
    np.testing.assert_array_equal(predictor.classify(whole), TiledPredictor(Sums()).classify(whole))
    assert predictor.backend is spare and predictor.notes[-1] == "sums: too little memory, so spare computes"
    with pytest.raises(MemoryError, match="cut the scan into"):
        TiledPredictor(Sums(room=1)).classify(whole)


def test_too_little_memory_for_the_thinnest_slab_is_said_before_the_work_begins(whole):
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
    net = BrainSegNet(3, 4, (4, 4, 8, 8), 8, stride) if stride != net.stride else net
    image = rng.normal(size=(3, depth, 17, 13)).astype(np.float32)
    backend = TorchBackend(net, "cpu")
    expected = TiledPredictor(backend, 10**12).classify(image)
    predictor = TiledPredictor(backend, backend.estimate_bytes((limit, 17, 13)))
    np.testing.assert_array_equal(predictor.classify(image), expected)
    assert "so that a pass takes" in predictor.notes[0]


def test_interleave_puts_sub_pixels_in_their_places(rng):
    whole = rng.normal(size=(3, 4, 6, 10))
    parts = np.stack([whole[:, a::2, b::3, c::5] for a in range(2) for b in range(3) for c in range(5)], 1)
    np.testing.assert_array_equal(interleave(parts, (2, 3, 5)), whole)


def test_sureness_comes_with_the_classes_in_slabs_too(whole):
    for max_bytes in (10, 23):
        predictor = TiledPredictor(Sums(), max_bytes)
        classes, confidence = predictor.classify_with_confidence(whole)
        np.testing.assert_array_equal(classes, TiledPredictor(Sums()).classify(whole))
        np.testing.assert_array_equal(confidence, 30 * classes)
