import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from brainsegnet.benchmark.models import BASELINES
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference.tiling import TiledPredictor, find_halo
from brainsegnet.inference.torch_backend import AnyNetwork, TorchBackend, choose_device
from brainsegnet.model.network import as_drawn, brain_segnet
from brainsegnet.preprocessing.geometry import slab_starts


def logits(net, image):
    with torch.inference_mode():
        return net(torch.from_numpy(image)[None])[0]


def test_one_forward_pass_is_the_network_as_it_was_trained(net, engine, image):
    expected = logits(net, image)
    np.testing.assert_allclose(engine.probabilities(image), expected.softmax(0).numpy(), atol=1e-4)
    assert np.mean(engine.classify(image) == expected.argmax(0).numpy()) > 0.999


def test_classes_are_the_likeliest(engine, image):
    classes = engine.classify(image)
    assert classes.dtype == np.uint8 and len(np.unique(classes)) == 4
    for slabs in (None, 3):
        np.testing.assert_array_equal(engine.classify(image, slabs), engine.probabilities(image, slabs).argmax(0))


def test_confidence_is_the_lesion_probability(engine, image):
    for slabs in (None, 3):
        classes, confidence = engine.classify_with_confidence(image, slabs)
        np.testing.assert_array_equal(classes, engine.classify(image, slabs))
        lesion = 1 - engine.probabilities(image, slabs)[0]
        np.testing.assert_allclose(confidence / 255, lesion, atol=0.51 / 255)
    assert len(np.unique(confidence)) > 20


@pytest.mark.parametrize("slabs", [1, 3, 7, 31])
def test_slabs_are_a_forward_pass_each(engine, image, slabs):
    whole = np.empty(image.shape[1:], np.uint8)
    for start in slab_starts(len(whole), slabs):
        whole[start : start + slabs] = engine.classify(np.ascontiguousarray(image[:, start : start + slabs]))
    np.testing.assert_array_equal(engine.classify(image, slabs), whole)


def test_slabs_have_seams_and_one_pass_has_none(engine, image):
    assert np.any(engine.probabilities(image, 3) != engine.probabilities(image))
    np.testing.assert_array_equal(engine.probabilities(image, 7), engine.probabilities(image))


def test_the_same_image_gives_the_same_result(model, engine, image):
    first = engine.probabilities(image)
    np.testing.assert_array_equal(engine.probabilities(image), first)
    np.testing.assert_array_equal(TiledPredictor(TorchBackend(model.build(), "cpu")).probabilities(image), first)


def test_a_network_in_training_is_used_and_left_as_it_is(net, image):
    net.train()
    before = copy.deepcopy(net.state_dict())
    classes = TiledPredictor(TorchBackend.of(net)).classify(image)
    assert net.training and all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert isinstance(net.blocks[0][0][1], nn.BatchNorm3d)
    np.testing.assert_array_equal(classes, TiledPredictor(TorchBackend(net.eval(), "cpu")).classify(image))


def test_threads_are_those_asked_for_and_restored(net, image):
    before, seen = torch.get_num_threads(), []
    backend = TorchBackend(net, "cpu", threads=before + 1)
    backend.module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    backend.classify(np.ascontiguousarray(image[:, :1, :8, :8]))
    assert seen == [before + 1] and torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_one_sentence(name):
    with pytest.raises(BrainSegNetError, match=f"device {name} is not available here; use auto or cpu"):
        choose_device(name)


ENGINE = """
import resource
import numpy as np, torch
from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.model.architecture import BrainSegNet
def read(key):
    return 1024 * int(next(s for s in open("/proc/self/status") if s.startswith(key)).split()[1])
torch.set_num_threads(1)
engine = TiledPredictor(TorchBackend(BrainSegNet(4, 5, (8, 8, 16, 16), 32), "cpu"), 10**12)
image = np.ones((4, 64, 128, 128), np.float32)
engine.classify(image[:, :4, :16, :16])
estimate = engine.backend.estimate_bytes(image.shape[1:])
"""
PEAK = """
before = read("VmHWM")
engine.classify(image)
print((read("VmHWM") - before) / estimate)
"""
SHORT = """
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (read("VmSize") + estimate // 2, unlimited[1]))
engine.classify(image, 1)
resource.setrlimit(resource.RLIMIT_AS, (read("VmSize") + estimate // 4, unlimited[1]))
for run in (engine.classify, engine.probabilities):
    try:
        run(image)
    except MemoryError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_AS, unlimited)
engine.classify(image)
"""


