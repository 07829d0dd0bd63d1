"""A follow-up finds what grew, appeared and vanished in a patient who moved, and refuses two patients."""

import csv
import json
from datetime import date

import numpy as np
import pytest

from brainsegnet._atomic import OutputOptions, stem_of
from brainsegnet.errors import DatasetError, ImageError, ModelError, OutputError
from brainsegnet.followup import FollowOptions, retest
from brainsegnet.followup.drawing import LEAST_ML, arrange_studies, choose_levels
from brainsegnet.followup.follow import NOTE, PAGE, ROWS, follow
from brainsegnet.followup.studies import order, read_study, require_one_patient
from brainsegnet.io.dicom import read_studies
from brainsegnet.task import BRATS2023
from dicom_writer import SEQUENCES, describe, write_slices

LEFT, RIGHT, BACK = (30.0, 10.0, 5.0), (-30.0, -10.0, 10.0), (5.0, 45.0, -10.0)
HALF_A_MM = retest.Repeat(mm=0.5, share=0.0, coverage=0.95, pairs=100, patients=10)


@pytest.fixture(autouse=True)
def half_a_mm(monkeypatch):
    """Repeats of all measures that keep to half a millimetre."""
    regions = dict.fromkeys(("whole", "core", "enhancing"), HALF_A_MM)
    keys = ("volumes", "lesions", "diameters", "appearing")
    note = retest.RetestNote(sha256="x", date="2026-01-01", **dict.fromkeys(keys, regions))
    monkeypatch.setattr("brainsegnet.followup.compare.read_notes", lambda: {"tumour": note})


def ball_ml(radius):
    return 4 / 3 * np.pi * radius**3 / 1000


def whole(timeline):
    return [track for track in timeline.tracks if track.region == "whole"]


def test_what_grew_appeared_and_vanished_is_found_with_its_volume(make, motion, tmp_path):
    first = make("first", [(LEFT, 10, 4), (RIGHT, 8, 4), (BACK, 9, 4)])
    second = make("second", [(LEFT, 13, 4), (RIGHT, 8, 4), ((-5, -50, 0), 7, 4)], motion())
    timeline = follow([first, second], tmp_path / "out")
    found = {tuple(step.status for step in track.steps): track for track in whole(timeline)}
    assert found.keys() == {("grown",), ("stable",), ("vanished",), ("new",)}
    for status, before, after in (("grown", 10, 13), ("stable", 8, 8), ("vanished", 9, 0), ("new", 0, 7)):
        assert found[(status,)].volumes_ml == pytest.approx((ball_ml(before), ball_ml(after)), rel=0.05)
    assert found[("grown",)].diameters_mm[1][0] == pytest.approx(26, abs=2)
    assert found[("grown",)].steps[0].diameter.verdict == "grown"
    moved = timeline.placed[1].registration
    corners = np.array([[60, 70, 60, 1], [-60, -70, -60, 1.0]]).T
    assert np.abs((moved.matrix - motion()) @ corners).max() < 1


@pytest.mark.parametrize("degrees", [-9.0, 4.0, 9.0])
def test_a_study_against_itself_moved_shows_no_change(make, motion, tmp_path, degrees):
    balls = [(LEFT, 12, 2), (LEFT, 8, 4), (RIGHT, 6, 4)]
    results = [make("a", balls), make("b", balls, motion(degrees))]
    timeline = follow(results, tmp_path / "out")
    assert {change.verdict for changes in timeline.since_first.values() for change in changes} == {"stable"}
    assert {step.status for track in timeline.tracks for step in track.steps} == {"stable"}


def test_lesions_that_merge_and_split_are_one_row(make, motion, tmp_path):
    apart = [((20.0, 0, 0), 8, 4), ((40.0, 0, 0), 8, 4)]
    joined = [*apart, ((30.0, 0, 0), 12, 4)]
    timeline = follow([make("a", apart), make("b", joined, motion()), make("c", apart)], tmp_path / "out")
    (track,) = whole(timeline)
    assert [step.kind for step in track.steps] == ["merged", "split"]
    assert [len(found) for found in track.lesions] == [2, 1, 2]
    assert [change.verdict for change in timeline.since_first["whole"]] == ["grown", "stable"]
    assert [change.verdict for change in timeline.since_previous["whole"]] == ["grown", "shrunk"]


