import shutil
from dataclasses import replace

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from brainsegnet._machine import has_bf16_units
from brainsegnet.errors import BrainSegNetError, ModelError
from brainsegnet.inference.openvino_backend import shared_core, with_arg_max
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.card import ExportNote
from brainsegnet.model.fused import shuffle
from brainsegnet.model.graphs import quantise, to_openvino, write_openvino
from brainsegnet.model.store import hash_file, open_model, save_exports


@pytest.fixture(scope="module")
def forms(tiny_net, tmp_path_factory):
    """Files of the tiny network in floats and in 8 bits; to be read only."""
    folder = tmp_path_factory.mktemp("forms")
    samples = np.random.default_rng(0).normal(size=(4, 3, 4, 16, 16)).astype(np.float32)
    whole = to_openvino(tiny_net)
    write_openvino(whole, folder / "fp16.xml")
    write_openvino(quantise(whole, list(samples)), folder / "int8.xml")
    return folder


def note(model, folder, *names, **facts):
    return ExportNote(
        files={name: hash_file(folder / name) for name in names}, weights=model.card.weights.sha256, **facts
    )


@pytest.fixture
def exported(model, forms):
    def write(folder):
        shutil.copytree(forms, folder, dirs_exist_ok=True)
        return {
            "fp16": note(model, folder, "fp16.xml", "fp16.bin"),
            "int8": note(model, folder, "int8.xml", "int8.bin", dice_change={"whole": -0.001}),
        }

    save_exports(model, write)
    return open_model(model.folder)


def test_openvino_finds_what_torch_finds_without_torch(exported, net, image):
    engine = open_engine(exported, "cpu", threads=1, precision="float")
    expected = TorchBackend(net, "cpu").probabilities(np.pad(image, [(0, 0), (0, 0), (0, 7), (0, 3)]))[..., :17, :13]
    assert engine.backend.name == "OpenVINO on the CPU, 32-bit floats"
    np.testing.assert_allclose(engine.probabilities(image), expected, atol=0.02)
    np.testing.assert_array_equal(engine.classify(image), engine.probabilities(image).argmax(0))
    assert np.mean(engine.classify(image) == expected.argmax(0)) > 0.99


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_confidence_is_the_lesion_probability(exported, image, precision):
    engine = open_engine(exported, "cpu", threads=1, precision=precision)
    classes, confidence = engine.classify_with_confidence(image)
    np.testing.assert_array_equal(classes, engine.classify(image))
    assert classes.dtype == confidence.dtype == np.uint8
    np.testing.assert_allclose(confidence / 255, 1 - engine.probabilities(image)[0], atol=0.51 / 255)
    assert len(np.unique(confidence)) > 20


def test_eight_bits_find_nearly_what_floats_find(exported, image):
    floats, integers = (open_engine(exported, "cpu", 1, precision) for precision in ("float", "int8"))
    assert integers.backend.name == "OpenVINO on the CPU, 8-bit integers"
    assert np.mean(floats.classify(image) == integers.classify(image)) > 0.8


def test_in_eight_bits_the_last_convolution_of_unsigned_numbers_takes_them_and_the_sum_does_not(forms):
    total = shared_core().read_model(forms / "int8.xml").get_results()[0].input_value(0).get_node()
    assert total.get_type_name() == "Add"
    for number, eight_bits in enumerate((True, False)):
        convolution = total.input_value(number).get_node()
        if convolution.get_type_name() == "Add":
            convolution = convolution.input_value(0).get_node()
        assert convolution.get_type_name() == "Convolution"
        assert (convolution.input_value(0).get_node().get_type_name() == "FakeQuantize") == eight_bits


def test_eight_bits_keep_small_differences_of_classes_in_a_coarse_map_of_large_values(tmp_path):
    """As after long trainings: rounded to 256 steps of its range, the map would lose the difference of two classes."""
    torch.manual_seed(0)
    net = BrainSegNet(2, 3, (4, 4, 8, 8), 8).eval()
    image = torch.randn(1, 2, 8, 64, 64)
    with torch.inference_mode():
        net.classify.weight.normal_()
        net.refine[1].smooth.bias += 100
        logits = net(image)[..., 2:-2, 8:-8, 8:-8]
        net.classify.bias -= logits.mean((0, 2, 3, 4))
        wanted = net(image).argmax(1)
    model = quantise(to_openvino(net), [image[0].numpy()])
    write_openvino(model, tmp_path / "int8.xml")
    exact = {"EXECUTION_MODE_HINT": "ACCURACY"}
    found = shared_core().compile_model(tmp_path / "int8.xml", "CPU", exact)(image.numpy())[0]
    classes = shuffle(torch.from_numpy(found), net.stride).argmax(1)
    inside = (..., slice(2, -2), slice(8, -8), slice(8, -8))
    assert (classes[inside] == wanted[inside]).float().mean() > 0.9


