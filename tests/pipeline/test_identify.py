"""Studies on disk: which series is which, from DICOM, from JSON beside images, and from names."""

import json
import zipfile
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, DatasetError, ImageError
from brainsegnet.io.images import write_image
from brainsegnet.io.results import find_result
from brainsegnet.pipeline.choose import Choice, choose
from brainsegnet.pipeline.identify import identify_study
from brainsegnet.pipeline.inputs import describe_inputs, to_relative
from brainsegnet.volume import Volume
from dicom_writer import SEQUENCES, describe, write_slices, write_study

SPACING = (5.0, 1.0, 1.0)
TRACE = {"ScanningSequence": "EP", "RepetitionTime": 5000, "EchoTime": 80}


def make_volume(seed=0, shape=(30, 16, 12), spacing=SPACING, axes=(2, 1, 0), level=500):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * spacing
    values = level + np.random.default_rng(seed).integers(0, 300, shape)
    return Volume(values.astype(np.int16), affine)


def write(folder, number, volume, **tags):
    write_slices(volume, folder, describe(number, series=str(number), **tags))


def kinds_of(findings):
    return [finding.sequence for finding in findings]


@pytest.fixture
def stroke(tmp_path):
    """A raw stroke study: low and high b-value in one series, an isotropic trace, directions, and the scanner's ADC."""
    low, high = make_volume(1, level=1000), make_volume(2, level=450)
    diffusion = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    trace = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]
    for part, b in ((low, 0), (make_volume(3), 500), (high, 1000)):
        tags = {**TRACE, "ImageType": trace, "DiffusionBValue": float(b), "SeriesDescription": "ep2d_diff_TRACEW"}
        write(tmp_path / f"b{b}", 3, part, **tags)
    for direction in range(3):
        tags = {**TRACE, "ImageType": diffusion, "DiffusionBValue": 1000.0, "DiffusionDirectionality": "DIRECTIONAL"}
        number = 30 * direction
        volume = make_volume(10 + direction)
        slices = {"SeriesDescription": "ep2d_diff", "TemporalPositionIdentifier": direction + 1}
        write_slices(volume, tmp_path / f"d{number}", describe(2, series="2", **tags, **slices))
    tags = {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], "SeriesDescription": "ep2d_diff_ADC"}
    write(tmp_path, 4, make_volume(4, level=700), **TRACE, **tags)
    write(tmp_path, 5, make_volume(5), SeriesDescription="t2_tirm_tra_dark-fluid", **SEQUENCES["flair"])
    return tmp_path


def test_the_usual_sequences_from_their_headers(tmp_path):
    for number, name in enumerate(SEQUENCES, 1):
        write(tmp_path / name, number, make_volume(number), **SEQUENCES[name])
    findings = identify_study(tmp_path, look=False)
    assert kinds_of(findings) == list(SEQUENCES)
    assert [finding.name for finding in findings] == ["series 1", "series 2", "series 3", "series 4"]
    assert "fluid is suppressed" in findings[0].reason and "Gadolinium" in findings[2].reason
    assert {finding.plane for finding in findings} == {"axial"}
    chosen = choose(findings, ("flair", "t1", "t1c", "t2", "dwi"))
    assert list(chosen) == list(SEQUENCES)
    np.testing.assert_array_equal(chosen["t1"].read().array, make_volume(2).array)


def test_a_zip_and_a_folder_say_the_same(tmp_path):
    write(tmp_path / "study", 1, make_volume(), **SEQUENCES["t2"])
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in (tmp_path / "study").iterdir():
            archive.write(path, path.name)
    assert kinds_of(identify_study(tmp_path / "study.zip", look=False)) == ["t2"]


def test_a_raw_stroke_study(stroke):
    findings = identify_study(stroke, look=False)
    assert kinds_of(findings) == ["dwi", "b0", "dwi", "dwi", "adc", "flair"]
    assert [finding.header.b_value for finding in findings] == [1000, 0, 1000, 500, None, None]
    chosen = choose(findings, ("dwi", "adc", "flair"))
    assert chosen["dwi"].findings[0] is findings[2] and chosen["dwi"].reason
    assert chosen["adc"].findings == (findings[4],)
    np.testing.assert_array_equal(chosen["dwi"].read().array, make_volume(2, level=450).array)


