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
        scores: Case to region to score, within the brain's box.
        machine: Where it ran; figures of different machines cannot be compared.
        versions: Of the libraries.
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


def to_entry(results: Sequence[Result], cases: Sequence[str]) -> Entry:
    """The results of one model over its folds as one entry, the cases in the order given."""
    scores = {case: scores for result in results for case, scores in result.scores.items()}
    seconds = [s for result in results for s in result.seconds.values()]
    samples = [result.samples_per_second for result in results]
    return Entry(
        {case: scores[case] for case in cases if case in scores},
        results[0].parameters,
        results[0].multiply_adds_per_voxel,
        float(np.mean(samples)),
        float(np.mean(seconds)),
        float(np.mean([result.steps for result in results])),
        float(np.mean([result.minutes for result in results])),
    )


def describe_result(result: Result, folds: int) -> str:
    """A line in words: the mean Dice of each region over the tested cases."""
    regions = next(iter(result.scores.values()))
    means = {region: np.mean([scores[region].dice for scores in result.scores.values()]) for region in regions}
    dice = ", ".join(f"{region} {mean:.3f}" for region, mean in means.items())
    return f"{result.model}, fold {result.fold} of {folds}: {dice} after {result.steps} steps"


def describe_machine(device: str) -> str:
    """Processor, cores and device in words."""
    return f"{describe_processor()}, {device}"