def test_a_study_in_other_voxels_is_measured_in_its_own_and_warned_of(make, motion, tmp_path):
    thick = make("thick", [(LEFT, 12, 4)], motion(), spacing=(6.0, 1.5, 1.5))
    timeline = follow([make("first", [(LEFT, 12, 4)]), thick], tmp_path / "out")
    assert timeline.volumes["whole"] == pytest.approx([ball_ml(12)] * 2, rel=0.05)
    assert whole(timeline)[0].steps[0].kind == "same"
    assert any("slices are 6.0 mm apart" in warning for warning in timeline.warnings)
    assert any("another version of model" in warning for warning in timeline.warnings)


def rule_out(result, kept):
    """Write into the JSON of a result that enhancing tissue was ruled out, or kept."""
    path = result.with_name(f"{stem_of(result, ('.nii.gz',))}.json")
    decided = {"tissue": "enhancing", "probability": 0.4, "kept": kept, "becomes": "core", "marked_ml": 1.3}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"presence": decided}))


@pytest.mark.parametrize(("kept", "warned"), [((True, False), 1), ((False, False), 0), ((True, True), 0)])
def test_a_tissue_that_is_ruled_out_in_one_study_alone_is_warned_of(make, motion, tmp_path, kept, warned):
    results = [make("a", [(LEFT, 10, 4)]), make("b", [(LEFT, 10, 4 if kept[1] else 1)], motion())]
    for result, stays in zip(results, kept, strict=True):
        rule_out(result, stays)
    said = [one for one in follow(results, tmp_path / "out").warnings if "no enhancing tissue" in one]
    assert len(said) == warned and all("study 2" in one and "1.3 ml" in one for one in said)


def test_files_hold_the_same_and_the_page_hides_names(make, motion, tmp_path):
    results = [make("Doe_Jane", [(LEFT, 10, 4)]), make("Doe_Jane_later", [(LEFT, 14, 4)], motion())]
    follow(results, tmp_path / "out")
    note, page = json.loads((tmp_path / "out" / NOTE).read_text()), (tmp_path / "out" / PAGE).read_text()
    rows = list(csv.DictReader((tmp_path / "out" / ROWS).open()))
    assert [study["name"] for study in note["studies"]] == ["Doe_Jane", "Doe_Jane_later"]
    change = note["regions"]["whole"]["since_first"][0]
    assert change["verdict"] == "grown" and change["interval"][0] < change["before"] < change["interval"][1]
    row = next(row for row in rows if row["kind"] == "region" and row["region"] == "whole" and row["study"] == "2")
    assert float(row["volume_ml"]) == pytest.approx(change["after"]) and row["status"] == "grown"
    assert "Doe" not in page and "study 2: case [case]: looks odd" in page and "grown" in page
    follow(results, tmp_path / "named", asked=FollowOptions(identify=True))
    assert "Doe_Jane_later" in (tmp_path / "named" / PAGE).read_text()