def test_an_adc_is_computed_where_it_is_absent(stroke):
    findings = [finding for finding in identify_study(stroke, look=False) if finding.sequence != "adc"]
    choice = choose(findings, ("dwi", "adc"))["adc"]
    assert choice.reason == "computed from b 0 and b 1000 s/mm2, in 1e-6 mm2/s"
    low, high = make_volume(1, level=1000).array, make_volume(2, level=450).array
    expected = np.clip(1000 * np.log(low / high), 0, None)
    np.testing.assert_allclose(choice.read().array, expected, rtol=1e-4, atol=1e-2)
    assert "adc" not in choose([f for f in findings if f.sequence != "b0"], ("dwi", "adc"))
    assert list(choose(findings, ("adc",))) == ["adc"]


def test_directions_become_their_geometric_mean(stroke):
    findings = identify_study(stroke, look=False)
    directional = findings[0]
    assert len(directional.volumes) == 3 and directional.header.directionality == "directional"
    expected = np.exp(np.mean([np.log(make_volume(10 + i).array) for i in range(3)], axis=0))
    np.testing.assert_allclose(directional.read().array, expected, rtol=1e-4)


def write_4d(folder):
    """A diffusion scan in one file, with b 0 and three directions of about b 1000."""
    volumes = [make_volume(seed, level=level) for seed, level in ((1, 1000), (2, 400), (3, 420), (4, 440))]
    array = np.stack([volume.array.T for volume in volumes], axis=-1)
    nibabel.Nifti1Image(array, np.diag([-1, -1, 5, 1])).to_filename(folder / "sub-1_dwi.nii.gz")
    (folder / "sub-1_dwi.bval").write_text("0 1000 995 1005\n")


def write_result(choices, folder):
    """A label map with the JSON that `segment` writes on the images of these choices."""
    first = next(iter(choices.values())).read()
    write_image(first.with_array(np.zeros(first.shape, np.uint8)), folder / "seg.nii.gz")
    inputs = to_relative(describe_inputs(SimpleNamespace(choices=choices), list(choices), content=True), folder)
    (folder / "seg.json").write_text(json.dumps({"case": "study", "inputs": inputs}))
    return folder / "seg.nii.gz"


def test_a_result_finds_the_images_of_a_stroke_study_again(stroke, tmp_path_factory):
    findings, out = identify_study(stroke, look=False), tmp_path_factory.mktemp("results")
    scanned = choose(findings, ("dwi", "adc", "flair"))
    computed = choose([finding for finding in findings if finding.sequence != "adc"], ("dwi", "adc"))
    apart = {"adc": Choice("adc", (findings[1], findings[0]))}  # b 0 of one series, directions of another
    for choices in (scanned, computed, apart):
        found = find_result(write_result(choices, out))
        images = found.read()
        assert set(found.series) == set(images) == set(choices) and not found.warnings
        for name, choice in choices.items():
            ratio = images[name].array / np.maximum(choice.read().array, 1e-6)
            np.testing.assert_allclose(ratio, 1, err_msg=name)


def test_a_result_finds_the_volumes_of_a_4d_file_again(tmp_path):
    write_4d(tmp_path)
    choices = choose(identify_study(tmp_path, look=False), ("dwi", "adc"))
    result = write_result(choices, tmp_path)
    found = find_result(result)
    assert set(found.derived) == {"dwi", "adc"} and not found.series
    for name, image in found.read().items():
        np.testing.assert_array_equal(image.array, choices[name].read().array)
    note = json.loads((tmp_path / "seg.json").read_text())
    for change, message in (
        ({"volumes": [[0], [9]]}, "volumes .* which are not there"),
        ({"volumes": [["1"]]}, "are no volumes; segment the case again"),
        ({"volumes": [[1]]}, "are no b-values"),
        ({"b_values": "x"}, "are no b-values"),
    ):
        damaged = {**note, "inputs": {"adc": {**note["inputs"]["adc"], **change}}}
        (tmp_path / "seg.json").write_text(json.dumps(damaged))
        with pytest.raises(ImageError, match=message):
            find_result(result).read()


