"""The BIDS App: what it writes, judged by the official validator where that is installed; and what it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brainsegnet.cohort import BidsOptions
from brainsegnet.cohort.bids import find_visits, list_visits, run_participants
from brainsegnet.cohort.bids_tables import write_tables
from brainsegnet.cohort.derivatives import Derivatives
from brainsegnet.errors import DatasetError, OutputError, UsageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.progress import Callback
from brainsegnet.reporting import ReportOptions

SUFFIXES = {"flair": "FLAIR", "t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w"}
PLACES = (("sub-01",), ("sub-02", "ses-a"), ("sub-02", "ses-b"))
OPTIONS = SegmentOptions(probabilities=True, uncertainty=True, device="cpu", threads=1)
PLACED = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
VALIDATOR = os.environ.get("BIDS_VALIDATOR") or shutil.which("bids-validator-deno", path=PLACED)


def describe(folder: Path) -> None:
    about = {"Name": "Phantoms", "BIDSVersion": "1.10.0", "DatasetDOI": "doi:10.0000/phantoms"}
    (folder / "dataset_description.json").write_text(json.dumps(about), encoding="utf-8")


@pytest.fixture(scope="session")
def raw(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS data set: a participant without sessions, and one with two; to be read only."""
    top = tmp_path_factory.mktemp("bids") / "raw"
    for case, place in zip(find_cases([phantoms]), PLACES, strict=True):
        for sequence, path in case.images.items():
            name = f"{'_'.join(place)}_{SUFFIXES[sequence]}.nii.gz"
            write_image(read_image(path), top.joinpath(*place, "anat", name))
    describe(top)
    return top