def test_the_same_studies_give_the_same_files(make, motion, tmp_path):
    results = [make("a", [(LEFT, 10, 4)]), make("b", [(LEFT, 12, 4), (RIGHT, 4, 4)], motion())]
    for name in ("one", "two"):
        follow(results, tmp_path / name)
    for name in (PAGE, NOTE, ROWS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_model_without_repeats_is_not_judged(make, tmp_path):
    results = [make(name, [(LEFT, radius, 4)], model="mine") for name, radius in (("a", 8), ("b", 14))]
    timeline = follow(results, tmp_path / "out")
    assert timeline.since_first["whole"][0].verdict == "not known" and timeline.since_first["whole"][0].interval is None
    assert "no change is judged" in timeline.warnings[0]


def test_studies_without_lesions_are_stable(make, motion, tmp_path):
    timeline = follow([make("a", []), make("b", [], motion())], tmp_path / "out")
    assert not timeline.tracks and timeline.since_first["whole"][0].verdict == "stable"


def test_too_little_in_common_is_refused_unless_told(make, tmp_path, monkeypatch):
    monkeypatch.setattr("brainsegnet.followup.compare.LEAST_SHARED", 2.0)  # no images share so much
    results = [make("a", [(LEFT, 10, 4)]), make("b", [(LEFT, 10, 4)])]
    with pytest.raises(DatasetError, match=r"hardly of one patient.*--same-patient"):
        follow(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert follow(results, tmp_path / "out", asked=FollowOptions(same_patient=True)).tracks


def test_two_patients_by_their_names_are_refused(make, tmp_path):
    results = [make(f"BraTS-GLI-0000{number}-000", [(LEFT, 10, 4)]) for number in (1, 2)]
    with pytest.raises(DatasetError, match="two patients by their names"):
        follow(results, tmp_path / "out")
    same = [make(f"BraTS-GLI-00003-00{number}", [(LEFT, 10, 4)]) for number in (1, 2)]
    require_one_patient([read_study(result) for result in same])


def test_one_study_twice_the_same_and_two_models_are_refused(make, tmp_path):
    a, b = make("a", [(LEFT, 10, 4)]), make("b", [(LEFT, 10, 4)], sha256="0" * 64)
    c = make("c", [(LEFT, 10, 3)], task=BRATS2023)
    with pytest.raises(DatasetError, match="there is one study, a;"):
        follow([a], tmp_path / "out")
    with pytest.raises(DatasetError, match="given twice"):
        follow([a, a], tmp_path / "out")
    for other in (b, c):
        with pytest.raises(ModelError, match="two models made the results"):
            follow([a, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_exists_is_kept_unless_told_and_a_file_is_no_place(make, tmp_path):
    results = [make(name, [(LEFT, 10, 4)]) for name in ("a", "b")]
    follow(results, tmp_path / "out")
    with pytest.raises(OutputError, match="overwrite"):
        follow(results, tmp_path / "out")
    follow(results, tmp_path / "out", output=OutputOptions(overwrite=True))
    with pytest.raises(DatasetError, match="names a file"):
        follow(results, tmp_path / "page.html")


def test_an_image_that_is_gone_is_one_sentence(make, tmp_path):
    results = [make(name, [(LEFT, 10, 4)]) for name in ("a", "b")]
    for image in ("flair", "t1c"):
        (results[1].parent / f"{image}.nii.gz").unlink()
    with pytest.raises(ImageError, match="give follow the study itself"):
        follow(results, tmp_path / "out")


def test_studies_are_ordered_by_date_only_if_all_have_one(make):
    from dataclasses import replace

    a, b = (read_study(make(name, [])) for name in ("a", "b"))
    late, early = replace(a, day=date(2026, 5, 1)), replace(b, day=date(2025, 5, 1))
    assert [study.name for study in order([late, early])[0]] == ["b", "a"]
    assert [study.name for study in order([late, b])[0]] == ["a", "b"] and "as given" not in order([late, early])[1]


def test_headers_tell_two_patients_apart_without_naming_them(raw_heads, tmp_path):
    hashes = []
    for number, patient in enumerate(("1", "1", "2")):
        folder = tmp_path / str(number)
        write_slices(raw_heads["flair"], folder, describe(PatientID=patient, **SEQUENCES["flair"]))
        hashes += [read_studies(folder)[0].series[0].hash_patient()]
    assert hashes[0] == hashes[1] != hashes[2] and all(len(one) == 64 for one in hashes)


def test_a_corrected_study_is_told(make, motion, tmp_path):
    first, second = make("first", [(LEFT, 10, 4)]), make("second", [(LEFT, 10, 4)], motion())
    place = second.with_name(f"{stem_of(second)}.json")
    place.write_text(json.dumps(json.loads(place.read_text()) | {"corrected": True}))
    timeline = follow([first, second], tmp_path / "out")
    assert [said for said in timeline.warnings if said.startswith("study 2 was corrected by hand")]
    assert not [said for said in timeline.warnings if said.startswith("study 1")]


def test_lesions_that_the_page_omits_are_not_drawn(make, motion, tmp_path):
    """A ball of 2 mm has 0.03 ml; it vanishes, but a picture of it would show nothing."""
    studies = [make("first", [(LEFT, 10, 4), (BACK, 2, 4)]), make("second", [(LEFT, 10, 4)], motion())]
    timeline = follow(studies, tmp_path / "out")
    assert min(max(track.volumes_ml) for track in whole(timeline)) < LEAST_ML
    drawn = choose_levels(timeline, arrange_studies(timeline), 9)
    assert drawn and all(max(level.track.volumes_ml) >= LEAST_ML for level in drawn)
