"""A golden record: what the software computes, as hashes and figures, to hold a restructuring to it.

    python tools/golden.py OUT.json [--data DIR] [--part NAME ...] [--threads 2]
    python tools/golden.py --compare A.json B.json [--part NAME ...]

The first writes the record of the checkout that the script lies in; the second prints each difference between two
records in one line, and exits 1 if there is any. Both records must come from one machine, one environment and one
number of threads, for these change the last bits; the record says under `made_with` what they were.

Parts, each under its own key:

- `segment`: label maps of the models of the package, for the example, real cases and simulated strokes; in 8 bits and,
  for some, in floats; for the example also in slabs, mirrored, with maps, without a dropped component, and by torch.
- `evaluate`: the scores of these label maps against the truth.
- `alignment`: scans on several grids: refused, resampled, registered.
- `training`: losses, learning rates, scores and weights of a few steps of each recipe, from phantoms and from cases
  that are simulated meanwhile.
- `simulation`: phantoms, realistic gliomas and strokes.
- `fused`: logits and gradients of plain, collapsed and fused networks, losses, augmentation.

Real scans are looked for in `--data`, in the folder that BRAINSEGNET_TEST_DATA names, or in `../shared/data` beside the
checkout. No scan gets into the record, only names, hashes and figures. What takes time by the clock, or depends on free
memory, is left out.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, SIMULATED = "example", "simulated"
REAL = {
    "brats2015": "tumour/brats2015",
    "brats2021": "tumour/brats2021",
    "brats2023": "tumour/brats2023",
    "isles2022": "stroke/isles2022",
    "lesjak2017": "ms/lesjak2017",
}
"""Prepared cases, below the folder of real data."""
IN_FLOATS = (EXAMPLE, SIMULATED, "brats2023", "isles2022")
"""What is segmented in floats too."""
RAW = "raw/tcga-fg-6692"
"""A study as it was scanned: every sequence on a grid of its own."""
HEADS, SHAPES = "anatomy/synthseg_labels", "lesion_shapes"
LIBRARIES = ("numpy", "scipy", "SimpleITK", "torch", "lightning", "openvino")
NARROW = {"widths": (8, 16, 32, 64), "refined": 32, "narrow_below": 0, "batch": 2, "bf16": False}
"""A quarter of the paper's width, in floats whatever the processor is fast at."""
PATCH = (12, 48, 48)
SMALL = (36, 68, 56)
"""Voxels of a phantom."""
SMALL_HEAD, LARGER_HEAD = (48, 64, 52), (80, 104, 84)
STEPS = 20
Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where a record is made: the real scans, if they are there, a folder that is thrown away, and the threads."""

    data: Path | None
    scratch: Path
    threads: int

    @cached_property
    def sources(self) -> dict[str, Path]:
        """Name to folder of cases with a known lesion."""
        from brainsegnet.simulation.simulate import SimulateOptions, simulate

        simulate(self.scratch / SIMULATED, SimulateOptions(2, 70, stroke="isles2017"))
        real = {name: self.data / place for name, place in REAL.items()} if self.data else {}
        return {EXAMPLE: ROOT / "examples" / "glioma", SIMULATED: self.scratch / SIMULATED} | real

    @cached_property
    def phantoms(self) -> Path:
        """A folder of four small phantoms."""
        from brainsegnet.simulation.simulate import SimulateOptions, simulate

        simulate(self.scratch / "phantoms", SimulateOptions(4, 0, SMALL))
        return self.scratch / "phantoms"

    @cached_property
    def segmented(self) -> dict[str, Record]:
        """What `segment` says of the cases: model, source and precision, as in the name of the folder, to case."""
        from brainsegnet.model.store import shipped_models

        return {
            f"{model}/{source}/{precision}": self._segment(model, folder, f"{model}/{source}/{precision}", precision)
            for model, opened in shipped_models().items()
            for source, folder in self.sources.items()
            if any(set(opened.card.sequences) & names for names in find_sequences(folder).values())
            for precision in (("int8", "float") if source in IN_FLOATS else ("int8",))
        }

    def _segment(self, model: str, folder: Path, place: str, precision: Any) -> Record:  # noqa: ANN401
        from brainsegnet.inference import SegmentOptions
        from brainsegnet.model.store import resolve_model

        wanted = set(resolve_model(model).card.sequences)
        unfit = [case for case, names in find_sequences(folder).items() if not wanted & names]
        options = SegmentOptions(device="cpu", threads=self.threads, precision=precision, resample=True)
        return self.run_segment(folder, model, self.scratch / "segment" / place, options) | {"unfit": unfit}

    def run_segment(self, cases: Any, model: str | None, out: Path, options: Any) -> Record:  # noqa: ANN401
        """What becomes of cases: hashes and reports, or the sentence that refuses them."""
        from brainsegnet.errors import BrainSegNetError
        from brainsegnet.pipeline.segment import segment

        out.mkdir(parents=True)
        try:
            done = segment(cases, model, out, options)
        except BrainSegNetError as error:
            return {"refused": self.plainly(str(error))}
        failures = {case: self.plainly(sentence) for case, sentence in done.failures.items()}
        return {"cases": {one.name: describe_case(one.path, one.report) for one in done.done}, "failures": failures}

    def plainly(self, sentence: str) -> str:
        """A sentence without the places of this machine."""
        places = {self.scratch: "SCRATCH", self.data: "DATA", ROOT: "ROOT"}
        for place, name in places.items():
            sentence = sentence.replace(str(place), name) if place else sentence
        return sentence


def find_sequences(folder: Path) -> dict[str, set[str]]:
    """Case to its sequences."""
    from brainsegnet.io.cases import find_cases

    return {case.name: set(case.images) for case in find_cases([folder])}


def describe_case(path: Path, report: Mapping[str, Any]) -> Record:
    """A label map and the maps beside it, and what the report says that does not depend on clock, memory or place."""
    told = ("task", "volumes_ml", "sequences", "geometry", "dropped", "validation", "warnings", "engine")
    facts = {key: report[key] for key in (*told, "test_time_augmentation")} | {"model": report["model"]["sha256"]}
    intervals = report.get("uncertainty", {}).get("volume_intervals", {})
    maps = {file.name: describe_volume(file) for file in path.parent.glob(f"{path.name.split('.')[0]}_*.nii.gz")}
    return {"labels": describe_volume(path), "maps": maps, "report": facts, "intervals": intervals}


def describe_volume(path: Path) -> Record:
    """Hash and grid of an image on disk."""
    from brainsegnet.io.images import read_image

    volume = read_image(path)
    affine = [[round(float(x), 4) + 0.0 for x in row] for row in volume.affine]
    return {"sha256": digest(volume.array), "shape": list(volume.shape), "affine": affine}


def digest(*arrays: Any) -> str:  # noqa: ANN401
    """SHA-256 of types, shapes and values of arrays or tensors."""
    total = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array.detach().numpy() if hasattr(array, "detach") else array)
        total.update(f"{plain.dtype.str} {plain.shape} ".encode())
        total.update(plain.tobytes())
    return total.hexdigest()


def digest_case(case: Any) -> str:  # noqa: ANN401
    """SHA-256 of images, labels and grid of a case in memory."""
    names = np.frombuffer(" ".join(case.images).encode(), np.uint8)
    volumes = [*case.images.values(), case.lesion]
    return digest(names, *(volume.array for volume in volumes), *(volume.affine for volume in volumes))


def digest_tensors(tensors: Mapping[str, Any]) -> str:
    """SHA-256 of tensors by name, whatever their order."""
    return digest(*(part for name in sorted(tensors) for part in (np.array(name), tensors[name])))


def record_segment(bench: Bench) -> Record:
    """Label maps of every model, and of the example in every other way."""
    from brainsegnet.inference import SegmentOptions

    ways: dict[str, Any] = {
        "slabs": {"slabs": 31},
        "mirror": {"tta": True},
        "maps": {"probabilities": True, "uncertainty": True},
        "components kept": {"keep_all_components": True},
        "little memory": {"max_memory_gb": 0.3},
    }
    found: Record = dict(bench.segmented)
    for way, chosen in ways.items():
        options = SegmentOptions(device="cpu", threads=bench.threads, precision="float", **chosen)
        found[f"ways/{way}"] = bench.run_segment(bench.sources[EXAMPLE], None, bench.scratch / way, options)
    lone = {"flair": bench.sources[EXAMPLE] / "flair.nii.gz"}
    options = SegmentOptions(device="cpu", threads=bench.threads, precision="int8")
    found["ways/one sequence"] = bench.run_segment(lone, None, bench.scratch / "lone", options)
    return found | {"ways/torch": predict_by_torch(bench, "tumour", EXAMPLE)}


def predict_by_torch(bench: Bench, model: str, source: str) -> Record:
    """Labels and probabilities that the weights themselves give, without an export."""
    from brainsegnet.inference import SegmentOptions
    from brainsegnet.inference.predict import Engine, predict
    from brainsegnet.inference.torch_backend import TorchBackend
    from brainsegnet.io.cases import find_cases, load_case
    from brainsegnet.model.store import resolve_model

    opened = resolve_model(model)
    engine = Engine(opened.card, TorchBackend(opened.build(), "cpu", bench.threads))
    files = find_cases([bench.sources[source]])[0]
    case = load_case(files, opened.card.sequences, opened.card.task, lesion=False)
    plain, soft = predict(case, engine), predict(case, engine, SegmentOptions(probabilities=True))
    maps = {name: digest(volume.array) for name, volume in (soft.probabilities or {}).items()}
    return {"labels": digest(plain.labels.array), "volumes_ml": plain.volumes_ml, "probabilities": maps}


def record_evaluate(bench: Bench) -> Record:
    """Scores of the label maps of `segment`."""
    return {place: score(bench, place) for place, found in bench.segmented.items() if found.get("cases")}


def score(bench: Bench, place: str) -> Record:
    """Scores of one model on one source, in full precision: a JSON keeps every bit of a float."""
    from brainsegnet.errors import BrainSegNetError
    from brainsegnet.metrics.evaluate import evaluate
    from brainsegnet.model.store import resolve_model

    model, source, _ = place.split("/")
    task, out = resolve_model(model).card.task, bench.scratch / "scores" / place
    try:
        done = evaluate(bench.scratch / "segment" / place, bench.sources[source], task, out)
    except BrainSegNetError as error:
        return {"refused": bench.plainly(str(error))}
    written = json.loads((out / "scores.json").read_text())
    figures = {key: written[key] for key in ("cases", "mean", "sd", "interval", "empty", "lesions")}
    failures = {case: bench.plainly(sentence) for case, sentence in done.failures.items()}
    mean_dice = {region: round(scores["dice"], 4) for region, scores in written["mean"].items()}
    tables = {name: hash_text(out / f"scores.{name}") for name in ("csv", "json", "md")}
    return figures | {"failures": failures, "mean_dice": mean_dice, "tables": tables}


def hash_text(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_alignment(bench: Bench) -> Record:
    """What lies on several grids: refused, resampled, registered; nothing where there are no real scans."""
    from brainsegnet.inference import SegmentOptions

    if bench.data is None:
        return {}
    folder = bench.data / RAW
    raw = {name: folder / f"TCGA-FG-6692_{name}.nii.gz" for name in ("flair", "t1", "t1c")}
    found: Record = {}
    for way in ("refused", "resample", "register"):
        chosen: dict[str, Any] = {} if way == "refused" else {way: True}
        found[f"infarct/{way}"] = load_moved(bench, way)
        options = SegmentOptions(device="cpu", threads=bench.threads, precision="int8", **chosen)
        found[f"raw/{way}"] = bench.run_segment(raw, "tumour", bench.scratch / "raw" / way, options)
    return found


def load_moved(bench: Bench, way: str) -> Record:
    """The infarct whose FLAIR lies elsewhere, all three sequences on one grid."""
    from brainsegnet.errors import BrainSegNetError
    from brainsegnet.io.cases import find_cases, load_case
    from brainsegnet.preprocessing.alignment import Aligner
    from brainsegnet.task import ISLES2022

    files = next(case for case in find_cases([bench.sources["isles2022"]]) if "flair" in case.images)
    aligner = None if way == "refused" else Aligner(files.name, way == "register")
    try:
        case = load_case(files, ("dwi", "adc", "flair"), ISLES2022, lesion=True, align=aligner)
    except BrainSegNetError as error:
        return {"refused": bench.plainly(str(error))}
    return {"sha256": digest_case(case), "moved": aligner.to_json() if aligner else {}}


def record_training(bench: Bench) -> Record:
    """Each recipe on phantoms, and two trainings on what is simulated meanwhile."""
    from brainsegnet.task import BRATS2015, ISLES2022
    from brainsegnet.training.recipes import RECIPES

    found: Record = {}
    for name in RECIPES:
        start: dict[str, Any] = {"start": Path("tumour")} if name == "finetune" else {}
        chosen = {"hold_out": ("phantom0003",), "validations": 2, **start}
        found[name] = learn(bench, name, [bench.phantoms], BRATS2015, chosen)
    gliomas = {"simulated": 2, "refresh_every": 8, "anatomy": "procedural", "shape": SMALL_HEAD}
    found["simulated gliomas"] = learn(bench, "quick", [], BRATS2015, gliomas)
    found["simulated strokes"] = learn(bench, "small-lesions", [], ISLES2022, {"simulated": 2, "refresh_every": 12})
    return found


def learn(bench: Bench, recipe_name: str, data: list[Path], task: Any, chosen: Mapping[str, Any]) -> Record:  # noqa: ANN401
    """Losses, rates, scores and weights of a short training."""
    from brainsegnet.model.store import open_model
    from brainsegnet.progress import Callback, ProgressEvent
    from brainsegnet.training import TrainOptions
    from brainsegnet.training.recipes import load_recipe
    from brainsegnet.training.train import train

    patch = {} if recipe_name == "finetune" else {"patch": PATCH}
    recipe = load_recipe(recipe_name).model_copy(update=NARROW | patch)
    options = TrainOptions(recipe, steps=STEPS, seed=5, accelerator="cpu", **chosen)
    lines: list[ProgressEvent] = []

    class Heard(Callback):
        def on_progress(self, event: ProgressEvent) -> None:
            lines.append(event)

    out = Path(tempfile.mkdtemp(dir=bench.scratch))
    train(data, task, out / "run", options, Heard())
    card, steps = open_model(out / "run" / "last").card, [line for line in lines if not line.dice]
    kept = {folder.name: open_model(folder).tensors() for folder in sorted((out / "run").glob("*st"))}
    return {
        "losses": [line.loss for line in steps],
        "stages": [line.stage for line in steps],
        "rates": [line.learning_rate for line in steps],
        "dice": {str(line.step): dict(line.dice) for line in lines if line.dice},
        "weights": {name: digest_tensors(tensors) for name, tensors in kept.items()},
        "recipe": card.training.recipe,
        "network": card.network.model_dump(mode="json"),
    }


def record_simulation(bench: Bench) -> Record:
    """Twenty cases of each kind, most of them small; some heads and lesions from elsewhere where real data are."""
    return {
        kind: {name: digest_case(make()) for name, make in makers}
        for kind, makers in {
            "phantoms": phantom_makers(),
            "gliomas": glioma_makers(bench),
            "strokes": stroke_makers(bench),
        }.items()
    }


Maker = tuple[str, Callable[[], Any]]


def phantom_makers() -> Iterator[Maker]:
    """Seventeen small phantoms and three whole ones."""
    from brainsegnet.simulation.phantom import DEMO_SHAPE, simulate_phantom

    for seed in range(20):
        shape = SMALL if seed < 17 else DEMO_SHAPE
        yield f"{seed} {shape}", lambda seed=seed, shape=shape: simulate_phantom(seed, shape)  # type: ignore[misc]


def glioma_makers(bench: Bench) -> Iterator[Maker]:
    """Seventeen in small procedural heads, three at 1 mm, and three in heads of other people."""
    from brainsegnet.anatomy.label_maps import open_anatomies
    from brainsegnet.simulation.realistic import simulate_glioma

    def maker(which: str, shape: tuple[int, int, int] | None, seed: int, folder: Path | None = None) -> Maker:
        return f"{seed} {which} {shape}", lambda: simulate_glioma(
            seed, open_anatomies(folder or which, shape)(seed), f"glioma{seed:04d}"
        )

    for seed in range(20):
        yield maker("procedural", SMALL_HEAD if seed < 10 else LARGER_HEAD if seed < 17 else None, seed)
    for seed in range(20, 23) if bench.data else ():
        yield maker("labels", None, seed, bench.data and bench.data / HEADS)


def stroke_makers(bench: Bench) -> Iterator[Maker]:
    """Of each kind eight at half detail and two whole, and three of heads and lesions of other people."""
    from brainsegnet.simulation import StrokeTask
    from brainsegnet.simulation.simulate import open_library
    from brainsegnet.simulation.stroke_case import Library, simulate_stroke

    def maker(task: StrokeTask, seed: int, detail: float, library: Any = None) -> Maker:  # noqa: ANN401
        known = "" if library is None else " library"
        return f"{seed} {task} {detail}{known}", lambda: simulate_stroke(seed, task, library or Library(), detail)

    tasks: tuple[StrokeTask, ...] = ("isles2022", "isles2017")
    for task in tasks:
        for seed in range(10):
            yield maker(task, seed, 0.5 if seed < 8 else 1.0)
    if bench.data:
        library = open_library(bench.data / SHAPES, bench.data / HEADS)
        for seed, task in enumerate((*tasks, *tasks), 20):
            yield maker(task, seed, 1.0, library)


def record_fused(bench: Bench) -> Record:
    """Networks, losses and augmentation on fixed input."""
    found: Record = {"losses": compute_losses(), "changes": augment_batch(), "samples": cut_samples()}
    for name, stride, nonlinear in (
        ("paper", (1, 2, 2), True),
        ("linear", (1, 2, 2), False),
        ("cubic", (2,) * 3, True),
    ):
        found[f"network {name}"] = run_network(stride, nonlinear)
    return found


def run_network(stride: Any, nonlinear: bool) -> Record:  # noqa: ANN401
    """Logits of a seeded network, plain, collapsed and fused, of an odd size; and gradients through the collapse."""
    import torch

    from brainsegnet.model.architecture import BrainSegNet
    from brainsegnet.model.fused import FusedDecoder, fuse

    torch.manual_seed(11)
    net = BrainSegNet(4, 5, NARROW["widths"], NARROW["refined"], stride, nonlinear)  # type: ignore[arg-type]
    torch.nn.init.normal_(net.classify.weight, std=0.1)
    x = torch.randn(2, 4, 9, 37, 42)
    started, learner = digest_tensors(net.state_dict()), FusedDecoder(net)
    in_training = learner(x)
    in_training.square().mean().backward()
    gradients = {name: weight.grad for name, weight in net.named_parameters()}
    net.eval()
    with torch.inference_mode():
        logits = {"plain": net(x), "collapsed": learner(x), "fused": fuse(net).logits(x)}
    return {
        "weights": started,
        "learnt statistics": digest_tensors(net.state_dict()),
        "in training": digest(in_training),
        "gradients": digest_tensors(gradients),
        **{name: digest(value) for name, value in logits.items()},
    }


def compute_losses() -> Record:
    """Loss and hash of its gradient, for each recipe and stage."""
    import torch

    from brainsegnet.task import BRATS2015
    from brainsegnet.training.losses import loss_of
    from brainsegnet.training.recipes import RECIPES

    torch.manual_seed(12)
    fixed, classes = 3 * torch.randn(2, 5, 8, 20, 24), torch.zeros(2, 8, 20, 24, dtype=torch.uint8)
    classes[0, 2:6, 4:12, 5:9], classes[0, 3, 6:8, 6], classes[0, 4, 15, 15], classes[1, 1, 1:3, 20] = 2, 4, 1, 3
    found: Record = {}
    for name, recipe in RECIPES.items():
        for stage in recipe.stages:
            logits = fixed.clone().requires_grad_()
            loss = loss_of(logits, classes, recipe, stage, BRATS2015.region_classes)
            loss.backward()  # type: ignore[no-untyped-call]
            found[f"{name}/{stage.name}"] = {"loss": loss.item(), "gradient": digest(logits.grad)}
    return found


def augment_batch() -> Record:
    """Changes drawn from both sets of ranges, and a batch that underwent them."""
    import torch

    from brainsegnet.training.augment import augment_intensity, draw_params, drop_sequences, reorient, window
    from brainsegnet.training.recipes import STRONG, Augmentation

    torch.manual_seed(13)
    images = torch.randn(6, 4, 8, 32, 32)
    images[:, :, :, :4] = 0
    found: Record = {}
    for name, how in (("paper", Augmentation()), ("strong", STRONG)):
        rng = np.random.default_rng(14)
        changes = [draw_params(rng, how, 4, 8) for _ in images]
        changes[-1] = drop_sequences(rng, changes[-1], 4)
        cut = [
            window(x.flatten(0, 1), (14.0, 17.5), (24, 24), c, k % 2 == 0)
            for k, (x, c) in enumerate(zip(images, changes, strict=True))
        ]
        found[name] = {
            "drawn": [json.loads(json.dumps(vars(change))) for change in changes],
            "recoloured": digest(augment_intensity(images, changes)),
            "reoriented": digest(*(reorient(x, c) for x, c in zip(images, changes, strict=True))),
            "cut": digest(*cut),
        }
    return found


def cut_samples() -> Record:
    """Samples that each recipe draws from two phantoms, at each of its stages."""
    import torch

    from brainsegnet.simulation.phantom import simulate_phantom
    from brainsegnet.task import BRATS2015
    from brainsegnet.training.recipes import RECIPES
    from brainsegnet.training.sampler import Sampler, Scan

    scans = [Scan.of(simulate_phantom(seed, SMALL), BRATS2015) for seed in (30, 31)]
    found: Record = {"prepared": [digest(scan.image, scan.classes) for scan in scans]}
    for name, recipe in RECIPES.items():
        sampler = Sampler(scans, recipe, PATCH, 15, torch.device("cpu"))
        for stage in recipe.stages:
            images, classes = sampler.cut([sampler.draw(number, stage) for number in range(10)])
            found[f"{name}/{stage.name}"] = digest(images, classes)
    return found


PARTS: Mapping[str, Callable[[Bench], Record]] = {
    "segment": record_segment,
    "evaluate": record_evaluate,
    "alignment": record_alignment,
    "training": record_training,
    "simulation": record_simulation,
    "fused": record_fused,
}


def describe_machine(threads: int) -> Record:
    """What a record depends on beside the code."""
    libraries = {name: version(name) for name in LIBRARIES}
    return libraries | {"python": platform.python_version(), "machine": platform.machine(), "threads": threads}


def make_record(parts: list[str], data: Path | None, threads: int) -> Record:
    """The record of some parts; tells on the console how long each took."""
    import torch

    record: Record = {"made_with": describe_machine(threads), "real_data": data is not None}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(data, Path(folder).resolve(), threads)
        for part in parts:
            started = time.perf_counter()
            torch.set_num_threads(threads)
            record[part] = PARTS[part](bench)
            print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return record


def find_data(named: Path | None) -> Path | None:
    """The folder of real scans; None where none is named and none is there."""
    folder = named or Path(os.environ.get("BRAINSEGNET_TEST_DATA", ROOT.parent / "shared" / "data"))
    if folder.is_dir():
        return folder.resolve()
    if named is not None:
        sys.exit(f"{named} is no folder; name that of the real scans with --data")
    print("no real scans are here; the record is made without them", file=sys.stderr)
    return None


def require_this_checkout() -> None:
    """Refuse to record another checkout than that of the script."""
    spec, home = find_spec("brainsegnet"), ROOT / "src" / "brainsegnet"
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if found != home:
        sys.exit(f"brainsegnet comes from {found}, not from {home}; set PYTHONPATH to {home.parent}")


def spread(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Each figure of a record and where it stands; an empty list or object is a figure too."""
    if isinstance(value, (dict, list)) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from spread(inner, f"{place} > {key}" if place else str(key))
    else:
        yield place, value


