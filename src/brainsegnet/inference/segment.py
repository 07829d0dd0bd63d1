"""What `segment` writes of a case: label map, maps on request, a picture, and the JSON that says all about them.

`segment`: cases on disk to label maps on their own grids, each with a JSON beside it.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet._atomic import IMAGES, find_suffix, stem_of, writable, write_text
from brainsegnet.errors import BrainSegNetError, OutputError
from brainsegnet.inference.batch import run_cohort
from brainsegnet.inference.engine import Precision, open_engine, stays_on_cpu
from brainsegnet.inference.predict import (
    Options,
    Prediction,
    PreparedCase,
    RawPrediction,
    compute,
    finish,
    prepare_case,
)
from brainsegnet.io.cases import CaseFiles, find_cases, load_case
from brainsegnet.io.images import READERS, write_image
from brainsegnet.io.layouts import names_lesion
from brainsegnet.model.card import Card
from brainsegnet.model.store import Model, choose_model, resolve_model
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.volume import Case

ENTROPY = "entropy"
HARDLY = 0.25
"""Mean Dice below which a model is said to find hardly anything."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A case that was read.

    Attributes:
        case: As it was read.
        ready: The same for the network; None where a GPU is to prepare it.
        seconds: That reading took.
        aligner: How its sequences came onto one grid.
        notes: What could not be read, and is not needed for the labels.
    """

    case: Case
    ready: PreparedCase | None
    seconds: float
    aligner: Aligner
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segmented:
    """One case done: the label map's file, and what stands in the JSON beside it."""

    name: str
    path: Path
    report: Mapping[str, Any]


def write_case(found: RawPrediction, loaded: Loaded, model: Model, path: Path, picture: bool) -> Segmented:
    """Write everything about a case; the JSON comes last, so its presence says that all is there.

    Raises:
        OutputError: the folder is not writable, or the disk is full.
    """
    started, case, prediction = time.perf_counter(), found.ready.case, finish(found, model.card)
    write_image(prediction.labels, path)
    maps = dict(prediction.probabilities or {}) | ({ENTROPY: prediction.entropy} if prediction.entropy else {})
    files = {name: path.with_name(f"{stem_of(path)}_{_plain(name)}.nii.gz") for name in maps}
    for name, file in files.items():
        write_image(maps[name], file)
    if picture:
        _draw(case, prediction, model, path)
    seconds = {"read": loaded.seconds, **prediction.seconds, "write": time.perf_counter() - started}
    expected = expected_dice(model.card, prediction.used)
    report = {
        "case": case.name,
        "labels": path.name,
        "probabilities": {tissue: files[tissue].name for tissue in prediction.probabilities or {}},
        "task": model.card.task.name,
        "convention": {str(value): tissue for value, tissue in model.card.task.labels.items()},
        "sequences": {"used": list(prediction.used), "absent": list(prediction.absent)},
        "geometry": {"grid": next(iter(case.images)), "moved": loaded.aligner.to_json()},
        "volumes_ml": prediction.volumes_ml,
        "dropped": {
            "confidence_margin": None if found.options.keep_all_components else model.card.components.confidence_margin,
            "components": prediction.components_dropped,
            "ml": prediction.dropped_ml,
        },
        "test_time_augmentation": found.options.tta,
        **_describe_uncertainty(prediction, files),
        "validation": expected,
        "validated_on": model.card.training.held_out_sources or "unseen cases",
        "model": _describe_model(model),
        "engine": found.engine,
        "memory": {"one_pass_gb": round(found.pass_bytes / 1e9, 3)},
        "notes": [*found.notes, *loaded.notes],
        "warnings": [*prediction.warnings, *warn_of_sequences(expected, prediction.used)],
        "seconds": {stage: round(duration, 4) for stage, duration in seconds.items()},
        "brainsegnet": version("brainsegnet"),
        "intended_use": model.card.intended_use,
    }
    write_text(json.dumps(report, indent=2) + "\n", path.with_name(f"{stem_of(path)}.json"))
    return Segmented(case.name, path, report)


