"""Cases on disk, one or many: what is written, what is refused, and what happens at the same time."""

import json
import shutil
import threading
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, ImageError, OutputError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference import segmenter as segmentation
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.model.store import open_model
from brainsegnet.pipeline.batch import Outcome, run_batch
from brainsegnet.pipeline.segment import segment
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.progress import Callback
from brainsegnet.task import BRATS2015
from brainsegnet.volume import Forms, LabelMap

CPU = SegmentOptions(device="cpu", threads=1)


class Listener(Callback):
    def __init__(self, told):
        self.told = told

    def on_case(self, name, result):
        assert result.name == name
        self.told.append(name)


def files_of(phantoms, name="phantom0002"):
    return next(case for case in find_cases([phantoms]) if case.name == name)


def test_a_case_gets_labels_on_its_own_grid_and_a_report_that_fits_them(phantoms, trained, tmp_path):
    files, out = files_of(phantoms), tmp_path / "new folder" / "lesion.nii.gz"
    (done,) = segment(phantoms / "phantom0002", trained, out, CPU).done
    labels, flair = read_labels(out), read_image(files.images["flair"])
    assert labels.on_grid_of(flair) and np.allclose(labels.affine, flair.affine, atol=1e-5)
    assert labels.array.dtype == np.uint8 and labels.array.any()
    BRATS2015.check(labels.array)

    report = json.loads(out.with_name("lesion.json").read_text())
    assert report == done.report and done.path == out
    for value, tissue in BRATS2015.labels.items():
        counted = (labels.array == value).sum() * flair.voxel_ml
        assert report["volumes_ml"]["labels"][tissue] == pytest.approx(counted, rel=1e-5)
    for region, values in BRATS2015.regions.items():
        counted = np.isin(labels.array, values).sum() * flair.voxel_ml
        assert report["volumes_ml"]["regions"][region] == pytest.approx(counted, rel=1e-5)
    assert report["case"] == "phantom0002" and report["convention"]["4"] == "enhancing"
    assert report["sequences"] == {"used": ["flair", "t1", "t1c", "t2"], "absent": []}
    assert report["model"]["sha256"] == open_model(trained).card.weights.sha256
    assert set(report["seconds"]) == {"read", "align", "brain", "prepare", "network", "write"}
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert sorted(path.name for path in out.parent.iterdir()) == ["lesion.json", "lesion.nii.gz"]


def test_an_oblique_anisotropic_scan_keeps_its_grid(phantoms, trained, tmp_path):
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    named = {}
    for name, path in files_of(phantoms).images.items():
        volume = read_image(path)
        affine = volume.affine.copy()
        affine[:3] = turn @ affine[:3] * [1, -1, 1, 1]
        named[name] = tmp_path / f"{name}.nii.gz"
        write_image(type(volume)(volume.array, affine), named[name])
    (done,) = segment(named, trained, tmp_path / "out.mha", CPU).done
    assert np.allclose(read_labels(done.path).affine, read_image(named["t1"]).affine, atol=1e-4)


def test_named_files_in_any_order_and_the_case_s_folder_give_the_same_labels(phantoms, trained, tmp_path):
    images = files_of(phantoms).images
    folder = segment([phantoms / "phantom0002"], trained, tmp_path / "a.nii.gz", CPU).done[0]
    turned = dict(reversed(images.items()))
    named = segment(turned, trained, tmp_path / "b.nii.gz", CPU).done[0]
    assert np.array_equal(read_labels(folder.path).array, read_labels(named.path).array)
    assert named.report["sequences"]["used"] == ["flair", "t1", "t1c", "t2"]