def find_differences(one: Record, other: Record) -> list[str]:
    """A line for each figure that differs, or that only one of two records holds."""
    first, second = dict(spread(one)), dict(spread(other))
    lines = []
    for place in sorted(first.keys() | second.keys()):
        left, right = (json.dumps(side[place]) if place in side else "absent" for side in (first, second))
        if left != right:
            lines.append(f"{place}: {left} != {right}")
    return lines


def compare(paths: list[Path], parts: list[str] | None) -> int:
    """Print how two records differ, in the given parts or in all; 1 if they do."""
    one, other = (json.loads(path.read_text()) for path in paths)
    if parts:
        one, other = ({key: record[key] for key in parts if key in record} for record in (one, other))
    lines = find_differences(one, other)
    for line in lines:
        print(line)
    print(f"{len(lines)} differences in {len(dict(spread(one)))} figures", file=sys.stderr)
    return 1 if lines else 0


def main() -> int:
    """Make a record, or compare two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, help="file that gets the record")
    parser.add_argument("--data", type=Path, help="folder of the real scans")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), help="only these parts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="print how two records differ")
    given = parser.parse_args()
    if given.compare:
        return compare(given.compare, given.part)
    if given.out is None:
        parser.error("name the file that gets the record, or two records with --compare")
    require_this_checkout()
    record = make_record(given.part or list(PARTS), find_data(given.data), given.threads)
    given.out.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
