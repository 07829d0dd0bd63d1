"""Colours of tissues in pictures: those of the task, or colours that colour-blind readers tell apart on any grey.

Three of the safe colours are from Okabe and Ito (2008, "Color universal design"): orange, sky blue and yellow. Their
other colours are too dark beside a dark grey. Each safe colour has a relative luminance of at least 0.4, and outlines
have a black edge. So the colour or its edge has a contrast ratio of at least 3 to every grey, as WCAG 2.1 asks of
graphics.
"""

from collections.abc import Mapping
from itertools import cycle

from matplotlib.colors import to_rgb

from brainsegnet.plotting import Palette
from brainsegnet.plotting.slices import Rgb
from brainsegnet.task import Colour, Task

_ORANGE, _SKY_BLUE, _YELLOW, _MINT, _PINK = "#e69f00", "#56b4e9", "#f0e442", "#8ff0a4", "#f5b8e0"
SAFE_COLOURS: tuple[Colour, ...] = (_ORANGE, _SKY_BLUE, _YELLOW, _MINT, _PINK)
"""Colours for tissues in the order of their labels; repeated if there are more tissues."""
SAFE_TISSUES: Mapping[str, Colour] = {
    "necrosis": _ORANGE,
    "oedema": _SKY_BLUE,
    "non-enhancing": _MINT,
    "enhancing": _YELLOW,
    "necrosis + non-enhancing": _ORANGE,
    "infarct": _ORANGE,
}
"""Colours of known tissues."""


def colours(task: Task, palette: Palette = "paper") -> dict[int, Rgb]:
    """Label value to colour of a task as red, green and blue, each 0 to 1.

    The palette `paper` has the colours of the task. In `safe`, a colour that a task file gives stays.

    Examples:
        >>> from brainsegnet.task import ISLES2022
        >>> [round(part, 2) for part in colours(ISLES2022, "safe")[1]]
        [0.9, 0.62, 0.0]
    """
    if palette == "paper":
        return {value: to_rgb(colour) for value, colour in task.colours.items()}
    usual = Task(name=task.name, sequences=task.sequences, labels=task.labels, regions=task.regions).colours
    own = {value: colour for value, colour in task.colours.items() if colour != usual[value]}
    known = {value: SAFE_TISSUES[name] for value, name in task.labels.items() if name in SAFE_TISSUES} | own
    free = cycle([colour for colour in SAFE_COLOURS if colour not in known.values()] or SAFE_COLOURS)
    return {value: to_rgb(known[value] if value in known else next(free)) for value in task.labels}
