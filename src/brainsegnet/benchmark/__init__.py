"""Networks trained and tested side by side, and models ranked by their scores."""

from dataclasses import dataclass, fields

from brainsegnet.training import FitOptions, TrainOptions


@dataclass(frozen=True)
class BenchmarkOptions(FitOptions):
    """Which networks are compared, and how each of them is trained.

    Raises:
        TaskError: a number is out of its range, or more than one budget is given.
    """

    models: tuple[str, ...] = ()
    """Some of brainsegnet, unet, vnet, segresnet, dynunet (all by default), and of brainsegnet-full, -half, -quarter:
    Brain SegNet at the paper's width, half or a quarter of it. The others are tested against the first."""
    ablation: bool = False
    "Compare Brain SegNet with itself without one part at a time, instead of with other networks."
    folds: int = 5
    "Trainings of each model, each tested on the patients that it did not see."
    seeds: int = 1
    """Trainings of each model and fold: under --seed, and the numbers after it. The folds stay, and each case counts
    with its mean over the seeds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(seeds=1)

    def for_reading(self) -> TrainOptions:
        """The same choices for all cases together, none held out."""
        return TrainOptions(**{one.name: getattr(self, one.name) for one in fields(FitOptions)}, validation=0)
