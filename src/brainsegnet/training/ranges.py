"""What an augmented sample may undergo, as values: the ranges that `augment` draws from."""

from pydantic import BaseModel, ConfigDict

Range = tuple[float, float]


class Augmentation(BaseModel):
    """What an augmented sample may undergo; the defaults are the paper's ("Data Augmentation").

    Attributes:
        slice_gain: Each slice is multiplied by a factor from this range.
        scale: In-plane magnification, the same for all slices; the paper's "[0:5; 1:2]" is read as 0.5 to 1.2.
        quarter_turns: Whether all slices turn by the same 0, 90, 180 or 270 degrees.
        flips: Probability of mirroring, along (D, H, W) each.
        angle_deg: Free in-plane rotation by up to this many degrees either way.
        gain: Factor on each sequence's contrast; `shift` is added to it, in standard deviations.
        gamma: Exponent of a power law on each sequence, rescaled to its range.
        noise: Standard deviation of added Gaussian noise, at most.
        blur: Probability that a sequence is smoothed in plane.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slice_gain: Range = (0.8, 1.2)
    scale: Range = (0.5, 1.2)
    quarter_turns: bool = True
    flips: tuple[float, float, float] = (0.0, 0.5, 0.5)
    angle_deg: float = 0.0
    gain: Range = (1.0, 1.0)
    shift: Range = (0.0, 0.0)
    gamma: Range = (1.0, 1.0)
    noise: float = 0.0
    blur: float = 0.0


STRONG = Augmentation(
    slice_gain=(1.0, 1.0),
    scale=(0.75, 1.3),
    quarter_turns=False,
    flips=(0.5, 0.5, 0.5),
    angle_deg=30.0,
    gain=(0.7, 1.4),
    shift=(-0.3, 0.3),
    gamma=(0.7, 1.5),
    noise=0.15,
    blur=0.15,
)