def test_many_cases_go_to_a_folder_and_a_table_is_as_good_as_folders(phantoms, trained, tmp_path):
    told = []
    done = segment(phantoms, trained, tmp_path / "all", CPU, callback=Listener(told))
    names = [f"phantom{i:04d}" for i in range(3)]
    assert [one.name for one in done.done] == told == names and not done.failures
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("json", "nii.gz")
    )
    rows = [f"{case.name},{s},{path}" for case in find_cases([phantoms]) for s, path in case.images.items()]
    (tmp_path / "cases.csv").write_text("\n".join(["case,sequence,path", *rows]))
    again = segment([tmp_path / "cases.csv"], trained, tmp_path / "table", CPU)
    for one, other in zip(done.done, again.done, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_one_case_may_go_to_a_folder_too(phantoms, trained, tmp_path):
    (done,) = segment(phantoms / "phantom0001", trained, tmp_path / "out", CPU).done
    assert done.path == tmp_path / "out" / "phantom0001.nii.gz" and done.path.is_file()


def test_probabilities_of_all_tissues_sum_to_one_and_their_largest_is_the_label(phantoms, trained, tmp_path):
    options = SegmentOptions(probabilities=True, device="cpu", threads=1)
    (done,) = segment(phantoms / "phantom0002", trained, tmp_path / "a.nii.gz", options).done
    maps = {tissue: read_image(tmp_path / name) for tissue, name in done.report["probabilities"].items()}
    assert list(maps) == ["background", *BRATS2015.labels.values()]
    stack = np.stack([volume.array for volume in maps.values()])
    assert np.allclose(stack.sum(0), 1, atol=1e-5) and stack.min() >= 0
    labels = read_labels(done.path)
    assert np.array_equal(BRATS2015.decode(stack.argmax(0)), labels.array)
    assert all(volume.on_grid_of(labels) for volume in maps.values())


def test_slabs_differ_at_seams_only(phantoms, trained, tmp_path):
    whole = segment(phantoms / "phantom0002", trained, tmp_path / "a.nii.gz", CPU).done[0]
    paper = SegmentOptions(slabs=31, device="cpu", threads=1)
    thin = SegmentOptions(slabs=2, device="cpu", threads=1)
    one_slab = segment(phantoms / "phantom0002", trained, tmp_path / "b.nii.gz", paper).done[0]
    many = segment(phantoms / "phantom0002", trained, tmp_path / "c.nii.gz", thin).done[0]
    a, b, c = (read_labels(done.path).array for done in (whole, one_slab, many))
    assert np.array_equal(a, b), "24 slices fit into one slab of 31"
    assert not np.array_equal(a, c) and (a == c).mean() > 0.5


def test_a_case_that_waits_for_a_gpu_is_prepared_by_what_computes_it(phantoms, trained, tmp_path, monkeypatch):
    """As where `--device` is a GPU, but that the engine here is one of the CPU."""
    case = phantoms / "phantom0002"
    segment(case, trained, tmp_path / "a.nii.gz", CPU)
    seen, opened = [], open_engine

    def open_watched(*arguments):
        engine = opened(*arguments)
        engine.prepare = lambda case, how: seen.append(case.name) or prepare(case, how)
        return engine

    monkeypatch.setattr(segmentation, "open_engine", open_watched)
    monkeypatch.setattr(segmentation, "stays_on_cpu", lambda device: False)
    segment(case, trained, tmp_path / "b.nii.gz", CPU)
    assert seen == [case.name]
    np.testing.assert_array_equal(*(read_labels(tmp_path / f"{name}.nii.gz").array for name in "ab"))


def test_a_picture_is_drawn_beside_the_labels(phantoms, trained, tmp_path):
    options = SegmentOptions(picture=True, device="cpu", threads=1)
    segment(phantoms / "phantom0002", trained, tmp_path / "a.nii.gz", options)
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("spoil", ["damaged", "foreign", "elsewhere"])
def test_a_truth_that_cannot_be_used_costs_the_picture_its_truth_and_the_case_nothing(
    phantoms, trained, tmp_path, spoil
):
    shutil.copytree(phantoms / "phantom0000", tmp_path / "case")
    lesion = files_of(tmp_path, "case").lesion
    labels = read_labels(lesion)
    if spoil == "damaged":
        lesion.write_bytes(b"no image")
    elif spoil == "foreign":
        write_image(LabelMap(labels.array + np.uint8(40), labels.affine), lesion)
    else:
        write_image(LabelMap(labels.array[1:], labels.affine), lesion)
    plain = segment(tmp_path / "case", trained, tmp_path / "a.nii.gz", CPU).done[0]
    drawn = segment(tmp_path / "case", trained, tmp_path / "b.nii.gz", replace(CPU, picture=True)).done[0]
    assert plain.path.read_bytes() == drawn.path.read_bytes() and (tmp_path / "b.png").is_file()
    assert not plain.report["notes"]
    (note,) = drawn.report["notes"]
    assert note.startswith("the picture is drawn without the truth, which cannot be used: ")
    assert {"damaged": "is no image", "foreign": "label values [40", "elsewhere": "(23, 40, 40)"}[spoil] in note


def test_a_model_trained_with_dropped_sequences_takes_any_subset_and_says_what_was_absent(phantoms, trained, tmp_path):
    images = files_of(phantoms).images
    for subset in (["flair"], ["t2", "t1c"], ["t1", "t1c", "t2"]):
        out = tmp_path / f"{len(subset)}.nii.gz"
        (done,) = segment({name: images[name] for name in subset}, trained, out, CPU).done
        assert set(done.report["sequences"]["used"]) == set(subset)
        assert set(done.report["sequences"]["absent"]) == set(images) - set(subset)


def test_a_model_that_needs_all_sequences_refuses_a_subset(phantoms, strict, tmp_path):
    images = files_of(phantoms).images
    with pytest.raises(BrainSegNetError, match=r"has no t1, t2, only flair, t1c.* needs all of flair, t1, t1c, t2"):
        segment({name: images[name] for name in ("flair", "t1c")}, strict, tmp_path / "a.nii.gz", CPU)
    assert not list(tmp_path.iterdir())


def test_a_case_without_any_sequence_of_the_model_is_refused(phantoms, trained, tmp_path):
    with pytest.raises(BrainSegNetError, match="has no flair, t1, t1c, t2, only adc"):
        segment({"adc": files_of(phantoms).images["flair"]}, trained, tmp_path / "a.nii.gz", CPU)


def test_another_grid_is_resampled_on_request(phantoms, trained, tmp_path):
    images = dict(files_of(phantoms).images)
    volume = read_image(images["t2"])
    write_image(type(volume)(volume.array[:, ::2], volume.affine @ np.diag([1, 2, 1, 1.0])), tmp_path / "t2.nii.gz")
    images["t2"] = tmp_path / "t2.nii.gz"
    with pytest.raises(BrainSegNetError, match=r"t2 is \(24, 20, 40\) but flair is \(24, 40, 40\)"):
        segment(images, trained, tmp_path / "a.nii.gz", replace(CPU, register=False))
    options = SegmentOptions(resample=True, device="cpu", threads=1)
    (done,) = segment(images, trained, tmp_path / "a.nii.gz", options).done
    assert read_labels(done.path).on_grid_of(read_image(images["flair"]))


def test_the_labels_have_the_forms_of_the_scan_and_the_report_says_where_these_disagree(phantoms, trained, tmp_path):
    """A registration that changed the sform alone: readers of either form find the labels on the scan."""
    named = {}
    for name, path in files_of(phantoms).images.items():
        volume = read_image(path)
        moved = np.eye(4)
        moved[:3, 3] = 12, -8, 6
        forms = Forms(1, 2, moved if name == "flair" else None)
        named[name] = tmp_path / f"{name}.nii.gz"
        write_image(replace(volume, forms=forms), named[name])
    (done,) = segment(named, trained, tmp_path / "lesion.nii.gz", CPU).done
    scan, labels = nibabel.load(named["flair"]), nibabel.load(done.path)
    for get in ("get_qform", "get_sform"):
        (theirs, code), (ours, our_code) = (getattr(image, get)(coded=True) for image in (scan, labels))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert code == our_code
    (warning,) = [said for said in done.report["warnings"] if "form" in said]
    assert warning.startswith("flair: its sform and qform place it 15.6 mm apart")


def test_one_bad_case_among_many_is_a_failure_and_the_others_are_done(phantoms, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    files_of(data, "phantom0001").images["t1"].write_bytes(b"no image")
    done = segment(data, trained, tmp_path / "out", CPU)
    assert [one.name for one in done.done] == ["phantom0000", "phantom0002"]
    assert list(done.failures) == ["phantom0001"] and "T1.11" in done.failures["phantom0001"]
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_case_found_twice_and_a_folder_that_no_layout_knows_cost_the_others_nothing(phantoms, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    shutil.copytree(phantoms / "phantom0001", data / "again" / "phantom0001")
    images = files_of(phantoms, "phantom0000").images
    (data / "odd").mkdir()
    shutil.copy(images["t1"], data / "odd" / "odd_0000.mha")
    done = segment(data, trained, tmp_path / "out", CPU)
    assert [one.name for one in done.done] == ["phantom0000", "phantom0002"]
    assert "phantom0001 is found twice" in done.failures["phantom0001"]
    assert [sentence.split(" is left out: ")[0] for sentence in done.left_out] == [str(data / "odd")]
    with pytest.raises(OutputError, match="3 cases do not fit"):
        segment(data, trained, tmp_path / "a.nii.gz", CPU)
    shutil.rmtree(data / "phantom0000")
    shutil.rmtree(data / "phantom0002")
    with pytest.raises(BrainSegNetError, match="phantom0001 is found twice"):
        segment(data, trained, tmp_path / "none", CPU)


def test_many_cases_do_not_fit_into_a_file(phantoms, trained, tmp_path):
    with pytest.raises(OutputError, match="3 cases do not fit"):
        segment(phantoms, trained, tmp_path / "a.nii.gz", CPU)


def test_a_scan_is_not_overwritten_by_its_labels(phantoms, trained, tmp_path):
    shutil.copytree(phantoms / "phantom0000", tmp_path / "case")
    images = files_of(tmp_path, "case").images
    before = images["flair"].read_bytes()
    with pytest.raises(OutputError, match="is a file of the case itself"):
        segment(images, trained, images["flair"], CPU)
    assert images["flair"].read_bytes() == before


def test_labels_that_would_later_be_taken_for_the_truth_are_not_written(phantoms, trained, tmp_path):
    case = tmp_path / "pat1"
    case.mkdir()
    for name, path in files_of(phantoms).images.items():
        shutil.copy(path, case / f"{name}{path.suffix}")
    with pytest.raises(OutputError, match="is beside the scans and would be taken for their truth; name another"):
        segment(case, trained, case / "lesion.nii.gz", CPU)
    segment(case, trained, case / "found.nii.gz", CPU)
    (found,) = find_cases([case])
    assert found.lesion is None and set(found.images) == {"flair", "t1", "t1c", "t2"}
    segment(case, trained, tmp_path / "lesion.nii.gz", CPU)
    (files,) = find_cases([case])
    segment(files.images, trained, case / "lesion.nii.gz", CPU)


def test_fewer_than_one_thread_or_slice_is_refused(phantoms, trained, tmp_path):
    with pytest.raises(BrainSegNetError, match="threads must be 1 or more, not -1"):
        SegmentOptions(threads=-1)
    with pytest.raises(BrainSegNetError, match="a slab has at least one slice, not 0"):
        segment(phantoms, trained, tmp_path / "out", SegmentOptions(slabs=0))


@pytest.mark.parametrize("place", ["predictions", "derivatives/brainsegnet", "sub-1/anat"])
def test_what_segment_writes_into_a_data_set_of_bids_changes_no_case_of_it(phantoms, trained, tmp_path, place):
    anat = tmp_path / "sub-1" / "anat"
    anat.mkdir(parents=True)
    for sequence, suffix in {"flair": "FLAIR", "t1": "T1w"}.items():
        write_image(read_image(find_cases([phantoms])[0].images[sequence]), anat / f"sub-1_{suffix}.nii.gz")
    before = find_cases([tmp_path])
    how = SegmentOptions(probabilities=True, uncertainty=True, device="cpu", threads=1)
    segment(tmp_path, trained, tmp_path / place, how)
    assert (tmp_path / place / "sub-1_entropy.nii.gz").is_file() and find_cases([tmp_path]) == before


def refuse(error):
    raise error


def same(value):
    return value


def test_a_bad_case_does_not_stop_the_others():
    def read(n):
        return refuse(ImageError(f"case {n}: t1 is 0 everywhere")) if n == 2 else n

    def compute(n):
        return refuse(MemoryError()) if n == 4 else 10 * n

    def write(computed):
        return refuse(OSError(28, "No space left on device", "out")) if computed == 50 else computed

    batch = run_batch(range(1, 7), read, compute, write)
    assert list(batch.done) == [10, 30, 60]
    assert batch.failures == {
        "2": "case 2: t1 is 0 everywhere",
        "4": "case 4: there is not enough memory; cut the scan into slabs",
        "5": "case 5: out: No space left on device",
    }


def test_a_file_that_is_gone_is_named(tmp_path):
    def read(name):
        return (tmp_path / name).read_text()

    (tmp_path / "a").write_text("1")
    batch = run_batch(["b", "a"], read, same, same, lambda name: f"case-{name}")
    assert list(batch.done) == ["1"]
    assert batch.failures == {"case-b": f"case case-b: {tmp_path / 'b'}: No such file or directory"}


def test_the_next_case_is_read_while_this_one_is_computed():
    """The first computation waits until the second case is read: without overlap it would wait in vain."""
    read_second = threading.Event()

    def read(n):
        if n == 2:
            read_second.set()
        return threading.current_thread()

    def compute(thread):
        assert thread is not threading.current_thread()
        return read_second.wait(10)

    assert list(run_batch([1, 2], read, compute, same).done) == [True, True]


def test_a_case_is_written_while_the_next_is_computed():
    """The first is written only once the second is computed: without overlap it would wait in vain."""
    computed_second = threading.Event()

    def compute(n):
        if n == 2:
            computed_second.set()
        return threading.current_thread()

    def write(thread):
        assert thread is not threading.current_thread()
        return computed_second.wait(10)

    assert list(run_batch([1, 2], same, compute, write).done) == [True, True]


def test_no_more_than_one_case_is_read_ahead():
    seen = []

    def compute(_):
        seen.append(max(reads))

    reads = []
    run_batch(range(6), reads.append, compute, same)
    assert all(ahead <= done + 1 for done, ahead in enumerate(seen))


def test_ctrl_c_and_programming_errors_end_the_batch():
    for error in (KeyboardInterrupt(), TypeError("a mistake")):
        computed = []

        def compute(n, error=error, computed=computed):
            computed.append(n)
            return refuse(error) if n == 1 else n

        with pytest.raises(type(error)):
            run_batch(range(4), same, compute, same)
        assert computed == [0, 1]


def test_no_case_is_no_result():
    batch = run_batch([], same, same, same)
    assert not batch.done and not batch.failures


def test_any_error_of_the_user_is_a_sentence():
    batch = run_batch(["a"], lambda item: refuse(BrainSegNetError("too small")), same, same)
    assert batch.failures == {"a": "too small"}


def test_the_time_of_computing_does_not_include_the_wait_for_a_file(clock_of):
    clock = clock_of("brainsegnet.pipeline.batch")
    batch = run_batch([0], lambda _: clock.sleep(3), lambda _: clock.sleep(1), same)
    assert (batch.computing, batch.seconds) == (1, 4)


def test_the_first_case_is_read_during_the_start_and_an_error_there_ends_the_batch():
    reading = threading.Event()

    def read(n):
        reading.set()
        return n

    batch = run_batch([1], read, same, same, start=lambda: reading.wait(10) or 1 / 0)
    assert list(batch.done) == [1]
    with pytest.raises(BrainSegNetError, match="no such device"):
        run_batch([1, 2], same, same, same, start=lambda: refuse(BrainSegNetError("no such device")))


def test_lack_of_memory_in_a_library_is_no_fault_of_the_software():
    short, fault = (Outcome("head", error=RuntimeError(text)) for text in ("can't start new thread", "no such layer"))
    assert not short.is_fault and short.sentence == "case head: there is not enough memory; cut the scan into slabs"
    assert fault.is_fault and fault.sentence == "case head: unexpected RuntimeError: no such layer; please report it"
    assert not Outcome("head").is_fault


def test_a_fault_of_the_software_ends_a_batch():
    with pytest.raises(ZeroDivisionError):
        run_batch(["a"], lambda item: refuse(ZeroDivisionError("by nothing")), same, same)