@pytest.mark.skipif(not has_bf16_units(), reason="the processor has no units for bf16")
def test_bf16_is_nearer_to_floats_than_eight_bits_are(exported, image):
    floats, halves, integers = (open_engine(exported, "cpu", 1, name) for name in ("float", "bf16", "int8"))
    assert halves.backend.name == "OpenVINO on the CPU, 16-bit floats (bf16)"
    exact = floats.probabilities(image)
    near, far = (np.abs(engine.probabilities(image) - exact).mean() for engine in (halves, integers))
    assert 1e-5 < near < far / 5
    assert np.mean(floats.classify(image) == halves.classify(image)) > 0.98


def test_floats_are_never_computed_in_bf16(exported, forms, image):
    """OpenVINO takes bf16 by itself where the processor has units for it, unless it is told not to."""
    engine = open_engine(exported, "cpu", 1, "float")
    engine.probabilities(image)
    settings = {"INFERENCE_NUM_THREADS": 1, "EXECUTION_MODE_HINT": "ACCURACY"}
    padded = np.pad(image, [(0, 0), (0, 0), (0, 7), (0, 3)])
    exact = shared_core().compile_model(forms / "fp16.xml", "CPU", settings)(padded[None])[0]
    np.testing.assert_array_equal(engine.backend._requests["logits"].get_output_tensor(0).data, exact)  # type: ignore[attr-defined]


BOTH, INTEGERS, BF16, NEITHER = (True, True), (True, False), (False, True), (False, False)


@pytest.mark.parametrize(
    ("eight_bits", "bf16", "units", "chosen"),
    [
        ({"core": 0.1}, {"core": 0.1}, BOTH, "8-bit"),
        ({"core": 0.1}, {"core": 0.1}, BF16, "bf16"),
        ({"core": -0.006}, {"core": -0.005}, BOTH, "bf16"),
        ({"core": -0.006}, {"core": -0.005}, INTEGERS, "32-bit"),
        ({"core": -0.006}, {"whole": 0.2, "core": -0.006}, BOTH, "32-bit"),
        ({"core": -0.006}, {}, BOTH, "32-bit"),
        ({"core": 0.1}, {"core": 0.1}, NEITHER, "32-bit"),
    ],
)
def test_bf16_is_chosen_where_eight_bits_are_not_and_it_is_fast_and_harmless(
    exported, monkeypatch, eight_bits, bf16, units, chosen
):
    exports = dict(exported.card.exports)
    exports["int8"] = exports["int8"].model_copy(update={"dice_change": eight_bits})
    exports["fp16"] = exports["fp16"].model_copy(update={"bf16_change": bf16})
    object.__setattr__(exported, "card", exported.card.model_copy(update={"exports": exports}))
    for name, has in zip(("has_integer_units", "has_bf16_units"), units, strict=True):
        monkeypatch.setattr(f"brainsegnet.inference.segmenter.{name}", lambda has=has: has)
    assert chosen in open_engine(exported, "cpu", 1).backend.name


def test_bf16_is_refused_where_openvino_would_compute_in_floats_instead(exported, model, monkeypatch):
    monkeypatch.setattr("brainsegnet.inference.segmenter.has_bf16_units", lambda: False)
    with pytest.raises(BrainSegNetError, match=r"no matrix units for bf16 \(AMX\); choose precision float or int8"):
        open_engine(exported, "cpu", 1, "bf16")


@pytest.mark.parametrize(
    ("change", "units", "chosen"), [(-0.005, True, "8-bit"), (-0.006, True, "32-bit"), (0.1, False, "32-bit")]
)
def test_eight_bits_are_chosen_where_fast_and_harmless(exported, monkeypatch, change, units, chosen):
    harmful = exported.card.exports["int8"].model_copy(update={"dice_change": {"whole": 0.2, "core": change}})
    exports = {**exported.card.exports, "int8": harmful}
    object.__setattr__(exported, "card", exported.card.model_copy(update={"exports": exports}))
    monkeypatch.setattr("brainsegnet.inference.segmenter.has_integer_units", lambda: units)
    assert chosen in open_engine(exported, "cpu", 1).backend.name
    assert "8-bit" in open_engine(exported, "cpu", 1, "int8").backend.name


