"""The sequences of a case on one grid: resampled where their headers place them, or registered first."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.grid import ItkObject, resample
from brainsegnet.preprocessing.registration import Registration, register
from brainsegnet.volume import LabelMap, Volume


@dataclass
class Aligner:
    """Brings what lies on another grid onto that of the first sequence, for one case; see `scans.datasets.Align`.

    A label map follows the sequence on whose grid it lies, so what was drawn on a moved FLAIR stays on its lesion.

    Attributes:
        case: Its name, for messages.
        registers: Whether images are registered; else they are only resampled where their headers place them.
        moved: Each sequence that was brought over, and how it was registered; None if only resampled.
    """

    case: str
    registers: bool = False
    moved: dict[str, Registration | None] = field(default_factory=dict)
    _grids: list[tuple[Volume, ItkObject]] = field(default_factory=list)

    def __call__(self, name: str, moving: Volume, reference: Volume) -> Volume:
        """The volume on the grid of `reference`.

        Raises:
            ImageError: it cannot be registered.
        """
        if isinstance(moving, LabelMap):
            transforms = (transform for grid, transform in self._grids if moving.on_grid_of(grid))
            return resample(moving, reference, next(transforms, None))
        found = self._register(name, moving, reference) if self.registers else None
        transform = found.transform if found and found.better else None
        self.moved[name] = found
        self._grids.append((moving.with_array(np.broadcast_to(np.uint8(0), moving.shape)), transform))
        return resample(moving, reference, transform)

    def _register(self, name: str, moving: Volume, reference: Volume) -> Registration:
        try:
            return register(moving, reference)
        except ImageError as error:
            raise ImageError(
                f"case {self.case}: {name} cannot be registered: {error}; mend it, or leave it out"
            ) from error

    @property
    def doubts(self) -> dict[str, str]:
        """What speaks against the registration of a sequence, for those where something does."""
        return {name: found.doubt for name, found in self.moved.items() if found and found.doubt}

    def to_json(self) -> dict[str, Any]:
        """How each sequence came onto the grid, for the report of a case."""
        return {
            name: {"how": "registered", **found.to_json()} if found else {"how": "resampled"}
            for name, found in self.moved.items()
        }
