"""Tables and diagrams of the calibration of the shipped models."""

import json

import pytest

from brainsegnet.model.store import Model, shipped_models
from documents import calibration as pages
from documents.records import ROOT, Record, read_card


@pytest.fixture
def measured(calibration, monkeypatch):
    """As if the card of the model of tumours held a calibration; a function that changes it."""
    record, model = read_card("tumour"), shipped_models()["tumour"]

    def change(**fields):
        note = calibration.model_copy(update=fields)
        data = record.data | {"calibration": {"whole": json.loads(note.model_dump_json())}}
        card = model.card.model_copy(update={"calibration": {"whole": note}})
        monkeypatch.setattr(pages, "read_card", lambda name: Record(record.path, data, record.date))
        monkeypatch.setattr(pages, "shipped_models", lambda: {"tumour": Model(model.folder, card)})

    change()
    return change


def test_the_diagram_of_every_shipped_card_is_current():
    for name, model in shipped_models().items():
        if model.card.calibration:
            picture = ROOT / pages.PICTURES / f"calibration-{name}.svg"
            assert pages.is_current(read_card(name), picture), f"run `make tables` to draw {picture.name}"


def test_a_page_shows_the_errors_and_the_diagram(measured):
    text = pages.calibration("tumour").to_markdown()
    assert "| whole  | 0.100 |   0.120 |" in text and "n = 4 unseen cases" in text
    assert text.endswith("](../images/calibration-tumour.svg)\n")


def test_a_model_without_a_calibration_says_so(monkeypatch):
    record = read_card("tumour")
    data = {key: value for key, value in record.data.items() if key != "calibration"}
    monkeypatch.setattr(pages, "read_card", lambda name: Record(record.path, data, record.date))
    made = pages.calibration("tumour")
    assert [row[1] for row in made.table.rows] == ["not measured"] * 3 and not made.picture


def test_a_diagram_is_drawn_once_and_again_when_the_figures_change(measured, tmp_path):
    drawn = [pages.PICTURES / "calibration-tumour.svg"]
    assert list(pages.draw_diagrams(tmp_path)) == drawn and not list(pages.draw_diagrams(tmp_path))
    first = (tmp_path / drawn[0]).read_bytes()
    measured(error=0.2)
    assert list(pages.draw_diagrams(tmp_path)) == drawn and (tmp_path / drawn[0]).read_bytes() != first
