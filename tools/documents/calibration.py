"""Tables and diagrams of how well probabilities agree with the truth, and of volume intervals with fewer sequences."""

import json
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from brainsegnet._atomic import write_text
from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from brainsegnet.model.card import CalibrationNote
from brainsegnet.model.store import shipped_models
from brainsegnet.plotting.charts import reliability_figure
from brainsegnet.plotting.slices import render
from brainsegnet.reporting.calibration import calibration_table
from documents.cells import Generated, name_regions, name_sequences
from documents.records import ROOT, Record, read_card, read_result

PICTURES = Path("docs/images")
_MARK = "<!-- drawn from {} -->\n"


def calibration(model: str) -> Generated:
    """The errors of each region, with the diagram, from the card of a shipped model."""
    card = read_card(model)
    notes = {region: CalibrationNote(**note) for region, note in card.data.get("calibration", {}).items()}
    if not notes:
        regions: list[list[Cell]] = [[region, "not measured"] for region in card.data["task"]["regions"]]
        return Generated(Table(text_columns("Region", "Expected calibration error"), regions), [card])
    table = calibration_table(notes)
    cases = f"n = {next(iter(notes.values())).cases} unseen cases, with all sequences."
    label = "Share of true voxels over the predicted probability, a line for each region"
    picture = f"![{label}](../images/{_name(model)})"
    return Generated(replace(table, notes=[cases, *table.notes]), [card], picture)


def elsewhere(result: str) -> Generated:
    """The errors on cases from another source, from a file of `benchmarks/intervals.py`."""
    record = read_result(result)
    notes = {region: CalibrationNote(**note) for region, note in record.data["calibration"].items()}
    cases = f"n = {next(iter(notes.values())).cases} cases; columns as in the table above."
    return Generated(replace(calibration_table(notes), notes=[cases]), [record])


def tumour_interval_subsets() -> Generated:
    """How many intervals hold with fewer sequences, and how wide they are."""
    record = read_result("intervals-tumour")
    count = len(record.data["ml"])
    whole = {"+".join(read_card("tumour").data["input"]["sequences"]): record.data["regions"]}
    rows: list[list[Cell]] = []
    for part, regions in (whole | record.data.get("subsets", {})).items():
        held = [round(found["held"] * count) for found in regions.values()]
        rows.append([name_sequences(part), *held, *(found["width"] for found in regions.values())])
    regions = name_regions(record.data["regions"])
    columns = number_columns(*regions, *(f"{region}, width" for region in regions), form=".2f")
    notes = [
        f"First three columns: of {count} cases left out, how many the interval holds, up to 1 ml.",
        "The intervals come from the other patients, so their rank sets how many are held.",
        "Width: median as a share of the true volume, over cases with more than 1 ml.",
    ]
    return Generated(Table([*text_columns("Sequences"), *columns], rows, notes=notes), [record])


def draw_diagrams(root: Path = ROOT) -> Iterable[Path]:
    """Draw the diagram of each card that has none yet or other figures; names the files, relative to the root."""
    for model, opened in shipped_models().items():
        path = PICTURES / _name(model)
        if opened.card.calibration and not is_current(read_card(model), root / path):
            drawn = render(reliability_figure(opened.card.calibration), "svg").decode("utf-8")
            write_text(drawn + _mark(read_card(model)), root / path)
            yield path


def is_current(card: Record, picture: Path) -> bool:
    """Whether a diagram was drawn from the figures on a card."""
    return picture.exists() and picture.read_text(encoding="utf-8").endswith(_mark(card))


def _name(model: str) -> str:
    return f"calibration-{model}.svg"


def _mark(card: Record) -> str:
    """A comment at the end of a diagram, which names the figures."""
    figures = json.dumps(card.data["calibration"], sort_keys=True)
    return _MARK.format(sha256(figures.encode()).hexdigest()[:16])