@pytest.fixture(scope="session")
def done(raw: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The derivatives of it, both levels; to be read only."""
    out = tmp_path_factory.mktemp("bids") / "brainsegnet"
    assert not run_participants(raw, out, trained, None, OPTIONS).failures
    write_tables(raw, out)
    return out


@pytest.fixture
def copied(raw: Path, tmp_path: Path) -> Path:
    """A copy of the data set, which a test may change."""
    return Path(shutil.copytree(raw, tmp_path / "raw"))


def validate(folder: Path) -> list[dict[str, str]]:
    """The errors that the official validator finds."""
    if VALIDATOR is None:
        pytest.skip("bids-validator-deno is not installed; it is in the extra dev, or name it in BIDS_VALIDATOR")
    ended = subprocess.run([VALIDATOR, str(folder), "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(ended.stdout)["issues"]["issues"]
    errors = [issue for issue in issues if issue["severity"] == "error"]
    assert bool(ended.returncode) == bool(errors)
    return errors


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_official_validator_finds_no_error(done):
    assert validate(done) == []


def test_the_official_validator_finds_a_wrong_name(done, tmp_path):
    folder = shutil.copytree(done, tmp_path / "wrong")
    found = next(folder.rglob("sub-01*_dseg.nii.gz"))
    found.rename(found.with_name("sub-01_lesions.nii.gz"))
    assert validate(folder)


def test_every_visit_has_its_label_map_table_brain_and_probabilities(done):
    stems = [Path(*place, "anat", f"{'_'.join(place)}_space-orig").as_posix() for place in PLACES]
    labels = ("BG", "Necrosis", "Oedema", "NonEnhancing", "Enhancing")
    endings = [f"seg-tumour_dseg{end}" for end in (".json", ".nii.gz", ".tsv")] + ["seg-tumour_entropy.nii.gz"]
    endings += [f"desc-brain_mask{end}" for end in (".json", ".nii.gz")]
    endings += [f"seg-tumour_label-{label}_probseg{end}" for label in labels for end in (".json", ".nii.gz")]
    tops = [".bidsignore", "README.md", "dataset_description.json"]
    tables = [f"group_tumour_volumes{end}" for end in (".json", ".tsv")]
    assert names(done) == sorted([*tops, *tables, *(f"{stem}_{end}" for stem in stems for end in endings)])


def test_the_images_lie_on_the_grid_of_the_scan_that_the_json_names(done, raw):
    for path in done.rglob("*_dseg.nii.gz"):
        note = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
        scan = read_image(raw / note["SpatialReference"].removeprefix("bids:raw:"))
        mask = read_labels(next(path.parent.glob("*_mask.nii.gz")))
        labels = read_labels(path)
        assert labels.on_grid_of(scan) and mask.on_grid_of(scan)
        assert np.array_equal(mask.array, scan.array > 0)  # phantoms have no skull
        assert len(note["Sources"]) == 4 and all((raw / one.split(":")[2]).is_file() for one in note["Sources"])


def test_the_images_are_those_of_segment(done, segmented):
    found = sorted(done.rglob("*_dseg.nii.gz"))
    for path, other in zip(found, sorted(segmented.glob("phantom????.nii.gz")), strict=True):
        assert np.array_equal(read_labels(path).array, read_labels(other).array)
        soft = read_image(path.with_name(path.name.replace("_dseg", "_label-Oedema_probseg")))
        assert np.array_equal(soft.array, read_image(other.with_name(other.name.replace(".", "_oedema.", 1))).array)


def test_the_table_of_labels_names_every_value(done):
    with next(done.rglob("*_dseg.tsv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["index"], row["abbreviation"]) for row in rows][:2] == [("0", "BG"), ("1", "Necrosis")]
    assert len(rows) == 5 and all(row["color"].startswith("#") for row in rows)


def test_the_description_names_the_source(done):
    about = json.loads((done / "dataset_description.json").read_text(encoding="utf-8"))
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "brainsegnet"
    assert (done / about["DatasetLinks"]["raw"] / "sub-01").is_dir()
    assert about["SourceDatasets"][0]["DOI"] == "doi:10.0000/phantoms"


def test_authors_and_notes_of_the_user_stay(raw, tmp_path):
    Derivatives(raw, tmp_path).begin()
    path, notes = tmp_path / "dataset_description.json", tmp_path / "README.md"
    about = json.loads(path.read_text(encoding="utf-8")) | {"Authors": ["A", "B"], "Name": "Ours", "GeneratedBy": []}
    path.write_text(json.dumps(about | {"GeneratedBy": [{"Name": "brainsegnet", "Version": "0"}]}), encoding="utf-8")
    notes.write_text("ours", encoding="utf-8")
    Derivatives(raw, tmp_path).begin()
    now = json.loads(path.read_text(encoding="utf-8"))
    assert (now["Authors"], now["Name"], notes.read_text(encoding="utf-8")) == (["A", "B"], "Ours", "ours")
    assert now["GeneratedBy"][0]["Version"] != "0"


def test_the_table_of_the_group_has_the_volumes_of_each_json(done):
    with (done / "group_tumour_volumes.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["participant_id"], row["session_id"]) for row in rows] == [
        ("sub-01", "n/a"), ("sub-02", "ses-a"), ("sub-02", "ses-b")
    ]  # fmt: skip
    for row, path in zip(rows, sorted(done.rglob("*_dseg.json")), strict=True):
        note = json.loads(path.read_text(encoding="utf-8"))
        assert float(row["whole_ml"]) == note["volumes_ml"]["regions"]["whole"]
        interval = note["uncertainty"]["volume_intervals"]["whole"]
        assert float(row["whole_least_ml"]) == interval["least_ml"] and row["model"] == note["model"]["name"]
    sidecar = json.loads((done / "group_tumour_volumes.json").read_text(encoding="utf-8"))
    assert {*rows[0]} <= {*sidecar}


class Listener(Callback):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


def test_what_is_done_is_left_out_and_what_is_missing_is_made(copied, trained, tmp_path):
    out, one = copied / "derivatives" / "brainsegnet", BidsOptions(participant_label=("01",))
    assert [case.name for case in run_participants(copied, out, trained, one, OPTIONS).done] == ["sub-01"]
    before = {path: path.stat().st_mtime_ns for path in (out / "sub-01").rglob("*") if path.is_file()}
    listener = Listener()
    again = run_participants(copied, out, trained, None, OPTIONS, None, listener)
    assert [case.name for case in again.done] == ["sub-02_ses-a", "sub-02_ses-b"]
    assert [case.name for case in again.skipped] == ["sub-01"]
    assert listener.messages == ["1 of 3 cases are done already and are left out"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("ending", ["_dseg.json", "_dseg.tsv", "_mask.nii.gz", "label-BG_probseg.json"])
def test_a_result_that_lacks_a_file_is_made_again(done, raw, trained, tmp_path, ending):
    out = shutil.copytree(done, tmp_path / "out")
    lost = next((out / "sub-01").rglob(f"*{ending}"))
    lost.unlink()
    batch = run_participants(raw, out, trained, BidsOptions(("sub-01",)), OPTIONS)
    assert len(batch.done) == 1 and lost.is_file() and names(out) == names(done)


def test_a_result_of_other_options_is_refused_unless_it_may_be_replaced(done, raw, trained, tmp_path):
    out, other = shutil.copytree(done, tmp_path / "out"), SegmentOptions(tta=True, device="cpu", threads=1)
    with pytest.raises(OutputError, match="another --probabilities"):
        run_participants(raw, out, trained, BidsOptions(("01",)), other)
    assert len(run_participants(raw, out, trained, BidsOptions(("01",), overwrite=True), other).done) == 1


def test_a_damaged_participant_fails_alone_and_leaves_no_file(copied, trained, tmp_path):
    scan = copied / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    scan.write_bytes(scan.read_bytes()[:200])
    batch = run_participants(copied, tmp_path / "out", trained, None, OPTIONS)
    assert [case.name for case in batch.done] == ["sub-02_ses-a", "sub-02_ses-b"]
    assert list(batch.failures) == ["sub-01"] and "sub-01_FLAIR" in batch.failures["sub-01"]
    assert not any(path.is_file() for path in (tmp_path / "out" / "sub-01").rglob("*"))
    (table,) = write_tables(copied, tmp_path / "out")
    assert table.visits == 2 and table.absent == ["sub-01"]


def test_a_result_that_cannot_be_written_leaves_no_file_and_the_former_stays(done, raw, trained, tmp_path, monkeypatch):
    def refuse(*anything):
        raise OutputError("the mask cannot be written: the disk is full")

    monkeypatch.setattr("brainsegnet.cohort.derivatives._write_mask", refuse)
    out, new = shutil.copytree(done, tmp_path / "out"), tmp_path / "new"
    before, which = names(out), BidsOptions(("02",), ("a",), overwrite=True)
    for place in (out, new):
        batch = run_participants(raw, place, trained, which, SegmentOptions(device="cpu", threads=1))
        assert list(batch.failures) == ["sub-02_ses-a"] and "the disk is full" in batch.failures["sub-02_ses-a"]
    assert names(out) == before
    assert names(new) == [".bidsignore", "README.md", "dataset_description.json"]


def test_derivatives_are_never_taken_for_scans_or_truths(copied, done):
    shutil.copytree(done, copied / "derivatives" / "brainsegnet")
    mask = copied / "derivatives" / "manual" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    mask.parent.mkdir(parents=True)
    shutil.copy(copied / "sub-01" / "anat" / "sub-01_T1w.nii.gz", mask)
    found = find_visits(list_visits(copied, BidsOptions()))
    assert not found.failures and len(found.cases) == 3
    assert all(case.lesion is None for case in found.cases.values())
    assert all("derivatives" not in path.parts for case in found.cases.values() for path in case.images.values())


def test_a_later_search_does_not_take_results_for_truths(copied, done):
    shutil.copytree(done, copied / "derivatives" / "brainsegnet")
    cases = find_cases([copied])
    assert [case.name for case in cases] == ["sub-01", "sub-02_ses-a", "sub-02_ses-b"]
    assert all(case.lesion is None for case in cases)


def test_sessions_are_chosen_by_label(raw):
    visits = list_visits(raw, BidsOptions(("sub-02",), ("ses-b",)))
    assert [visit.name for visit in visits] == ["sub-02_ses-b"]
    assert list_visits(raw, BidsOptions(("02",), ("b",))) == visits


def test_other_data_of_a_participant_is_passed_over(copied):
    """Functional images, field maps and images of sequences that no model uses."""
    for name in ("func/sub-01_task-rest_bold", "fmap/sub-01_phasediff", "anat/sub-01_T2starw", "anat/sub-01_PDw"):
        place = copied / "sub-01" / f"{name}.nii.gz"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(copied / "sub-01" / "anat" / "sub-01_T1w.nii.gz", place)
    found = find_visits(list_visits(copied, BidsOptions(("01",))))
    (case,) = found.cases.values()
    assert not found.failures and not found.left_out and {*SUFFIXES} <= {*case.images}


def test_a_participant_without_a_scan_that_a_model_uses_is_named(copied):
    shutil.rmtree(copied / "sub-02")
    scan = copied / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    (copied / "sub-01" / "func").mkdir()
    shutil.copy(scan, copied / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    shutil.rmtree(scan.parent)
    found = find_visits(list_visits(copied, BidsOptions()))
    assert not found.cases and found.failures["sub-01"].startswith("case sub-01: none of ")
    assert found.failures["sub-01"].endswith("; name the other participants with --participant-label")


def test_what_is_named_in_no_way_of_bids_is_told(copied):
    shutil.copytree(copied / "sub-01", copied / "sub-0_3")
    shutil.copytree(copied / "sub-02" / "ses-a" / "anat", copied / "sub-02" / "anat")
    found = find_visits(list_visits(copied, BidsOptions()))
    assert len(found.cases) == 3 and "rename it" in found.failures["sub-0_3"]
    assert found.left_out == [f"{copied / 'sub-02' / 'anat'} is left out: sub-02 has sessions"]


def test_two_files_for_one_sequence_are_named(copied):
    scan = copied / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    for run in (1, 2):
        shutil.copy(scan, scan.with_name(f"sub-01_run-{run}_T2w.nii.gz"))
    scan.unlink()
    found = find_visits(list_visits(copied, BidsOptions()))
    assert len(found.cases) == 2 and "two files for t2" in found.failures["sub-01"]


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (BidsOptions(("07",)), "has no sub-07, but sub-01, sub-02; look at --participant-label"),
        (BidsOptions((), ("z",)), "has a session ses-z"),
    ],
)
def test_labels_that_are_not_there_are_named(raw, which, said):
    with pytest.raises(DatasetError, match=said):
        list_visits(raw, which)


@pytest.mark.parametrize(
    ("text", "said"), [(None, "has no dataset_description.json"), ("{", "JSON"), ('{"Name": "x"}', "no BIDSVersion")]
)
def test_a_data_set_without_description_is_refused_unless_asked_for(copied, text, said):
    path = copied / "dataset_description.json"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=said):
        list_visits(copied, BidsOptions())
    assert len(list_visits(copied, BidsOptions(skip_bids_validation=True))) == 3


def test_no_data_set_is_refused(tmp_path, phantoms):
    with pytest.raises(DatasetError, match="is no folder"):
        list_visits(tmp_path / "nowhere", BidsOptions())
    with pytest.raises(DatasetError, match="no folder sub-"):
        list_visits(phantoms, BidsOptions())


@pytest.mark.parametrize("place", [".", "sub-01/results"])
def test_no_result_goes_among_the_raw_data(raw, trained, place):
    before = names(raw)
    with pytest.raises(OutputError, match="derivatives"):
        run_participants(raw, raw / place, trained)
    assert names(raw) == before


def test_the_derivatives_of_other_software_are_refused(raw, trained, tmp_path):
    describe(tmp_path)
    with pytest.raises(OutputError, match="other software"):
        run_participants(raw, tmp_path, trained, BidsOptions(("01",)))
    with pytest.raises(OutputError, match="other software"):
        Derivatives(raw, tmp_path).begin()


@pytest.mark.parametrize("option", ["dicom", "all_grids", "label_files", "picture", "save_preprocessed"])
def test_options_whose_files_bids_does_not_know_are_refused(raw, trained, tmp_path, option):
    with pytest.raises(UsageError, match="no place in BIDS derivatives"):
        run_participants(raw, tmp_path / "out", trained, None, SegmentOptions(**{option: True}))
    assert not (tmp_path / "out").exists()


def test_a_report_on_each_is_written_once_and_where_it_is_absent(done, raw, trained, tmp_path):
    out, one = shutil.copytree(done, tmp_path / "out"), BidsOptions(("01",))
    page = out / "sub-01_seg-tumour.html"
    batch = run_participants(raw, out, trained, one, OPTIONS, ReportOptions(report=True))
    assert len(batch.skipped) == 1 and "sub-01" not in page.read_text(encoding="utf-8")
    before = page.stat().st_mtime_ns
    run_participants(raw, out, trained, one, OPTIONS, ReportOptions(report=True))
    assert page.stat().st_mtime_ns == before
    assert validate(out) == []


def test_a_group_without_results_is_refused(raw, tmp_path):
    with pytest.raises(DatasetError, match="make them first"):
        write_tables(raw, tmp_path)


def test_a_real_stroke_of_isles_2022(real_data, tmp_path):
    """Diffusion in `dwi`, FLAIR on its own grid in `anat`, and the shipped model; images are linked, not copied."""
    name, visit = "sub-strokecase0009", "sub-strokecase0009_ses-0001"
    for kind, sequence, suffix in (("dwi", "dwi", "dwi"), ("dwi", "adc", "adc"), ("anat", "flair", "FLAIR")):
        place = tmp_path / "raw" / name / "ses-0001" / kind / f"{visit}_{suffix}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(real_data / "stroke" / "isles2022" / name / f"{visit}_{sequence}.nii.gz")
    describe(tmp_path / "raw")
    (case,) = run_participants(tmp_path / "raw", tmp_path / "out").done
    truth = read_labels(real_data / "stroke" / "isles2022" / name / f"{visit}_msk.nii.gz").array > 0
    found = read_labels(case.path).array > 0
    assert 2 * np.count_nonzero(truth & found) > 0.5 * (truth.sum() + found.sum())
    assert case.path.name == f"{visit}_space-orig_seg-stroke_dseg.nii.gz"