def expected_dice(card: Card, used: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Mean Dice on unseen cases by region, with all sequences and with those that were used; empty where not measured.

    >>> from brainsegnet.model.card import Architecture, Input
    >>> from brainsegnet.model.card import TrainingNote
    >>> from brainsegnet.task import ISLES2022
    >>> note = TrainingNote(subsets={"dwi+adc": {"lesion": 0.7}, "dwi": {"lesion": 0.6}})
    >>> shape = Architecture(widths=(1, 1), refined=1)
    >>> card = Card(name="x", task=ISLES2022, input=Input(sequences=("dwi", "adc")), network=shape, training=note)
    >>> expected_dice(card, ["dwi"])
    {'all sequences': {'lesion': 0.7}, 'those used': {'lesion': 0.6}}
    """
    measured = card.training.subsets
    wanted = {"all sequences": card.sequences, "those used": used}
    return {what: measured["+".join(names)] for what, names in wanted.items() if "+".join(names) in measured}


def warn_of_sequences(expected: Mapping[str, Mapping[str, float]], used: Sequence[str]) -> list[str]:
    """A sentence where the model hardly found anything on unseen cases with these sequences alone; none elsewhere.

    >>> warn_of_sequences({"all sequences": {"lesion": 0.67}, "those used": {"lesion": 0.0}}, ["adc"])
    ['with adc alone the model found hardly anything on unseen cases (best Dice 0.00); add sequences']
    >>> warn_of_sequences({"all sequences": {"lesion": 0.67}, "those used": {"lesion": 0.64}}, ["dwi"])
    []
    """
    best = max(expected.get("those used", {}).values(), default=1.0)
    if best >= HARDLY:
        return []
    found = f"found hardly anything on unseen cases (best Dice {best:.2f})"
    return [f"with {' and '.join(used)} alone the model {found}; add sequences"]


def _describe_uncertainty(prediction: Prediction, files: Mapping[str, Path]) -> dict[str, Any]:
    if prediction.intervals is None:
        return {}
    intervals = {region: vars(interval) for region, interval in prediction.intervals.items()}
    return {"uncertainty": {ENTROPY: files[ENTROPY].name, "volume_intervals": intervals}}


def _describe_model(model: Model) -> dict[str, Any]:
    sha256 = model.card.weights.sha256 if model.card.weights else None
    return {"name": model.card.name, "folder": str(model.folder), "sha256": sha256}


def _draw(case: Case, prediction: Prediction, model: Model, path: Path) -> None:
    """The result over the scan, beside the truth where it is known."""
    from brainsegnet.plotting.overlays import overlay_figure, save_figure

    figure = overlay_figure(case, prediction.labels.array, model.card.task, prediction.used[:4])
    save_figure(figure, path.with_name(f"{stem_of(path)}.png"))


def _plain(tissue: str) -> str:
    """A tissue as a part of a file name: `necrosis + non-enhancing` is `necrosis-non-enhancing`."""
    return "-".join(tissue.replace("+", " ").split())


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment.

    Attributes:
        slabs: Slices per pass, as the paper's 31; None is the whole brain box in one pass.
        probabilities: Whether to write a probability map per tissue too.
        device: "auto", "cpu" or "cuda".
        threads: Of the CPU; None is all.
        precision: Of the CPU: "auto", "float", "bf16" or "int8"; see `open_engine`.
        max_memory_gb: Memory of a pass; None is what is free. Slabs that overlap keep to it, with the same result.
        resample: Bring sequences on other grids onto the first one's, instead of refusing them.
        register: As `resample`, and first lay what is on another grid upon the first sequence by a rigid motion; a
            sequence on its grid stays as it is, even if the head moved.
        uncertainty: Whether to write an entropy map and intervals of the volumes too.
        picture: Whether to draw the result over the scan, as a PNG beside the label map.
        keep_all_components: Whether connected components stay of which the model is much less sure than of the surest;
            else its card says how much less sure one is that is dropped, if any is. Probability and entropy maps show
            all.
        mirror: Whether to take the mean over the scan and its mirror images, in four passes.

    Raises:
        BrainSegNetError: fewer than one thread, or no memory.
    """

    slabs: int | None = None
    probabilities: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: Precision = "auto"
    max_memory_gb: float | None = None
    resample: bool = False
    register: bool = False
    uncertainty: bool = False
    picture: bool = False
    keep_all_components: bool = False
    tta: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise BrainSegNetError(f"threads must be 1 or more, not {self.threads}")
        if self.max_memory_gb is not None and not self.max_memory_gb > 0:
            raise BrainSegNetError(f"the memory of a pass must be above 0 GB, not {self.max_memory_gb}")

    @property
    def max_bytes(self) -> int | None:
        """Memory of a pass in bytes."""
        return None if self.max_memory_gb is None else int(1e9 * self.max_memory_gb)


@dataclass(frozen=True)
class Segmentation:
    """All cases: those done, and those that could not be, each with a sentence.

    `seconds` is the time that all took, `computing` how much of it the network was at work.
    """

    done: Sequence[Segmented]
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    computing: float = 0


def segment(
    cases: Path | Sequence[Path] | Mapping[str, Path],
    model: Path | str | None,
    out: Path,
    options: SegmentOptions | None = None,
    watch: Callable[[Segmented], None] | None = None,
) -> Segmentation:
    """Segment one case or many.

    Args:
        cases: Folders of cases or tables; or one case as sequence name to file.
        model: Model folder, output folder of `train`, or name of a shipped model; None is the shipped model that uses
            most of the sequences of the cases.
        out: Label map to write; for more than one case, the folder that gets one for each, named after it.
        options: How.
        watch: Told of each case that is done.

    Raises:
        ModelError: the model cannot be used; without one, two cases call for different models.
        DatasetError: no case is found.
        OutputError: the output cannot be written, or would pass for the truth of a case that was found in a folder.
        BrainSegNetError: a single case cannot be used; of many, the bad ones are in `failures`.
    """
    options = options or SegmentOptions()
    found = _find(cases)
    opened = choose_model({case.name: case.images for case in found}) if model is None else resolve_model(model)
    targets = _targets(found, out)
    if not isinstance(cases, Mapping):
        _refuse_truths(found, targets.values())
    wanted = Options(
        options.slabs, options.probabilities, options.uncertainty, options.keep_all_components, options.tta
    )
    on_cpu = stays_on_cpu(options.device)

    def read(files: CaseFiles) -> Loaded:
        started = time.perf_counter()
        case, aligner, notes = _read(files, opened.card, options)
        reading = time.perf_counter() - started
        ready = prepare_case(case, opened.card) if on_cpu else None
        return Loaded(case, ready, reading, aligner, notes)

    def start() -> Callable[[CaseFiles, Loaded], tuple[RawPrediction, Loaded]]:
        engine = open_engine(opened, options.device, options.threads, options.precision, options.max_bytes)

        def run(files: CaseFiles, loaded: Loaded) -> tuple[RawPrediction, Loaded]:
            ready = loaded.ready or prepare_case(loaded.case, opened.card, engine.prepare)
            return compute(ready, engine, wanted), loaded

        return run

    def write(files: CaseFiles, computed: tuple[RawPrediction, Loaded]) -> Segmented:
        done = write_case(*computed, opened, targets[files.name], options.picture)
        if watch:
            watch(done)
        return done

    cohort = run_cohort(found, read, start, write, lambda files: files.name)
    if len(found) == 1 and cohort.failures:
        raise BrainSegNetError(next(iter(cohort.failures.values())))
    return Segmentation(cohort.results, cohort.failures, cohort.seconds, cohort.computing)


def _refuse_truths(cases: Sequence[CaseFiles], targets: Iterable[Path]) -> None:
    """Refuse names that would make a result the truth of a case, where its folder is searched again.

    Raises:
        OutputError: a target lies beside scans and is named like their truth.
    """
    homes = {path.resolve().parent for case in cases for path in case.images.values()}
    for target in targets:
        if names_lesion(target) and target.resolve().parent in homes:
            raise OutputError(f"{target} lies beside the scans and would pass for their truth; name another with --out")


def _find(cases: Path | Sequence[Path] | Mapping[str, Path]) -> list[CaseFiles]:
    if isinstance(cases, Mapping):
        return [CaseFiles(stem_of(next(iter(cases.values())), READERS), cases)]
    return find_cases([cases] if isinstance(cases, Path) else cases)


def _read(files: CaseFiles, card: Card, options: SegmentOptions) -> tuple[Case, Aligner, tuple[str, ...]]:
    """A case, with its truth if that is to be drawn and can be; how it was brought onto one grid, and notes."""

    def load(lesion: bool) -> tuple[Case, Aligner]:
        aligner = Aligner(files.name, options.register)
        align = aligner if options.resample or options.register else None
        return load_case(files, card.sequences, card.task, lesion=lesion, allow_missing=True, align=align), aligner

    if not (options.picture and files.lesion):
        return *load(False), ()
    try:
        return *load(True), ()
    except BrainSegNetError as error:
        return *load(False), (f"the picture is drawn without the truth, which cannot be used: {error}",)


def _targets(cases: Sequence[CaseFiles], out: Path) -> dict[str, Path]:
    """The label map of each case: `out` itself for a single one, or `out/<case>.nii.gz`; made sure to be writable.

    Raises:
        OutputError: `out` names a file but there are many cases, it is one of the images, or it cannot be written.
    """
    one_file = find_suffix(out, IMAGES) and not out.is_dir()
    if one_file and len(cases) > 1:
        raise OutputError(f"{len(cases)} cases do not fit into {out}; name a folder with --out")
    targets = {case.name: out if one_file else out / f"{case.name}.nii.gz" for case in cases}
    images = {path.resolve() for case in cases for path in (*case.images.values(), case.lesion) if path}
    for target in targets.values():
        if target.resolve() in images:
            raise OutputError(f"{target} is a file of the case itself; name another with --out")
        writable(target)
    return targets
