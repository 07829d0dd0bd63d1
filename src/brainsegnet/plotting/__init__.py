"""Pictures: slices, overlays, charts, and the page to scroll through. This file holds the options of overlays.

It loads no heavy library.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from brainsegnet.errors import OutputError

Palette = Literal["safe", "paper"]
ViewerName = Literal["canvas", "niivue"]
LEAST_DPI, MOST_DPI = 30, 1200


@dataclass(frozen=True)
class DrawingOptions:
    """How labels are drawn over a scan.

    The fields are options of `brainsegnet segment --picture` and `brainsegnet paper figure`.

    Raises:
        OutputError: the palette is unknown, or the resolution is out of range.

    Examples:
        >>> DrawingOptions(outline=True).palette is None
        True
    """

    palette: Palette | None = None
    """Colours of the tissues: safe differ also for colour-blind readers, and are seen on every grey; paper has those of
    the paper, with enhancing in white. By default safe for pictures, and paper for figures of the paper."""
    outline: bool = False
    "Draw the outlines of the tissues alone, so that the scan is seen inside. By default they are filled too."
    dpi: int | None = None
    "Resolution in dots per inch; by default 150 for pictures, and 300 for figures of the paper."

    def __post_init__(self) -> None:
        if self.palette is not None and self.palette not in get_args(Palette):
            raise OutputError(f"unknown palette {self.palette!r}; choose one of {', '.join(get_args(Palette))}")
        if self.dpi is not None and not LEAST_DPI <= self.dpi <= MOST_DPI:
            raise OutputError(f"the resolution of a picture is {LEAST_DPI} to {MOST_DPI} dpi, not {self.dpi}")
