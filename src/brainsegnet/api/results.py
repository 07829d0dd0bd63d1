"""What a training of a comparison came to, as a JSON that appears when it is finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from brainsegnet.errors import OutputError
from brainsegnet.evaluation.metrics import RegionScore
from brainsegnet.evaluation.standings import Entry
from brainsegnet.inference.card import find_versions
from brainsegnet.output import write_text
from brainsegnet.processor import describe_processor


@dataclass(frozen=True)
class Result:
    """A network trained on all folds but one, and tested on that.

    Attributes:
        model: Name of the contender.
        fold: Counted from 1.
        steps, minutes, samples_per_second: Of the training.
        parameters, multiply_adds_per_voxel: Of the network.
        seconds: Case to seconds of the pass over its scan.
        scores: Case to region to score.
        machine: Where it ran; figures of different machines cannot be compared.
        versions: Of the libraries.
        seed: Of the training; None in a result from before comparisons had several.
        whole_grid: Whether scores count the whole scan; those from before did the brain's box alone.
        notes: What was done for want of memory, in sentences.
    """

    model: str
    fold: int
    steps: int
    minutes: float
    samples_per_second: float
    parameters: int
    multiply_adds_per_voxel: float
    seconds: Mapping[str, float]
    scores: Mapping[str, Mapping[str, RegionScore]]
    machine: str
    versions: Mapping[str, str] = field(default_factory=find_versions)
    seed: int | None = None
    whole_grid: bool = False
    notes: tuple[str, ...] = ()


_ADAPTER = TypeAdapter(Result)


def write_result(result: Result, path: Path) -> None:
    """Write it whole or not at all.

    Raises:
        OutputError: the folder is not writable, or the disk is full.
    """
    write_text(_ADAPTER.dump_json(result, indent=1).decode() + "\n", path)


def read_result(path: Path) -> Result | None:
    """What `write_result` wrote, None if there is no such file.

    Raises:
        OutputError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise OutputError(
            f"{path} is no whole result of a comparison; delete it, and the training is repeated"
        ) from error


def to_entry(seeds: Sequence[Sequence[Result]], cases: Sequence[str]) -> Entry:
    """The results of one model over its folds, seed by seed, as one entry, the cases in the order given."""
    first, *repeats = [
        {case: scores[case] for case in cases if case in scores}
        for of_seed in seeds
        for scores in [{case: scores for result in of_seed for case, scores in result.scores.items()}]
    ]
    results = [result for of_seed in seeds for result in of_seed]
    seconds = [s for result in results for s in result.seconds.values()]
    samples = [result.samples_per_second for result in results]
    return Entry(
        first,
        results[0].parameters,
        results[0].multiply_adds_per_voxel,
        float(np.mean(samples)),
        float(np.mean(seconds)),
        float(np.mean([result.steps for result in results])),
        float(np.mean([result.minutes for result in results])),
        repeats,
    )


def describe_result(result: Result, folds: int, seed: int | None = None) -> str:
    """A line in words: the mean Dice of each region over the tested cases; a seed is named if there are several."""
    regions = next(iter(result.scores.values()))
    means = {region: np.mean([scores[region].dice for scores in result.scores.values()]) for region in regions}
    dice = ", ".join(f"{region} {mean:.3f}" for region, mean in means.items())
    place = f"{result.model}{'' if seed is None else f', seed {seed}'}, fold {result.fold} of {folds}"
    return f"{place}: {dice} after {result.steps} steps"


def describe_results(results: Sequence[Result]) -> list[str]:
    """Sentences for the notes of a table: where all ran, and what is peculiar about some."""
    notes = [f"Machine: {'; '.join(sorted({result.machine for result in results}))}."]
    if boxed := sum(not result.whole_grid for result in results):
        notes.append(
            f"{boxed} of {len(results)} trainings were tested by an earlier version, which scored the brain's box "
            "alone: specificity, and what touches lesions outside it, differ from scores of whole scans."
        )
    return [*notes, *(f"{result.model}: {note}" for result in results for note in result.notes)]


def describe_machine(device: str) -> str:
    """Processor, cores and device in words."""
    return f"{describe_processor()}, {device}"
