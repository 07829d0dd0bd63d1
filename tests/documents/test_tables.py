"""The generated parts of the pages are what their sources give, and every table is used."""

import re
from importlib.util import find_spec

import numpy as np
import pytest

from brainsegnet.cli.app import app
from brainsegnet.metrics.statistics import find_intervals
from documents import accuracy, speed, training
from documents.cells import DASH, describe_mean, name_sequences, spread_note
from documents.command_line import describe_verb, find_verbs, read_help
from documents.pages import (
    COMMAND_LINE,
    UnknownTableError,
    fill_tables,
    find_changes,
    find_pages,
    make_pages,
    names_in,
    write_pages,
)
from documents.records import ROOT, describe_machine, read_card, read_result
from documents.tables import TABLES

needs_docs = pytest.mark.skipif(
    not find_spec("mkdocs"), reason="the pages are made with the versions that the extra docs brings"
)
EMPTY = "# Page\n\n<!-- table: {} -->\n<!-- /table -->\n\nWords.\n"


@needs_docs
def test_the_generated_parts_of_the_pages_are_up_to_date():
    changed = find_changes(make_pages())
    assert not changed, f"{', '.join(map(str, changed))} would read differently; run `make tables`"


def test_every_table_is_used():
    used = {name for page in find_pages() for name in names_in((ROOT / page).read_text(encoding="utf-8"))}
    assert not set(TABLES) - used, "no page shows these tables; remove them from documents.tables or show them"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_narrow_and_names_its_sources(name):
    made = TABLES[name]()
    lines = made.to_markdown().splitlines()
    assert 2 <= len(made.table.columns) <= 7
    assert set(lines[1]) <= set("|-: ") and all("-" in cell for cell in lines[1].strip("|").split("|"))
    assert all((ROOT / record.path).exists() and record.date for record in made.records)
    assert all(record.machine or record.path.name == "card.json" for record in made.records)
    for record in made.records:
        assert f"`{record.path.as_posix()}`" in made.to_markdown()


@pytest.mark.parametrize("name", TABLES)
def test_no_word_of_a_table_is_private(name):
    assert not {"grown", "islands", "peers"} & set(TABLES[name]().to_markdown().lower().split())


def test_filling_twice_changes_nothing_and_keeps_the_words():
    once = fill_tables(EMPTY.format("headline"), "page.md")
    assert fill_tables(once, "page.md") == once
    assert "Perfusion" in once and once.startswith("# Page\n") and once.endswith("Words.\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (EMPTY.format("no-such"), "no table 'no-such'"),
        ("<!-- table: headline -->\n", "no partner"),
        ("<!-- /table -->\n", "no partner"),
        ("<!-- table: headline -->\n<!-- table: int8 -->\n<!-- /table -->\n", "no partner"),
    ],
)
def test_unknown_names_and_lonely_markers_are_refused(text, why):
    with pytest.raises(UnknownTableError, match=why):
        fill_tables(text, "page.md")


@needs_docs
def test_pages_are_written_whole_and_lab_notes_are_left_alone(tmp_path):
    for page in ("README.md", "docs/a/b.md", "docs/lab-notes/old.md"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text(EMPTY.format("int8"))
    pages = make_pages(tmp_path)
    assert {path.as_posix() for path in pages} == {"README.md", "docs/a/b.md", COMMAND_LINE.as_posix()}
    assert list(write_pages(find_changes(pages, tmp_path), tmp_path)) == list(pages)
    assert not find_changes(make_pages(tmp_path), tmp_path)
    assert (tmp_path / "docs/lab-notes/old.md").read_text() == EMPTY.format("int8")


def test_means_have_an_interval_from_six_cases_up_and_a_range_below():
    values = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9]
    ((low, high),) = find_intervals(np.array(values)[:, None])
    assert describe_mean(values) == f"0.60 [{low:.2f}{DASH}{high:.2f}]"
    assert describe_mean(values[1:]) == f"0.70 (0.50{DASH}0.90)"
    assert "bootstrap" in spread_note(6) and "lowest" in spread_note(5)


