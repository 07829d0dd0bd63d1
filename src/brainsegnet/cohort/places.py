"""Where the results of a cohort are: one folder for each model, with errors and claims in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainsegnet._atomic import unfinished, write_text
from brainsegnet._documents import load_json, read_text
from brainsegnet.cohort import Layout
from brainsegnet.cohort.manifest import Entry
from brainsegnet.errors import DatasetError, ModelError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.model.card import Card

RUN, ERRORS, CLAIMS, LEDGER = "about/cohort.json", "errors", "claims", "ledger.parquet"
PER_FOLDER = 1000


@dataclass(frozen=True)
class Places:
    """Paths of one cohort with one model.

    Attributes:
        folder: Folder of the results: the first 8 digits of the SHA-256 of the model.
        layout: Whether results are in one folder or in folders of 1,000.
    """

    folder: Path
    layout: Layout = "flat"

    def home_of(self, number: int) -> Path:
        """The folder of the results of a case, by its number in the manifest."""
        return self.folder if self.layout == "flat" else self.folder / f"{number // PER_FOLDER:04d}"

    def target_of(self, entry: Entry) -> Path:
        """The label map of a case."""
        return self.home_of(entry.number) / f"{entry.case}.nii.gz"

    def json_of(self, entry: Entry) -> Path:
        """The JSON of a case, which says that it is done."""
        return self.home_of(entry.number) / f"{entry.case}.json"

    def error_of(self, entry: Entry) -> Path:
        """The JSON of a case that failed."""
        return self.folder / ERRORS / f"{entry.case}.json"

    def find_failure(self, entry: Entry) -> float | None:
        """When a case failed, by the clock of the disk; None if it did not, or if it was done since then.

        A result that a case had before it failed stays, and is older.
        """
        try:
            failed = self.error_of(entry).stat().st_mtime_ns
        except OSError:
            return None
        try:
            done = self.json_of(entry).stat().st_mtime_ns
        except OSError:
            done = -1
        return failed / 1e9 if failed >= done else None

    @property
    def claims(self) -> Path:
        """The folder of the claims."""
        return self.folder / CLAIMS

    @property
    def ledger(self) -> Path:
        """The table of all cases."""
        return self.folder / LEDGER


def open_places(out: Path, card: Card, options: SegmentOptions, layout: Layout) -> Places:
    """Where the results go. What the results depend on is written there, or compared with what is there.

    An option that the release did not have which wrote them counts as it is by default.

    Raises:
        ModelError: the model has no hash.
        OutputError: the results that are there were made with other options or lie in another layout.
    """
    if card.weights is None:
        raise ModelError(f"model {card.name} has no hash of its weights; write it again with brainsegnet export")
    places = Places(out / card.weights.sha256[:8], layout)
    asked: dict[str, Any] = {
        "model": {"name": card.name, "sha256": card.weights.sha256},
        "options": options.to_json(),
        "output_layout": layout,
    }
    asked = load_json(json.dumps(asked))
    path = places.folder / RUN
    if not path.exists():
        write_text(json.dumps(asked, indent=2) + "\n", path)
        return places
    known = _read(path)
    before = {**SegmentOptions().to_json(), **known["options"], "output_layout": known["output_layout"]}
    now = {**asked["options"], "output_layout": layout}
    if other := [name for name in now if now[name] != before.get(name)]:
        raise OutputError(
            f"the results in {places.folder} were made with another --{other[0].replace('_', '-')} "
            f"({before.get(other[0])}); use the same, or name another folder with --out"
        )
    return places


def find_places(out: Path) -> list[Places]:
    """The results in the folder of a cohort, one for each model.

    Raises:
        DatasetError: there are none.
    """
    found = [Places(path.parents[1], _read(path)["output_layout"]) for path in sorted(out.glob(f"*/{RUN}"))]
    if not found:
        raise DatasetError(f"{out} has no results of a cohort; begin with brainsegnet cohort run STUDIES --out {out}")
    return found


def read_model(places: Places) -> str:
    """Name of the model of some results. Errors are those of `find_places`."""
    return str(_read(places.folder / RUN)["model"]["name"])


def sweep_after(folder: Path, former: str) -> None:
    """Remove the files that a dead process, of any host, left unfinished in a folder.

    Args:
        folder: Folder of the results.
        former: Host and number of the process, as a claim has them.
    """
    host, process, *_ = (*former.split("~"), "", "")
    for left in unfinished(folder):
        if host and (left.host, str(left.process)) == (host, process):
            left.path.unlink(missing_ok=True)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = load_json(read_text(path))
        if {"model", "options", "output_layout"} <= {*content}:
            return dict(content)
        raise ValueError("it lacks a part")
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; remove it, and run the cohort again") from error
