"""A glioma, segmented.

Four sequences of a simulated glioma, the labels that the model `tumour` finds, and the truth, in three planes.
"""

import sys
from pathlib import Path

from brainsegnet import Segmenter
from brainsegnet.io.images import read_labels
from brainsegnet.plotting.overlays import overlay_figure
from brainsegnet.volume import Case

GLIOMA = Path(__file__).parents[1] / "glioma"


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    with Segmenter("tumour") as segment:
        result = segment({name: GLIOMA / f"{name}.nii.gz" for name in segment.sequences}, "simulated glioma")
    case = Case(result.name, result.case.images, read_labels(GLIOMA / "lesion.nii.gz"))
    figure = overlay_figure(case, result.labels.array, result.card.task)
    figure.savefig(out / "segment_glioma.webp", dpi=80, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
