"""What a page says of a case without telling who the patient is: no name of a case, file, folder or series."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from brainsegnet._atomic import stem_of
from brainsegnet.io.aliases import ORDER
from brainsegnet.io.images import READERS

_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:[\\/]|\.{0,2}[\\/])[^\s,;()'\"]+")
"""What looks like the path of a file."""
THIS_CASE, SOME_FILE = "[case]", "[file]"
PLAIN = frozenset({"", ".", "data", "image", "images", "in", "out", "output", "result", "results", "scans", "study"})
"""Names of folders and files that tell nothing, and that sentences use as words."""


@dataclass(frozen=True)
class Names:
    """The names that a case has, and what stands for each on a page without them.

    Attributes:
        said: Name to what stands for it.
        shown: Whether names are shown all the same.
    """

    said: Mapping[str, str]
    shown: bool = False

    @classmethod
    def of(cls, case: str, result: Path, note: Mapping[str, Any], shown: bool = False) -> "Names":
        """The names in a result and its JSON."""
        said = {case: THIS_CASE, stem_of(result, READERS): THIS_CASE}
        recorded = note.get("inputs")
        for sequence, facts in recorded.items() if isinstance(recorded, dict) else ():
            for name in _list_names(facts if isinstance(facts, dict) else {}):
                said.setdefault(name, str(sequence))
        said |= {str(path): SOME_FILE for path in (result, result.parent, result.resolve(), result.parent.resolve())}
        return cls({name: word for name, word in said.items() if name.casefold() not in {*ORDER, *PLAIN}}, shown)

    def hide(self, text: str) -> str:
        """A sentence with what stands for each name, the longest names first.

        Examples:
            >>> names = Names.of("Doe_J", Path("out/Doe_J.nii.gz"), {"inputs": {"t1": {"path": "../Doe_J/MR 7.nii"}}})
            >>> names.hide("case Doe_J: MR 7.nii is odd (see /data/Doe_J/x.nii), doe_j")
            'case [case]: t1 is odd (see [file]), [case]'
        """
        if self.shown:
            return text
        known = {name.casefold(): word for name, word in self.said.items()}
        for name in sorted(known, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", known[name], text, flags=re.IGNORECASE)
        return _PATH.sub(SOME_FILE, text)


def _list_names(facts: Mapping[str, Any]) -> list[str]:
    """The path, the name of the file with and without its ending, the folder's name, and the name of the series."""
    names = [str(facts["series"])] if facts.get("series") else []
    if isinstance(place := facts.get("path"), str):
        path = PureWindowsPath(place) if "\\" in place else PurePosixPath(place)
        names += [place, path.name, stem_of(Path(path.name), READERS), path.parent.name]
    return [name for name in names if name not in ("", ".", "..")]
