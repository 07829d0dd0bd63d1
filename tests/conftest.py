"""Shared by all tests: where the real scans are, a generator seeded once, and a small cohort with a model of it."""

import copy
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from brainsegnet.progress import Callback, ProgressEvent

if TYPE_CHECKING:
    from brainsegnet._types import Floats
    from brainsegnet.anatomy.territories import Ground
    from brainsegnet.model.architecture import BrainSegNet
    from brainsegnet.model.card import CalibrationNote, Card
    from brainsegnet.model.store import Model
    from brainsegnet.simulation.fields import RandomStreams
    from brainsegnet.training.recipes import Recipe
    from brainsegnet.volume import LabelMap, Volume

SMALL = (38, 49, 40)
HEAD_LAYERS = {511: 46, 507: 44, 515: 38, 24: 36, 3: 30, 2: 26}
"""Skin, soft tissue, bone, fluid, grey and white matter in SynthSeg's values: radii of balls in voxels of 2 mm."""
BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("BRAINSEGNET_TEST_DATA", BESIDE_THE_CHECKOUT))
    if not folder.is_dir():
        pytest.skip(f"real scans are not at {folder}; name their folder in BRAINSEGNET_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tcga_dicom(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four sequences of a raw clinical study as one DICOM study, all slices in one folder; to be read only."""
    from dicom_writer import write_study

    folder = real_data / "raw/tcga-fg-6692"
    if not folder.is_dir():
        pytest.skip(f"the raw study is not at {folder}")
    images = {name: folder / f"TCGA-FG-6692_{name}.nii.gz" for name in ("flair", "t1", "t1c", "t2")}
    return write_study(images, tmp_path_factory.mktemp("tcga") / "study")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


class Recorder(Callback):
    """Remembers what it hears, and calls `react` with each event."""

    def __init__(self, react: Callable[[ProgressEvent], None] = lambda event: None) -> None:
        self.messages: list[str] = []
        self.events: list[ProgressEvent] = []
        self.react = react

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_progress(self, event: ProgressEvent) -> None:
        self.events.append(event)
        self.react(event)


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    """`Recorder`, whose first argument is called with each event."""
    return Recorder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For results that are the same on every machine; and threads that wait for each other, where another process has
    the cores, cost a hundredfold."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many kilobytes in memory, and gives its folder."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small phantoms, in the names of BRATS 2015; to be read only."""
    from brainsegnet.simulation.simulate import SimulateOptions, simulate

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    simulate(folder, SimulateOptions(3, 0, (24, 40, 40)))
    return folder


@pytest.fixture(scope="session")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a training of three steps, phantom0002 held out; its model takes any subset.

    The card says that there were many steps, so that no test hears of a hardly trained model.
    """
    import torch

    from brainsegnet.model.store import BEST, LAST, open_model, replace_card
    from brainsegnet.training import TrainOptions
    from brainsegnet.training.train import train

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = tiny_recipe().model_copy(update={"drop_sequences": 0.5})
    train(phantoms, "brats2015", out, TrainOptions(recipe, steps=3, hold_out=("phantom0002",)))
    torch.set_num_threads(before)
    for model in (open_model(out / BEST), open_model(out / LAST)):
        note = model.card.training.model_copy(update={"steps": 1000})
        replace_card(model, model.card.model_copy(update={"training": note}))
    return out


@pytest.fixture(scope="session")
def strict(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same model, but for a card that asks for every sequence."""
    from brainsegnet.model.store import open_model, save_model

    model = open_model(trained)
    card = model.card.model_copy(update={"input": model.card.input.model_copy(update={"any_subset": False})})
    return save_model(tmp_path_factory.mktemp("models") / "strict", card, model.tensors()).folder


def tiny_recipe() -> "Recipe":
    """The recipe `quick` at a size for tests: milliseconds a step."""
    from brainsegnet.training.recipes import QUICK

    return QUICK.fit_to(1).model_copy(update={"widths": (4, 4, 8, 8), "refined": 8, "patch": (4, 32, 32)})


@pytest.fixture(scope="session")
def tiny() -> "Recipe":
    return tiny_recipe()


@pytest.fixture(scope="session")
def tiny_net() -> "BrainSegNet":
    """Three sequences, four classes; batch norms and classifier are random, so that every part has an effect."""
    import torch
    from torch import nn

    from brainsegnet.model.architecture import BrainSegNet

    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = BrainSegNet(3, 4, (4, 4, 8, 8), 8)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm3d):
                for tensor in (module.weight, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    nn.init.normal_(tensor)
        nn.init.normal_(net.classify.weight)
    return net.eval()


@pytest.fixture
def net(tiny_net: "BrainSegNet") -> "BrainSegNet":
    """A copy of the tiny network, which a test may change."""
    return copy.deepcopy(tiny_net)


@pytest.fixture
def card() -> "Card":
    """The card of the tiny network."""
    from brainsegnet.model.card import Architecture, Card, Input
    from brainsegnet.task import BRATS2021

    network = Architecture(widths=(4, 4, 8, 8), refined=8)
    return Card(name="tiny", task=BRATS2021, input=Input(sequences=("flair", "t1", "t1c")), network=network)


@pytest.fixture
def calibration() -> "CalibrationNote":
    """Probabilities that are too high by a tenth in nine bins; the first is empty, and a tenth of the lesion missed."""
    from brainsegnet.model.card import CalibrationBin, CalibrationNote

    bins = [CalibrationBin(voxels=100, probability=0.05 + k / 10, share=k / 10 - 0.05) for k in range(1, 10)]
    true = sum(one.share * one.voxels for one in bins)
    return CalibrationNote(
        cases=4,
        error=0.1,
        error_by_case=0.12,
        brain_error=0.009,
        brain_error_by_case=0.011,
        bins=(CalibrationBin(voxels=0), *bins),
        below=CalibrationBin(voxels=9100, probability=0.0, share=true / 9 / 9100),
    )


@pytest.fixture
def model(net: "BrainSegNet", card: "Card", tmp_path: Path) -> "Model":
    """The model folder of the tiny network."""
    from brainsegnet.model.store import save_model

    return save_model(tmp_path / "tiny", card, net.state_dict())


@pytest.fixture
def image(rng: np.random.Generator) -> "Floats":
    """Intensities for the tiny network, of a size that needs padding."""
    return rng.normal(size=(3, 7, 17, 13)).astype(np.float32)


class NoisyPredictor:
    """In place of a `TiledPredictor`: finds many components of different confidence, the same ones in every image."""

    def __init__(self, classes):
        self.classes = classes

    def probabilities(self, image):
        from scipy import ndimage

        noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(self.classes, *image.shape[1:])), 1.5)
        noise[0] += 0.1
        probabilities = np.exp(12 * noise)
        return (probabilities / probabilities.sum(0)).astype(np.float32)

    def classify(self, image, slabs=None):
        return self.probabilities(image).argmax(0).astype(np.uint8)

    def classify_with_confidence(self, image, slabs=None):
        return self.classify(image), np.rint(255 * (1 - self.probabilities(image)[0])).astype(np.uint8)

    def classify_with_certainty(self, image, slabs=None):
        certainty = np.rint(255 * self.probabilities(image).max(0)).astype(np.uint8)
        return *self.classify_with_confidence(image), certainty


@pytest.fixture
def noisy_predictor():
    """`NoisyPredictor`, to be made for a number of classes."""
    return NoisyPredictor


@pytest.fixture(scope="session")
def anatomy() -> "LabelMap":
    """A procedural head of voxels of about 3 mm."""
    import torch

    from brainsegnet.anatomy.procedural import simulate_anatomy

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    simulated = simulate_anatomy(np.random.default_rng(3), (48, 64, 52))
    torch.set_num_threads(before)
    return simulated


class Clock:
    """In place of the module `time`: it goes on when something sleeps, and by `step` whenever it is read."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    """Gives a module a clock of its own, so that no test depends on how fast the machine is."""

    def give(module: str, step: float = 0.0) -> Clock:
        clock = Clock(step)
        monkeypatch.setattr(f"{module}.time", clock)
        return clock

    return give


@pytest.fixture
def streams() -> "RandomStreams":
    from brainsegnet.simulation.fields import RandomStreams

    return RandomStreams.of(np.random.default_rng(5))


@pytest.fixture(scope="session")
def small_anatomy() -> "LabelMap":
    """A procedural head of voxels of about 4 mm."""
    from brainsegnet.anatomy.procedural import simulate_anatomy

    return simulate_anatomy(np.random.default_rng(1), SMALL)


@pytest.fixture(scope="session")
def small_ground(small_anatomy: "LabelMap") -> "Ground":
    from brainsegnet.anatomy.territories import make_ground

    return make_ground(np.random.default_rng(2), small_anatomy)


@pytest.fixture(scope="session")
def segmented(phantoms: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `segment --probabilities` writes of all phantoms; to be read only."""
    from brainsegnet.inference import SegmentOptions
    from brainsegnet.pipeline.segment import segment

    folder = tmp_path_factory.mktemp("results") / "model"
    segment([phantoms], trained, folder, SegmentOptions(probabilities=True, device="cpu", threads=1))
    return folder


@pytest.fixture(scope="session")
def shifted(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truths moved sideways by one, two and three voxels, as predictions: phantom0002 is the worst; to be read only."""
    from brainsegnet.io.cases import find_cases
    from brainsegnet.io.images import read_labels, write_image
    from brainsegnet.volume import LabelMap

    folder = tmp_path_factory.mktemp("results") / "shifted"
    for number, case in enumerate(find_cases([phantoms])):
        assert case.lesion is not None
        truth = read_labels(case.lesion)
        write_image(LabelMap(np.roll(truth.array, number + 1, 2), truth.affine), folder / f"{case.name}.nii.gz")
    return folder


def make_onion(sulcus_voxels: int = 2) -> "Volume":
    """A head of concentric balls with a sulcus, a sinus at the surface, and a neck."""
    from brainsegnet.volume import Volume

    z, y, x = np.ix_(*(np.arange(n) - (n - 1) / 2 for n in (104, 96, 96)))
    radius = np.sqrt(z**2 + y**2 + x**2)
    values = np.zeros(radius.shape, np.int16)
    column = (np.hypot(y, x) < 24) & (z < 0)
    values[column], values[(np.hypot(y, x) < 21) & (z < 0)] = 511, 507
    for value, reach in HEAD_LAYERS.items():
        values[radius < reach] = value
    values[(radius < 36) & (radius > 22) & (np.abs(x) * 2 < sulcus_voxels) & (z > 0)] = 24
    values[(radius < 36) & (radius > 31) & (np.abs(y) < 4) & (z < 0)] = 514
    return Volume(values, np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]])


@pytest.fixture(scope="session")
def onion() -> Callable[..., "Volume"]:
    """`make_onion`."""
    return make_onion


LOOKS = {"flair": (100, 130, 20, 240), "t2": (90, 130, 320, 220), "t1c": (170, 115, 55, 300)}
"""White matter, cortex, fluid and lesion in each sequence of a raw head."""


def make_raw_head(
    sequence: str, spacing_mm: tuple[float, float, float], shift_mm: tuple[float, float, float] = (0, 0, 0)
) -> "Volume":
    """A head with scalp, skull, ventricles and a lesion, in noise; `shift_mm` (x, y, z) is how the patient moved."""
    from brainsegnet.volume import Volume

    shape = [round(190 / mm) for mm in spacing_mm]
    z, y, x = np.ix_(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)))
    x, y, z = (axis - moved for axis, moved in zip((x, y, z), shift_mm, strict=True))

    def inside(centre: tuple[float, ...], radii: tuple[float, ...]) -> "np.ndarray":
        return np.asarray(sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)) < 1)

    white, cortex, fluid, lesion = LOOKS[sequence]
    values = np.zeros(shape)
    layers = [
        ((0, 0, 0), (72, 86, 76), 400), ((0, 0, 0), (67, 81, 71), 12), ((0, 0, 0), (62, 76, 66), cortex),
        ((0, 0, 0), (55, 68, 58), white), ((9, 4, 8), (6, 30, 12), fluid), ((-9, 4, 8), (6, 26, 10), fluid),
        ((-14, 40, -30), (12, 10, 9), fluid), ((30, -20, 15), (16, 14, 15), lesion),
    ]  # fmt: skip
    for centre, radii, value in layers:
        values[inside(centre, radii)] = value
    noise = np.random.default_rng(len(sequence)).normal(0, 4, values.shape)
    affine = np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(shape[::-1], spacing_mm[::-1], strict=True)]
    return Volume(np.rint(np.abs(values + noise)).astype(np.int16), affine)


RAW = {"flair": ((5, 3, 3), (0, 0, 0)), "t2": ((3, 3, 3), (0, 0, 0)), "t1c": ((4, 2.5, 2.5), (6, -5, 4))}


@pytest.fixture(scope="session")
def raw_heads() -> "dict[str, Volume]":
    """Sequences of one head with its skull on, on three grids; T2 has the thinnest slices, T1c is moved."""
    return {name: make_raw_head(name, *how) for name, how in RAW.items()}


@pytest.fixture
def raw_study(raw_heads: "dict[str, Volume]", tmp_path: Path) -> Path:
    """These as one DICOM study, all slices in one folder."""
    from dicom_writer import SEQUENCES, describe, write_slices

    for number, (name, volume) in enumerate(raw_heads.items(), 1):
        tags = describe(number, series=name, SeriesDescription=name, **SEQUENCES[name])
        write_slices(volume, tmp_path / "olga", tags)
    return tmp_path / "olga"


class DepthExtractor:
    """In place of the network that finds the brain: what lies 10 mm below the surface of the head."""

    def __init__(self, threads: int | None = None) -> None:
        self.calls = 0

    def __call__(self, scan: "Volume"):
        from scipy import ndimage

        from brainsegnet.inference.brain import ExtractedBrain
        from brainsegnet.model.brain_card import Limits
        from brainsegnet.preprocessing.head import to_working_grid

        self.calls += 1
        working = to_working_grid(scan)
        head = ndimage.binary_fill_holes(ndimage.gaussian_filter(working.array, 1) > 40)
        logits = (ndimage.distance_transform_edt(head, working.spacing_mm) - 10) / 2
        volume_ml = float(np.count_nonzero(logits > 0)) * working.voxel_ml
        limits = Limits(volume_ml=400, most_ml=2500, largest_share=0.5, mean_probability=0.5)
        return ExtractedBrain(working.with_array(logits.astype(np.float32)), volume_ml, 1.0, 0.95, limits)


@pytest.fixture
def depth_extractor(monkeypatch: pytest.MonkeyPatch) -> type[DepthExtractor]:
    """`DepthExtractor` in place of the network, for whatever opens a segmenter."""
    monkeypatch.setattr("brainsegnet.inference.segmenter.BrainExtractor", DepthExtractor)
    return DepthExtractor
