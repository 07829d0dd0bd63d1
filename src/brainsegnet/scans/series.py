"""Several images of one grid in one file: the sequences of a 4-D image, or a perfusion series over time."""

from dataclasses import dataclass

from brainsegnet.volume import Affine, Array, Volume


@dataclass(frozen=True, eq=False)
class Series:
    """Images on one grid.

    Args:
        array: Intensities (T, D, H, W): frame, slice, row, column.
        affine: (4, 4), index (d, h, w, 1) to millimetres (x left, y posterior, z superior), of every frame.

    Raises:
        ValueError: `array` is not 4-D.
    """

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"a series is 4-D (T, D, H, W), this array has shape {self.array.shape}")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.array)

    def frame(self, number: int) -> Volume:
        """One image of it, counted from 0: a view."""
        return Volume(self.array[number], self.affine)
