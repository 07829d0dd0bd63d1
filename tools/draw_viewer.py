"""Draw the picture of the viewer in the documentation: the simulated glioma of the repository, as a browser shows it.

PYTHONPATH=tools python tools/draw_viewer.py docs/images/viewer.png
"""

import sys
import tempfile
from pathlib import Path

from brainsegnet.inference import SegmentOptions
from brainsegnet.pipeline.segment import segment
from brainsegnet.plotting.result import view
from browser import Browser, find_browser

EXAMPLE = Path(__file__).parents[1] / "examples" / "glioma"


def draw(picture: Path) -> None:
    """Segment the case, open its page at 1280 pixels, and write what is seen."""
    program = find_browser()
    if program is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as folder:
        labels, page = Path(folder) / "glioma.nii.gz", Path(folder) / "glioma.html"
        segment(EXAMPLE, "tumour", labels, SegmentOptions(uncertainty=True, device="cpu"))
        view(labels, page)
        with Browser(program, Path(folder) / "profile", 1280, 800) as browser:
            browser.open(page)
            browser.wait("window.viewer && viewer.loaded", 60)
            browser.press("3")
            browser.settle()
            browser.screenshot(picture)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