def in_a_process(program):
    """What a program prints, each line. A peak never falls, and freed memory is used again: each has its process."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the memory in use is read from /proc")
    done = subprocess.run([sys.executable, "-c", ENGINE + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_memory_is_as_estimated():
    (ratio,) = in_a_process(PEAK)
    assert 0.7 < float(ratio) < 1.3


def test_a_shortage_of_memory_is_one_sentence():
    sentence = "there is not enough memory for a forward pass; cut the scan into (thinner) slabs"
    assert in_a_process(SHORT) == [sentence] * 2


def test_after_a_failure_of_onednn_torch_computes_without_it(net, image):
    """Its kernels cannot be made to fail at will, so a hook of the network says what oneDNN says."""
    backend, used = TorchBackend(net, "cpu"), []
    engine = TiledPredictor(backend, 10**12)
    expected, few = engine.probabilities(image), backend.estimate_bytes((96, 96, 96))

    def fail_with_onednn(*_):
        used.append(torch.backends.mkldnn.enabled)
        if torch.backends.mkldnn.enabled:
            raise RuntimeError("could not create a primitive")

    backend.module.register_forward_pre_hook(fail_with_onednn)
    np.testing.assert_allclose(engine.probabilities(image), expected, atol=1e-5)
    assert used[0] and not any(used[1:]) and torch.backends.mkldnn.enabled
    assert backend.name == "torch on cpu, without oneDNN"
    assert backend.estimate_bytes((96, 96, 96)) > 2 * few


def designs(drawn=False):
    ours = brain_segnet(2, 3, (4, 4, 8, 8), 8)
    return as_drawn(ours) if drawn else ours


def backend_of(design, halo=None):
    torch.manual_seed(1)
    net = design.build().eval()
    for parameter in net.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return AnyNetwork(design, net.to(memory_format=design.layout), 2, 3, halo)


@pytest.mark.parametrize("drawn", [False, True])
def test_any_design_in_slabs_gives_the_labels_of_one_forward_pass(drawn, rng):
    backend = backend_of(designs(drawn), find_halo(4, 1))
    image = rng.normal(size=(2, 61, 11, 13)).astype(np.float32)
    with torch.inference_mode():
        whole = backend.run(torch.from_numpy(image)[None])[0].argmax(0).numpy()
    assert len(np.unique(whole)) > 1
    predictor = TiledPredictor(backend, backend.estimate_bytes((50, 11, 13)))
    np.testing.assert_array_equal(predictor.classify(image), whole)
    assert "so that a forward pass takes" in predictor.notes[0]
    classes, confidence = predictor.classify_with_confidence(image)
    np.testing.assert_array_equal(classes, whole)
    np.testing.assert_allclose(confidence / 255, 1 - predictor.probabilities(image)[0], atol=0.51 / 255)
    np.testing.assert_array_equal(TiledPredictor(backend, 10**12).classify(image), whole)
    np.testing.assert_array_equal(TiledPredictor(backend, 10**12).probabilities(image).argmax(0), whole)


def test_a_scan_is_never_cut_for_a_network_of_unknown_halo(rng):
    """MONAI's UNet: in one forward pass or not at all, and the same after a move to the CPU."""
    backend = backend_of(BASELINES["unet"](2, 3, (16, 32, 32), (1.0, 1.0, 1.0)))
    image = rng.normal(size=(2, 13, 11, 17)).astype(np.float32)
    random = torch.get_rng_state()
    copied = backend.on_cpu()
    assert torch.equal(torch.get_rng_state(), random) and copied.halo == backend.halo
    np.testing.assert_array_equal(TiledPredictor(copied).classify(image), TiledPredictor(backend).classify(image))
    with pytest.raises(MemoryError, match="the thinnest slab takes about"):
        TiledPredictor(backend, backend.estimate_bytes((12, 11, 17))).classify(image)


def test_without_slabs_the_fallback_computes_after_a_lack_of_memory():
    """In a process of its own, whose memory is limited until the fallback is asked for."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the memory in use is read from /proc")
    program = """
import resource
import numpy as np, torch
from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.inference.torch_backend import AnyNetwork
from brainsegnet.model.network import brain_segnet
torch.set_num_threads(1)
design = brain_segnet(2, 3, (4, 4, 8, 8), 8)
backend = AnyNetwork(design, design.build().eval(), 2, 3)
image = np.ones((2, 64, 64, 128), np.float32)
backend.classify(image[:, :8])
most = backend.estimate_bytes(image.shape[1:])
size = 1024 * int(next(s for s in open("/proc/self/status") if s.startswith("VmSize")).split()[1])
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + most // 8, before[1]))
def fallback():
    resource.setrlimit(resource.RLIMIT_AS, before)
    return backend.on_cpu()
predictor = TiledPredictor(backend, 10**12, fallback)
print(predictor.classify(image).shape, predictor.notes)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    note = "brainsegnet in torch on cpu: too little memory, so brainsegnet in torch on cpu computes"
    said = done.stdout.strip().replace(", without oneDNN", "")  # which may be the first to run out of memory
    assert said == f"(64, 64, 128) ['{note}']"


@pytest.mark.gpu
def test_a_network_that_a_gpu_has_no_room_for_computes_on_the_cpu(rng):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    design = BASELINES["segresnet"](2, 3, (16, 32, 32), (1.0, 1.0, 1.0))
    backend = AnyNetwork(design, design.build().eval().cuda().to(memory_format=design.layout), 2, 3)
    image = rng.normal(size=(2, 64, 128, 128)).astype(np.float32)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2e8 / torch.cuda.mem_get_info()[1])
    try:
        predictor = TiledPredictor(backend, fallback=backend.on_cpu)
        found = predictor.classify(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert predictor.notes == ["segresnet in torch on cuda:0: too little memory, so segresnet in torch on cpu computes"]
    np.testing.assert_array_equal(found, TiledPredictor(backend.on_cpu()).classify(image))


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(net, image):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    fast, slow = (TiledPredictor(TorchBackend(net, device)) for device in ("cuda", "cpu"))
    np.testing.assert_array_equal(fast.probabilities(image), fast.probabilities(image))
    np.testing.assert_allclose(fast.probabilities(image), slow.probabilities(image), atol=0.1)
    assert np.mean(fast.classify(image) == slow.classify(image)) > 0.95
