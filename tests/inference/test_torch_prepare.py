"""The preparation of a GPU, computed on the CPU here, where it must give the same as `prepare`."""

import numpy as np
import pytest
import torch

from brainsegnet.errors import ImageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.predict import Engine, arrange_channels, predict
from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.inference.torch_prepare import OnDevice, prepare_on
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.volume import Case
from release.calibration import measure_profile

CPU = torch.device("cpu")


class PreparesOnDevice(TorchBackend):
    """A backend that prepares as on a GPU."""

    def prepare(self, case, normalisation="median-sd"):
        return prepare_on(case, self.device, normalisation)


def stored(case, change):
    return Case(case.name, {name: change(volume) for name, volume in case.images.items()})


def in_type(dtype):
    return lambda volume: volume.with_array(volume.array.astype(dtype))


def assert_alike(one, other):
    assert (one.sequences, one.box, one.shape, one.turn) == (other.sequences, other.box, other.shape, other.turn)
    np.testing.assert_array_equal(one.mask, other.mask)
    assert np.asarray(one.image).dtype == np.float32
    np.testing.assert_array_equal(np.asarray(one.image) == 0, other.image == 0)
    np.testing.assert_allclose(np.asarray(one.image), other.image, rtol=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "int16", ">i2", "uint16", "float64"])
def test_the_result_is_that_of_the_cpu_in_any_type_of_numbers(case, dtype):
    case = stored(case, in_type(dtype))
    assert_alike(prepare_on(case, CPU), prepare(case))


@pytest.mark.parametrize("how", [Turn((2, 0, 1), (True, False, True)), Turn((1, 0, 2), (False, True, False))])
def test_the_result_is_that_of_the_cpu_however_the_scan_is_stored(case, how):
    case = stored(case, lambda volume: turn(volume, how))
    assert prepare(case).turn != Turn()
    assert_alike(prepare_on(case, CPU), prepare(case))


def test_a_sequence_that_covers_less_than_the_others_counts_where_it_is(case):
    partial = case.images["t1"].array.copy()
    partial[5:] = 0
    case = Case(case.name, {**case.images, "t1": case.images["t1"].with_array(partial)})
    assert_alike(prepare_on(case, CPU), prepare(case))


def test_a_scan_with_noise_in_the_air_is_all_brain(case, rng):
    noisy = stored(case, lambda volume: volume.with_array(volume.array + rng.normal(size=volume.shape)))
    assert prepare_on(noisy, CPU).mask.all()
    assert_alike(prepare_on(noisy, CPU), prepare(noisy))


def flat_brain(array):
    return np.where(array > 0, 7, 0)


@pytest.mark.parametrize(
    "spoil", [np.zeros_like, flat_brain, lambda a: np.where(a > 0, np.nan, a), lambda a: np.where(a > 400, np.inf, a)]
)
def test_a_bad_image_is_refused_in_the_same_words(case, spoil):
    case = Case(case.name, {**case.images, "t1": case.images["t1"].with_array(spoil(case.images["t1"].array))})
    sentences = []
    for prepare_case in (prepare, lambda case: prepare_on(case, CPU)):
        with pytest.raises(ImageError) as caught:
            prepare_case(case)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1] and "case pat1: t1" in sentences[0]


@pytest.mark.parametrize("slabs", [None, 3])
def test_an_image_on_a_device_is_taken_as_an_array_is(net, image, slabs):
    backend = TorchBackend(net, "cpu")
    on_device = OnDevice(torch.from_numpy(image))
    np.testing.assert_array_equal(
        TiledPredictor(backend).classify(on_device, slabs), TiledPredictor(backend).classify(image, slabs)
    )
    np.testing.assert_array_equal(
        TiledPredictor(backend).probabilities(on_device, slabs), TiledPredictor(backend).probabilities(image, slabs)
    )


def test_for_lack_of_memory_an_image_on_a_device_is_copied_for_the_fallback(net, image):
    class Full(TorchBackend):
        def classify(self, image):
            assert isinstance(image, OnDevice)
            raise MemoryError

    class Fallback(TorchBackend):
        def classify(self, image):
            assert isinstance(image, np.ndarray)
            return super().classify(image)

    predictor = TiledPredictor(Full(net, "cpu"), fallback=lambda: Fallback(net, "cpu"))
    found = predictor.classify(OnDevice(torch.from_numpy(image)))
    assert "too little memory" in predictor.notes[-1]
    np.testing.assert_array_equal(found, TiledPredictor(TorchBackend(net, "cpu")).classify(image))


def test_an_absent_sequence_is_zero(case):
    some = Case(case.name, {name: case.images[name] for name in ("t1c", "flair")})
    wanted = arrange_channels(prepare(some), ("flair", "t1", "t1c"))
    found = arrange_channels(prepare_on(some, CPU), ("flair", "t1", "t1c"))
    assert isinstance(found, OnDevice) and not np.asarray(found)[1].any()
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=2e-7)


def test_a_case_gets_the_labels_and_warnings_of_the_cpu(case, net, card):
    profile = measure_profile([(prepare(case), case.reference.spacing_mm)])
    card = card.model_copy(update={"profile": profile.model_copy(update={"volume_ml": 5 * profile.volume_ml})})
    options = SegmentOptions(probabilities=True, uncertainty=True)
    there, here = (predict(case, Engine(card, kind(net, "cpu")), options) for kind in (PreparesOnDevice, TorchBackend))
    np.testing.assert_array_equal(there.labels.array, here.labels.array)
    np.testing.assert_allclose(there.entropy.array, here.entropy.array, atol=1e-5)
    assert there.warnings == here.warnings and there.warnings


def test_on_a_cpu_the_threads_of_the_cpu_prepare(case, net):
    assert isinstance(TorchBackend(net, "cpu").prepare(case).image, np.ndarray)


@pytest.mark.gpu
def test_a_gpu_prepares_what_the_cpu_prepares(case, net, card):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    backend = TorchBackend(net, "cuda")
    prepared = backend.prepare(case)
    assert isinstance(prepared.image, OnDevice) and prepared.image.tensor.is_cuda
    np.testing.assert_allclose(np.asarray(prepared.image), prepare(case).image, rtol=1e-6)
    np.testing.assert_array_equal(prepared.mask, prepare(case).mask)
    np.testing.assert_array_equal(
        predict(case, Engine(card, backend)).labels.array,
        predict(case, replace_prepare(Engine(card, backend))).labels.array,
    )


def replace_prepare(engine):
    engine.prepare = prepare
    return engine
