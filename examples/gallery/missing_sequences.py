"""Any subset of the sequences.

One model segments one simulated glioma with four sequences, with two, and with one. FLAIR alone shows the whole tumour
and not its enhancing part. T1c alone is not enough for this model, so it needs `allow_poor`.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from brainsegnet import Segmenter
from brainsegnet.io.images import read_image, read_labels
from brainsegnet.metrics.scores import score_case
from brainsegnet.plotting.overlays import overlay, spelt
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import arrange

GLIOMA = Path(__file__).parents[1] / "glioma"
SUBSETS = (("flair", "t1", "t1c", "t2"), ("flair", "t1c"), ("flair",), ("t1c",))


def main(out: Path) -> None:
    """Draw the picture into the folder `out`."""
    truth = read_labels(GLIOMA / "lesion.nii.gz")
    figure = Figure(figsize=(12, 4.2), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.1)
    with Segmenter("tumour", allow_poor=True) as segment:
        for axes, subset in zip(figure.subplots(1, len(SUBSETS)), SUBSETS, strict=True):
            images = {name: read_image(GLIOMA / f"{name}.nii.gz") for name in subset}
            result = segment(images)
            scores = score_case(result.labels.array, truth.array, result.card.task, truth.spacing_mm)
            shown = images.get("t1c", result.case.reference)
            scene = arrange(shown, [truth.array], "slice")
            grey, labels = (scene.views[0].cut(x) for x in (scene.grey(shown), scene.turn(result.labels.array)))
            axes.imshow(overlay(grey, labels, colours(result.card.task)), interpolation="bicubic")
            line = f"Dice: whole {scores['whole'].dice:.2f}, enhancing {scores['enhancing'].dice:.2f}"
            axes.set_title(f"{', '.join(map(spelt, subset))}\n{line}", color="white", fontsize=11)
            axes.set_axis_off()
    figure.savefig(out / "missing_sequences.webp", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
