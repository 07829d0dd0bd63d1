"""Where the lesions of a result lie: the brain of the patient, and the atlas brought to it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainsegnet._types import Array, Mask
from brainsegnet.anatomy.atlas import PlacedAtlas, load_atlas
from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.inference.brain import BrainExtractor
from brainsegnet.plotting.packing import mask_head
from brainsegnet.plotting.viewer import Shown
from brainsegnet.volume import Volume

STRIPPED = ("stripped", "stripped, noise around")


@dataclass(frozen=True, eq=False)
class Places:
    """The brain of a patient.

    Attributes:
        brain: Its mask (D, H, W) on the grid of the label map; the head, if no brain is found in it.
        atlas: The atlas in its place; None if it does not fit.
        doubt: A sentence on why there is none; empty if there is one.
    """

    brain: Mask
    atlas: PlacedAtlas | None
    doubt: str = ""

    @property
    def accuracy(self) -> str:
        """How often the atlas was right, as a sentence; empty if that was not tested."""
        if (tested := load_atlas().tested) is None:
            return ""
        side, part, deep = (f"{100 * share:.0f} %" for share in (tested.side, tested.part, tested.deep))
        return (
            f"Of {tested.lesions} balls in label maps of healthy heads left out of the average, the side was right for "
            f"{side}, and the part for {part} ({deep} of the deep ones)."
        )


def find_places(shown: Shown, arrays: Mapping[str, Array]) -> Places:
    """Find the brain in the images (D, H, W) of a result on its grid, and bring the atlas to it."""
    head = mask_head(arrays, shown.labels.spacing_mm)
    try:
        brain = head if _is_stripped(shown) else _extract(shown, arrays)
        return Places(brain, load_atlas().fit(shown.labels.with_labels(brain.astype(np.uint8))))
    except (BrainSegNetError, MemoryError) as error:
        return Places(head, None, f"The places of the lesions are not told: {error or 'there is not enough memory'}.")


def _is_stripped(shown: Shown) -> bool:
    """Whether the images show a brain without its skull. A label map without a JSON is taken for one of such images."""
    brain = shown.note.get("brain")
    states = brain.get("skull") if isinstance(brain, dict) else None
    return not isinstance(states, dict) or all(state in STRIPPED for state in states.values())


def _extract(shown: Shown, arrays: Mapping[str, Array]) -> Mask:
    """The brain on the grid of the label map, in the first sequence that shows one."""
    extractor, defects = BrainExtractor(), []
    for name, array in arrays.items():
        found = extractor(Volume(array, shown.labels.affine))
        if found.is_brain:
            return found.mask_on(shown.labels)
        defects.append(f"{name}: {found.defect}")
    raise ImageError(f"no brain was found ({'; '.join(defects)})")
