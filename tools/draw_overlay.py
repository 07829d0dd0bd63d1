"""Draw the picture of overlays in the documentation: a simulated glioma beside a result of the tumour model.

python tools/draw_overlay.py docs/images/overlay.png
"""

import sys
from dataclasses import replace
from pathlib import Path

from brainsegnet import DrawingOptions, Segmenter, SegmentOptions
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.plotting.overlays import overlay_figure
from brainsegnet.plotting.slices import save_figure
from brainsegnet.task import BRATS2021

EXAMPLE = Path(__file__).parents[1] / "examples" / "glioma"
DPI = 110


def draw(picture: Path) -> None:
    """Segment the case of the repository and draw two sequences, the result and the truth in three planes."""
    (files,) = find_cases([EXAMPLE])
    case = load_case(files, BRATS2021.sequences, BRATS2021, lesion=True)
    with Segmenter("tumour", SegmentOptions(device="cpu")) as segmenter:
        result = segmenter(case)
    drawing = DrawingOptions(dpi=DPI)
    named = replace(case, name="Simulated glioma")
    figure = overlay_figure(named, result.labels.array, result.card.task, ["t1c", "flair"], "planes", drawing)
    save_figure(figure, picture, DPI)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
