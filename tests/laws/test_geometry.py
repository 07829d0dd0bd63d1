"""How a scan is stored does not change what is found in it, and the result lies on the scan's own grid."""

import json
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.predict import Engine, predict
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.card import Architecture, Card, Input
from brainsegnet.model.store import open_model, save_model
from brainsegnet.pipeline.segment import segment
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.registration import register
from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.task import BRATS2015, ISLES2022
from brainsegnet.volume import Case, Volume

TURNS = [Turn(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
CPU = SegmentOptions(device="cpu", threads=1)


def draw_network(classes, sequences, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = BrainSegNet(sequences, classes, (4, 4, 8, 8), 8).eval()
        torch.nn.init.normal_(net.classify.weight)
    return net


@pytest.fixture(scope="module")
def engine(trained):
    return open_engine(open_model(trained), "cpu", 1, "float")


@pytest.fixture(scope="module")
def upright(phantoms):
    return load_case(find_cases([phantoms])[2], BRATS2015.sequences, BRATS2015, lesion=False)


@pytest.fixture(scope="module")
def labels(upright, engine):
    found = predict(upright, engine).labels
    assert len(np.unique(found.array)) > 1, "a network that finds nothing proves nothing"
    return found


def stored(case, change):
    return Case(case.name, {name: change(volume) for name, volume in case.images.items()})


@pytest.mark.parametrize("how", TURNS)
def test_any_of_the_48_ways_to_store_a_scan_gives_the_same_labels(upright, labels, engine, how):
    case = stored(upright, lambda volume: turn(volume, how))
    found = predict(case, engine).labels
    assert found.on_grid_of(case.reference)
    np.testing.assert_array_equal(found.array, turn(labels, how).array)


@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "mha", "nrrd"])
def test_the_same_through_files(upright, labels, trained, tmp_path, suffix):
    how, named = Turn((2, 0, 1), (True, False, True)), {}
    for name, volume in upright.images.items():
        named[name] = tmp_path / f"{name}.{suffix}"
        write_image(turn(volume, how), named[name])
    found = read_labels(segment(named, trained, tmp_path / f"lesion.{suffix}", CPU).done[0].path)
    assert found.on_grid_of(read_image(named["flair"])) and found.on_grid_of(turn(labels, how))
    np.testing.assert_array_equal(found.array, turn(labels, how).array)


def test_sequences_stored_in_different_ways_meet_on_the_grid_of_the_first(upright, labels, trained, tmp_path):
    """One sagittal, one upside down, on the same points in space: to resample them is to exchange axes."""
    named = {}
    for name, how in zip(upright.images, (TURNS[0], TURNS[9], TURNS[22], TURNS[45]), strict=True):
        named[name] = tmp_path / f"{name}.nii.gz"
        write_image(turn(upright.images[name], how), named[name])
    options = SegmentOptions(device="cpu", threads=1, resample=True)
    (done,) = segment(named, trained, tmp_path / "lesion.nii.gz", options).done
    assert set(done.report["geometry"]["moved"]) == {"t1", "t1c", "t2"}
    np.testing.assert_array_equal(read_labels(done.path).array, labels.array)


@pytest.mark.parametrize("degrees", [(7, -4, 12), (0, 20, 0), (44, 0, 0)])
def test_an_oblique_header_changes_no_label(upright, labels, engine, degrees):
    world = rotation(degrees)
    case = stored(upright, lambda volume: Volume(volume.array, world @ volume.affine))
    found = predict(case, engine).labels
    np.testing.assert_array_equal(found.array, labels.array)
    assert found.on_grid_of(case.reference)


@pytest.fixture(scope="module")
def smooth():
    """A head without fine detail, which interpolation hardly changes."""
    case = simulate_phantom(2, (36, 60, 60))

    def blur(volume):
        blurred = gaussian_filter(volume.array.astype(np.float32), 1.5)
        return Volume(np.where(volume.array > 0, blurred, 0).astype(np.float32), volume.affine)

    return stored(case, blur)


@pytest.fixture(scope="module")
def lively():
    """Untrained, its classifier drawn at random: what it finds depends on contrast and place alone."""
    net = draw_network(BRATS2015.classes, 4, 3)
    card = Card(
        name="lively",
        task=BRATS2015,
        input=Input(sequences=BRATS2015.sequences),
        network=Architecture(widths=(4, 4, 8, 8), refined=8),
    )
    return Engine(card, TorchBackend(net, "cpu"))


@pytest.mark.parametrize("degrees", [(0, 0, 6), (5, -4, 3), (0, 20, 0)])
def test_an_oblique_scan_gives_the_same_labels_but_for_what_interpolation_explains(smooth, lively, degrees):
    """Interpolation alone: the scan on an upright grid that is moved by half a voxel. Kernels do not turn along."""
    labels = predict(smooth, lively).labels
    inside = labels.array[smooth.reference.array > 0]
    chance = ((np.bincount(inside) / inside.size) ** 2).sum()
    half = shift(np.array(smooth.reference.spacing_mm) / 2) @ smooth.reference.affine
    tilted = rotation(degrees) @ smooth.reference.affine
    explained, found = (agreement(smooth, labels, lively, affine) for affine in (half, tilted))
    assert found > explained - 0.1 and found > 0.85 > chance + 0.05


def agreement(case, labels, engine, affine):
    """The share of the head's voxels whose label stays when the case is taken on another grid and back."""
    grid = Volume(np.zeros(case.reference.shape, np.uint8), affine)
    found = predict(stored(case, lambda volume: resample(volume, grid)), engine).labels
    assert found.on_grid_of(grid)
    back = resample(found, case.reference)
    inside = case.reference.array > 0
    return (back.array == labels.array)[inside].mean()


def rotation(degrees):
    x, y, z = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_y @ about_x
    return matrix


def shift(voxels):
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_a_moved_sequence_is_segmented_as_if_it_had_not_moved(upright, labels, trained, tmp_path):
    """With --register more voxels keep their label than with --resample, and the report tells the motion."""
    middle = upright.reference.affine[:3] @ (*((n - 1) / 2 for n in upright.reference.shape), 1)
    motion = shift(middle + np.array((12, -9, 6))) @ rotation((6, 0, 8)) @ shift(-middle)
    named = {}
    for name, volume in upright.images.items():
        named[name] = tmp_path / f"{name}.nii.gz"
        affine = motion @ volume.affine if name == "t1c" else volume.affine
        write_image(Volume(volume.array, affine), named[name])
    kept = {}
    for flag in ("resample", "register"):
        options = SegmentOptions(device="cpu", threads=1, **{flag: True})
        (done,) = segment(named, trained, tmp_path / f"{flag}.nii.gz", options).done
        found = read_labels(done.path)
        assert found.on_grid_of(upright.reference)
        kept[flag] = (found.array == labels.array)[upright.reference.array > 0].mean()
        told = json.loads((tmp_path / f"{flag}.json").read_text())["geometry"]
        assert told["grid"] == "flair" and set(told["moved"]) == {"t1c"}
    assert kept["register"] > kept["resample"]
    assert told["moved"]["t1c"]["translation_mm"] == pytest.approx(np.linalg.norm((12, -9, 6)), abs=2.5)
    assert told["moved"]["t1c"]["rotation_degrees"] == pytest.approx(10, abs=1)


@pytest.fixture(scope="module")
def stroke_model(tmp_path_factory):
    """A tiny network for DWI, ADC and FLAIR, untrained, whose classifier is drawn at random."""
    net = draw_network(ISLES2022.classes, 3, 5)
    card = Card(
        name="tiny-stroke",
        task=ISLES2022,
        input=Input(sequences=("dwi", "adc", "flair")),
        network=Architecture(widths=(4, 4, 8, 8), refined=8),
    )
    return save_model(tmp_path_factory.mktemp("stroke") / "tiny", card, net.state_dict()).folder


@pytest.mark.real
def test_a_real_flair_on_its_own_grid_is_registered_onto_the_dwi(real_data, stroke_model, tmp_path):
    case = real_data / "stroke/isles2022/sub-strokecase0009"
    (done,) = segment(
        case, stroke_model, tmp_path / "a.nii.gz", SegmentOptions(device="cpu", register=True, threads=1)
    ).done
    dwi = read_image(find_cases([case])[0].images["dwi"])
    assert read_labels(done.path).on_grid_of(dwi)
    told = done.report["geometry"]
    flair = told["moved"]["flair"]
    assert told["grid"] == "dwi" and set(told["moved"]) == {"flair"} and flair["applied"] and not flair["warning"]
    assert flair["mutual_information_after"] > flair["mutual_information_before"] > 0.3
    assert flair["translation_mm"] < 3 and flair["rotation_degrees"] < 3


@pytest.mark.real
def test_a_real_flair_is_brought_back_from_a_known_motion(real_data):
    """Moved further by a known motion, it must come to lie where it lies without; the images vouch for each other."""
    images = find_cases([real_data / "stroke/isles2022/sub-strokecase0009"])[0].images
    dwi, flair = read_image(images["dwi"]), read_image(images["flair"])
    motion = shift((6, -4, 5)) @ rotation((4, -3, 5))
    plain, moved = register(flair, dwi), register(Volume(flair.array, motion @ flair.affine), dwi)
    inside = np.argwhere(dwi.array > dwi.array.mean())[::499]
    points = (np.c_[inside, np.ones(len(inside))] @ dwi.affine.T)[:, :3]
    onto = np.array([plain.transform.TransformPoint(point) for point in points.tolist()])
    expected = onto @ motion[:3, :3].T + motion[:3, 3]
    found = np.array([moved.transform.TransformPoint(point) for point in points.tolist()])
    assert np.linalg.norm(found - expected, axis=1).mean() < 1, "half a voxel of the DWI"