def test_the_headline_agrees_with_the_cards():
    left_out, independent, stroke, perfusion = accuracy.headline().table.rows
    for row, model in ((left_out, "tumour"), (stroke, "stroke")):
        means = [f"{score:.2f}" for score in read_card(model).data["training"]["scores"].values()]
        assert [cell[:4] for cell in row[2:5] if cell] == means
        assert row[0].startswith(f"{model.capitalize()}: ") and row[1] == "yes, in choice"
    assert independent[1] == "only in choice" and "(" in independent[2] and "[" in left_out[2]
    for row, name in zip(
        (left_out, independent, stroke), ("tumour-brats2021", "tumour-brats2015", "stroke-isles2022"), strict=True
    ):
        assert row[-1] == pytest.approx(read_result(f"shipped-{name}").data["median_seconds"], abs=1e-3)
    assert perfusion[2:] == ["not measured", None, None, None]


def test_cases_fall_into_two_groups_by_their_enhancing_tissue():
    rows = accuracy.tumour_by_enhancement().table.rows
    assert sum(row[1] for row in rows) == len(read_result("left-out-tumour").data["dice"])
    assert float(rows[0][-1].split(" ")[0]) > float(rows[1][-1].split(" ")[0])


def test_the_means_of_the_components_are_those_of_the_card():
    first, second, _ = accuracy.tumour_components().table.rows
    card = read_card("tumour").data
    assert first[1:] == list(card["components"]["kept"]["flair+t1+t1c+t2"].values())
    assert second[1:] == list(card["presence"]["without"].values()), "the table is without the decision"


def test_subsets_are_named_as_papers_write_them():
    assert name_sequences("flair+t1+t1c+t2") == "FLAIR, T1, T1c, T2"
    assert len(accuracy.tumour_subsets().table.rows) == 15
    assert len(accuracy.stroke_subsets().table.rows) == 3
    assert [row[0].count(",") for row in accuracy.perfusion_subsets().table.rows] == [5] + 6 * [4] + 6 * [0]


def test_few_shot_rows_gather_all_folds_and_go_from_few_cases_to_all():
    rows = training.tumour_few_shot().table.rows
    assert [row[0] for row in rows] == ["0", "1", "1", "2", "2", "4", "4", "all", "all"]
    for comparison in read_card("tumour").data["training"]["comparisons"]:
        count = "all" if comparison["real_cases"] is None else str(comparison["real_cases"])
        minutes = comparison["budget"].get("minutes")
        label = comparison["origin"] + (f", {minutes:g} min" if minutes else "")
        (row,) = (row for row in rows if row[:2] == [count, label])
        whole = comparison["subsets"]["flair+t1+t1c+t2"]["whole"]
        assert row[2].startswith(f"{whole:.2f} [")


def test_means_of_networks_are_those_of_the_benchmark():
    models = read_result("against-four-sequences").data["models"]
    for row in training.benchmark_four_sequences().table.rows:
        (name,) = (name for name, label in training.NETWORKS.items() if label == row[0])
        assert [cell[:4] for cell in row[2:]] == [
            f"{models[name]['dice'][r]['mean']:.2f}" for r in models[name]["dice"]
        ]


def test_a_network_in_torch_stands_in_the_column_of_floats():
    rows = {row[0]: row[1:] for row in speed.speed_vnni().table.rows}
    assert rows["UNet, sliding window in torch"][0] is None
    assert rows["UNet, sliding window in torch"][1].startswith("74 ")


def test_processors_are_named_in_words():
    assert describe_machine("AMD EPYC (avx512_bf16), 2 cores") == "2 cores of an AMD EPYC with AVX-512 VNNI and BF16"
    assert describe_machine("") == ""


SEGMENTING = {("segment",), ("follow",), ("cohort", "run"), ("cohort", "sbatch"), ("bids",)}
SWITCHED_OFF = {"--no-register", "--no-extract-brain", "--no-presence-check"}


@needs_docs
@pytest.mark.parametrize("verb", list(find_verbs(app)), ids=" ".join)
def test_the_page_has_every_option_of_a_verb_with_its_example(verb):
    section = describe_verb(verb)
    for entry in read_help(verb).entries:
        assert all(label in section for label in entry.display_labels)
    assert "```sh\nbrainsegnet " in section
    flags = set(re.findall(r"`(--no-[a-z-]+)`", section))
    assert flags == (SWITCHED_OFF if verb in SEGMENTING else set())
    assert "--empty-" not in section  # a flag that the program does not take


@needs_docs
def test_choices_defaults_and_what_is_required_are_told():
    section = describe_verb(("segment",))
    assert "Choices: `auto`, `cpu`, `cuda`. Default: `auto`." in section.replace("\n  ", " ")
    assert "- `--task STR` (required):" in describe_verb(("train",))
    assert app.help_formatter is None  # as it was before the page was made