def test_scans_of_any_size_run_one_after_the_other(exported, rng):
    engine = open_engine(exported, "cpu", 1)
    for size in ((1, 1, 1), (9, 30, 12), (2, 8, 8)):
        assert engine.classify(rng.normal(size=(3, *size)).astype("f")).shape == size


def test_an_altered_export_is_refused(exported):
    with (exported.folder / "export" / "fp16.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"fp16.bin is not the file that its card describes .* brainsegnet export"):
        open_engine(exported, "cpu", 1, "float")

    (exported.folder / "export" / "fp16.bin").unlink()
    with pytest.raises(ModelError, match=r"fp16.bin does not exist; make it with: brainsegnet export"):
        open_engine(exported, "cpu", 1, "float")


def test_an_export_of_other_weights_is_refused(exported):
    other = exported.card.exports["fp16"].model_copy(update={"weights": "0" * 64})
    object.__setattr__(exported, "card", exported.card.model_copy(update={"exports": {"fp16": other}}))
    with pytest.raises(ModelError, match="was made from other weights; make it with: brainsegnet export"):
        open_engine(exported, "cpu", 1)


def test_a_file_that_is_no_openvino_model_is_one_sentence(exported):
    path = exported.folder / "export" / "fp16.xml"
    path.write_text("hello")
    fine = note(exported, path.parent, "fp16.xml")
    object.__setattr__(exported, "card", exported.card.model_copy(update={"exports": {"fp16": fine}}))
    with pytest.raises(ModelError, match="cannot be run by OpenVINO"):
        open_engine(exported, "cpu", 1)


def test_without_an_export_torch_computes_and_other_precisions_are_refused(model, monkeypatch):
    assert open_engine(model, "cpu", 1).backend.name == "torch on cpu"
    with pytest.raises(ModelError, match="has no int8 export; make it with: brainsegnet export"):
        open_engine(model, "cpu", 1, "int8")
    monkeypatch.setattr("brainsegnet.inference.segmenter.has_bf16_units", lambda: True)
    with pytest.raises(ModelError, match="has no fp16 export; make it with: brainsegnet export"):
        open_engine(model, "cpu", 1, "bf16")
    with pytest.raises(BrainSegNetError, match="unknown precision 'half'; choose one of auto, float, bf16, int8"):
        open_engine(model, "cpu", 1, "half")


def test_the_arg_max_inside_is_that_of_the_logits_and_the_first_of_equals(forms, rng):
    network = shared_core().read_model(forms / "fp16.xml")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    inside, outside = (
        shared_core().compile_model(model, "CPU", settings) for model in (with_arg_max(network, 4), network)
    )
    x = rng.normal(size=(1, 3, 5, 16, 24)).astype(np.float32)
    logits = outside(x)[0].reshape(4, 4, 5, 8, 12)
    found = inside(x)[0]
    assert found.dtype == np.uint8 and np.array_equal(found, logits.argmax(1))
    image = ops.parameter([1, 4, 1, 1, 3], np.float32)
    equal = shared_core().compile_model(with_arg_max(openvino.Model([ops.result(image)], [image]), 4), "CPU", settings)
    columns = np.array([[1, 3, 3, 0], [5, 5, 5, 5], [0, 0, 2, 2]], np.float32).T.reshape(1, 4, 1, 1, 3)
    assert equal(columns)[0].ravel().tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"stride": (2, 2, 1)}},
        {"network": {"stride": (1, 2, 1)}},
        {"network": {"widths": (4, 4, 8)}},
        {"input": {"sequences": ("flair", "t1")}},
    ],
)
def test_an_export_of_another_network_than_the_card_describes_is_refused(exported, change):
    """Before anything is computed: OpenVINO adds maps of unequal size without an error."""
    ((part, fields),) = change.items()
    changed = getattr(exported.card, part).model_copy(update=fields)
    model = replace(exported, card=exported.card.model_copy(update={part: changed}))
    with pytest.raises(ModelError, match=r"fp16\.xml is not of the network that its card describes"):
        open_engine(model, "cpu", threads=1, precision="float")