def test_two_candidates_are_resolved_by_slices_and_plane(tmp_path):
    flair = SEQUENCES["flair"]
    write(tmp_path, 1, make_volume(1), SeriesDescription="thick", **flair)
    write(tmp_path, 2, make_volume(2, (40, 40, 40), (3.0, 3.0, 3.0)), SeriesDescription="cube", **flair)
    write(tmp_path, 3, make_volume(3), SeriesDescription="t1", **SEQUENCES["t1"])
    findings = identify_study(tmp_path, look=False)
    choice = choose(findings, ["flair"])["flair"]
    assert choice.name == "series 2 (cube)" and choice.reason == "of a larger extent than series 1 (thick)"
    write(tmp_path, 4, make_volume(4, axes=(0, 2, 1)), SeriesDescription="sag", **SEQUENCES["t1"])
    choice = choose(identify_study(tmp_path, look=False), ["t1"])["t1"]
    assert choice.name == "series 3 (t1)" and choice.reason == "in a more usual plane than series 4 (sag)"


def test_two_that_are_alike_are_refused_unless_one_is_named(tmp_path):
    for number in (1, 2):
        write(tmp_path, number, make_volume(number), SeriesDescription=f"run {number}", **SEQUENCES["t2"])
    findings = identify_study(tmp_path, look=False)
    said = r"two series may be t2, series 1 \(run 1\) and series 2 \(run 2\); name one of them with --t2"
    with pytest.raises(DatasetError, match=said):
        choose(findings, ["t2"])
    assert choose(findings, ["t2"], {"t2": "2"})["t2"].name == "series 2 (run 2)"
    with pytest.raises(DatasetError, match="'7' is none of the study, which has series 1"):
        choose(findings, ["t2"], {"t2": "7"})


def test_derived_and_short_series_step_back(tmp_path):
    t1 = SEQUENCES["t1"]
    write(tmp_path, 1, make_volume(1), **t1)
    write(tmp_path, 2, make_volume(2, (30, 32, 24), (5.0, 0.5, 0.5)), **t1, ImageType=["DERIVED", "SECONDARY", "MPR"])
    write(tmp_path, 3, make_volume(3, (4, 16, 12), (2.0, 1.0, 1.0)), **t1)
    choice = choose(identify_study(tmp_path, look=False), ["t1"])["t1"]
    assert choice.name == "series 1"


def test_images_with_json_beside_them(tmp_path):
    for name, content in (
        ("a", {"RepetitionTime": 9, "EchoTime": 0.12, "InversionTime": 2.5}),
        ("b", {"SeriesDescription": "t1_mprage post KM"}),
        ("c", ["nonsense"]),
        ("T2", {}),
    ):
        write_image(make_volume(), tmp_path / f"{name}.nii.gz")
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "c.json").write_text("{")
    findings = identify_study(tmp_path, look=False)
    assert {f.name: f.sequence for f in findings} == {
        "T2.nii.gz": "t2",
        "a.nii.gz": "flair",
        "b.nii.gz": "t1c",
        "c.nii.gz": "",
    }
    assert findings[3].reason == "nothing is known about it" and findings[3].confidence == 0


def test_the_folder_names_an_image_that_says_nothing(tmp_path):
    write_image(make_volume(), tmp_path / "T1_post" / "image.nii.gz")
    (finding,) = identify_study(tmp_path, look=False)
    assert finding.sequence == "t1c" and finding.confidence == 0.7


def test_b_values_beside_a_4d_image(tmp_path):
    write_4d(tmp_path)
    low, high = identify_study(tmp_path, look=False)
    assert (low.sequence, high.sequence) == ("b0", "dwi") and high.volumes == (1, 2, 3)
    assert high.name == "sub-1_dwi.nii.gz, b 1000"
    assert set(choose([low, high], ("dwi", "adc"))) == {"dwi", "adc"}
    (tmp_path / "sub-1_dwi.bval").write_text("0 1000\n")
    (finding,) = identify_study(tmp_path, look=False)
    assert finding.sequence == "dwi"


def test_there_must_be_an_image(tmp_path):
    with pytest.raises(DatasetError, match="holds no DICOM images"):
        identify_study(tmp_path)
    (tmp_path / "t1.nii").write_bytes(b"")
    with pytest.raises(ImageError, match=r"t1\.nii is empty"):
        identify_study(tmp_path)
    with pytest.raises(BrainSegNetError, match="does not exist"):
        identify_study(tmp_path / "absent")


@pytest.mark.real
def test_a_real_study_as_dicom(real_data, tmp_path):
    images = {name: real_data / f"raw/tcga-fg-6692/TCGA-FG-6692_{name}.nii.gz" for name in SEQUENCES}
    folder = write_study(images, tmp_path / "study")
    assert kinds_of(identify_study(folder, look=False)) == list(SEQUENCES)
