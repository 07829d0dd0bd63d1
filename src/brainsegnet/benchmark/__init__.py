"""Train and test networks under the same conditions, and rank models by their scores."""

from dataclasses import dataclass, fields

from brainsegnet.training import FitOptions, TrainOptions


@dataclass(frozen=True)
class BenchmarkOptions(FitOptions):
    """Which networks a benchmark compares, and how it trains each of them.

    The fields are the options of `brainsegnet benchmark run`.

    Raises:
        TaskError: a number is out of its range, or more than one budget is given.
    """

    models: tuple[str, ...] = ()
    """Networks to compare: brainsegnet, unet, vnet, segresnet, dynunet (by default all five). Also brainsegnet-full,
    -half and -quarter: Brain SegNet at the paper's width, or a half or a quarter of it. The others are tested against
    the first."""
    ablation: bool = False
    "Compare Brain SegNet with itself without one part at a time, instead of with other networks."
    folds: int = 5
    "Number of trainings of each network. Each training is tested on the patients that it did not see."
    seeds: int = 1
    """Number of trainings of each network and fold, with consecutive seeds. The folds stay the same. Each case counts
    with its mean over the seeds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(seeds=1)

    def for_reading(self) -> TrainOptions:
        """The same options for all cases together, with none held out."""
        return TrainOptions(**{one.name: getattr(self, one.name) for one in fields(FitOptions)}, validation=0)
