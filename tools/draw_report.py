"""Draw the picture of a report in the documentation: of the simulated glioma of the repository, as a browser shows it.

PYTHONPATH=tools python tools/draw_report.py docs/images/report.png
"""

import sys
import tempfile
from pathlib import Path

from brainsegnet.inference import SegmentOptions
from brainsegnet.pipeline.segment import segment
from brainsegnet.reporting.patient import write_patient_report
from browser import Browser, find_browser
from draw_viewer import EXAMPLE


def draw(picture: Path) -> None:
    """Segment the case, open its report at 1280 pixels, and write what is seen first."""
    program = find_browser()
    if program is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as folder:
        labels, page = Path(folder) / "glioma.nii.gz", Path(folder) / "glioma.html"
        segment(EXAMPLE, "tumour", labels, SegmentOptions(uncertainty=True, device="cpu"))
        write_patient_report(labels, page)
        with Browser(program, Path(folder) / "profile", 1280, 860) as browser:
            browser.open(page)
            browser.wait("document.readyState == 'complete'", 60)
            browser.screenshot(picture)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
