"""What is written in the layout of a data set as distributed is read back: voxels, grid, labels and names."""

import json
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.errors import ImageError
from brainsegnet.io import case_files
from brainsegnet.io.cases import common_sequences, find_cases, load_case
from brainsegnet.io.images import read_image, read_series, write_image
from brainsegnet.io.layouts import smir_path, vsd_path
from brainsegnet.preprocessing.prepare import crop
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2017, ISLES2022, Task
from brainsegnet.volume import Box, Case, LabelMap, Volume, itk_grid

GLIOMA = ("flair", "t1", "t1c", "t2")
MS = Task(name="ms", sequences=GLIOMA, labels={1: "white-matter lesion"}, regions={"lesion": (1,)})
MAPS = ISLES2017.sequences
OBLIQUE = np.array([[0.2, 0.1, 0.9, -81], [-0.1, 1.1, -0.12, 110], [6.4, 0.05, -0.03, -37], [0, 0, 0, 1.0]])


def save(volume, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(volume, path)


def save_frames(volumes, path):
    """One 4-D file, as SimpleITK writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    origin, spacing, direction = itk_grid(volumes[0].affine)
    images = []
    for volume in volumes:
        image = sitk.GetImageFromArray(volume.array)
        image.SetOrigin(origin)
        image.SetSpacing(spacing)
        image.SetDirection(direction.ravel().tolist())
        images.append(image)
    sitk.WriteImage(sitk.JoinSeries(images), str(path))


def save_json(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def brats_2015(case, folder):
    for number, (name, volume) in enumerate(parts(case).items()):
        save(volume, folder / "BRATS2015_Training/HGG" / case.name / vsd_path(name, 54512 + number))


def isles_2017(prefix):
    def write(case, folder):
        for number, (name, volume) in enumerate(parts(case).items()):
            save(volume, folder / f"ISLES2017_Training/{case.name}" / smir_path(name, 127014 + number, prefix))

    return write


def with_endings(pattern, **endings):
    def write(case, folder):
        for name, volume in parts(case).items():
            save(volume, folder / pattern.format(case=case.name, end=endings.get(name, name)))

    return write


def isles_2022(raw):
    def write(case, folder):
        for name, volume in case.images.items():
            place = f"{raw}{case.name}/ses-0001/dwi/{case.name}_ses-0001_{name}.nii.gz"
            save(volume, folder / "ISLES-2022" / place)
        mask = f"derivatives/{case.name}/ses-0001/{case.name}_ses-0001_msk.nii.gz"
        save(case.lesion, folder / "ISLES-2022" / mask)

    return write


def bids(case, folder):
    names = {"flair": "FLAIR", "t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w"}
    for name, volume in case.images.items():
        save(volume, folder / f"{case.name}/anat/{case.name}_{names[name]}.nii.gz")
    save(case.lesion, folder / f"derivatives/experts/{case.name}/anat/{case.name}_label-lesion_mask.nii.gz")
    save(case.lesion, folder / f"derivatives/bet/{case.name}/anat/{case.name}_desc-brain_mask.nii.gz")


DECATHLON_LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


def decathlon(case, folder):
    home = folder / "Task01_BrainTumour"
    save_frames([case.images[name] for name in GLIOMA], home / f"imagesTr/{case.name}.nii.gz")
    save(case.lesion, home / f"labelsTr/{case.name}.nii.gz")
    (home / f"imagesTr/._{case.name}.nii.gz").write_bytes(b"left by another system")
    listed = [{"image": f"./imagesTr/{case.name}.nii.gz", "label": f"./labelsTr/{case.name}.nii.gz"}]
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    save_json(home, name="BRATS", modality=modality, labels=DECATHLON_LABELS, training=listed)


def nnunet(case, folder):
    home, order = folder / "Dataset137_BraTS", ("t1", "t1c", "t2", "flair")
    for number, name in enumerate(order):
        save(case.images[name], home / f"imagesTr/{case.name}_{number:04d}.nii.gz")
    save(case.lesion, home / f"labelsTr/{case.name}.nii.gz")
    channels = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}
    regions = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
    save_json(home, channel_names=channels, labels=regions, numTraining=1, file_ending=".nii.gz")


def parts(case):
    return {**case.images, **({"lesion": case.lesion} if case.lesion else {})}


LESJAK = {"t1c": "T1POST", "lesion": "GOLD_STANDARD", "flair": "FLAIR", "t1": "T1", "t2": "T2"}
LAYOUTS = {
    "BRATS 2015": ("brats_2013_pat0001_1", GLIOMA, BRATS2015, brats_2015),
    "ISLES 2017, VSD": ("training_1", MAPS, ISLES2017, isles_2017("VSD")),
    "ISLES 2017, SMIR": ("training_43", MAPS, ISLES2017, isles_2017("SMIR")),
    "BraTS 2017": (
        "Brats17_2013_2_1", GLIOMA, BRATS2021, with_endings("HGG/{case}/{case}_{end}.nii.gz", t1c="t1ce", lesion="seg"),
    ),
    "BraTS 2020": (
        "BraTS20_Training_001", GLIOMA, BRATS2021, with_endings("{case}/{case}_{end}.nii", t1c="t1ce", lesion="seg"),
    ),
    "BraTS 2023": (
        "BraTS-GLI-00000-000",
        GLIOMA,
        BRATS2023,
        with_endings("{case}/{case}-{end}.nii.gz", flair="t2f", t1="t1n", t2="t2w", lesion="seg"),
    ),
    "ISLES 2022": ("sub-strokecase0001", ("dwi", "adc"), ISLES2022, isles_2022("")),
    "ISLES 2022, rawdata": ("sub-strokecase0001", ("dwi", "adc"), ISLES2022, isles_2022("rawdata/")),
    "MS": (
        "patient07",
        GLIOMA,
        MS,
        with_endings("{case}/{end}_N4_noneck_regtoMNI.nii.gz", **LESJAK),
    ),
    "BIDS": ("sub-01", GLIOMA, MS, bids),
    "Decathlon": ("BRATS_001", GLIOMA, None, decathlon),
    "nnU-Net": ("BraTS2021_00006", GLIOMA, None, nnunet),
}  # fmt: skip
EDEMA_FIRST = Task(
    name="edema_first",
    sequences=GLIOMA,
    labels={1: "oedema", 2: "necrosis + non-enhancing", 3: "enhancing"},
    regions={"whole": (1, 2, 3)},
)
every_layout = pytest.mark.parametrize(("name", "sequences", "task", "write"), LAYOUTS.values(), ids=LAYOUTS)


def check_round_trip(case, task, write, folder):
    """What is read equals what was written, each sequence under its own name."""
    write(case, folder)
    (files,) = find_cases([folder])
    assert files.name == case.name and set(files.images) == set(case.images)
    read = load_case(files, tuple(case.images), task or EDEMA_FIRST, lesion=True)
    for name, volume in parts(case).items():
        back = parts(read)[name]
        np.testing.assert_array_equal(back.array, volume.array)
        np.testing.assert_allclose(back.affine, volume.affine, atol=2e-5)
    return files


@every_layout
def test_a_phantom_returns_from_each_layout(tmp_path, rng, name, sequences, task, write):
    affine = OBLIQUE.copy()
    affine[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] @ np.diag([6.5, 1.1, 0.9])
    images = {key: Volume(rng.integers(-9, 999, (4, 6, 7)).astype(np.int16), affine) for key in sequences}
    values = np.array((task or EDEMA_FIRST).label_values, np.uint8)
    check_round_trip(Case(name, images, LabelMap(rng.choice(values, (4, 6, 7)), affine)), task, write, tmp_path)


@pytest.fixture(scope="module")
def real_slices(real_data):
    """Some slices of real cases, in place: a glioma, an MS case and a stroke."""

    def load(folder, task):
        (files,) = find_cases([real_data / folder])
        whole = load_case(files, task.sequences, task, lesion=True)
        depth = whole.reference.shape[0]
        box = Box((depth // 2 - 3, 0, 0), (depth // 2 + 3, *whole.reference.shape[1:]))
        return Case(files.name, {key: crop(v, box) for key, v in whole.images.items()}, crop(whole.lesion, box))

    glioma = load("tumour/brats2021/BraTS2021_01479", BRATS2021)
    stroke = load("stroke/isles2022/sub-strokecase0001", ISLES2022)
    return {"glioma": glioma, "stroke": stroke, "ms": load("ms/lesjak2017/cross_sectional_MNI_patient07", MS)}


@pytest.mark.real
@every_layout
def test_a_real_case_returns_from_each_layout(tmp_path, real_slices, name, sequences, task, write):
    source = real_slices["glioma" if task is not MS and sequences == GLIOMA else "ms" if task is MS else "stroke"]
    images = dict(zip(sequences, [*source.images.values()] * 3, strict=False))
    labels = source.lesion.array
    if source is real_slices["glioma"]:
        labels = (task or EDEMA_FIRST).translate(labels, BRATS2021) if task is not BRATS2015 else labels
    check_round_trip(Case(name, images, source.lesion.with_array(labels)), task, write, tmp_path)


def test_grades_may_share_a_name_and_test_cases_have_no_truth(tmp_path):
    image = Volume(np.zeros((2, 3, 4), np.int16), np.eye(4))
    for grade in ("HGG", "LGG"):
        save(image, tmp_path / grade / "brats_2013_pat0001_1" / vsd_path("flair", 54512))
    save(image, tmp_path / "HGG" / "brats_tcia_pat101_1" / vsd_path("flair", 54513))
    names = [case.name for case in find_cases([tmp_path])]
    assert names == ["HGG_brats_2013_pat0001_1", "LGG_brats_2013_pat0001_1", "brats_tcia_pat101_1"]
    assert [case.name for case in find_cases([tmp_path / "HGG"])] == [names[0], names[2]]
    assert all(case.lesion is None for case in find_cases([tmp_path]))


def test_the_segmentation_of_case_355_is_found_under_its_odd_name(tmp_path):
    for name in ("BraTS20_Training_354", "BraTS20_Training_355"):
        for end in ("flair", "t1", "t1ce", "t2"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{name}_{end}.nii").touch()
    (tmp_path / "BraTS20_Training_354" / "BraTS20_Training_354_seg.nii").touch()
    (tmp_path / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii").touch()
    lesions = {case.name: case.lesion for case in find_cases([tmp_path])}
    assert lesions["BraTS20_Training_355"].name == "W39_1998.09.19_Segm.nii" and len(lesions) == 2


def perfusion_header(array):
    """NIfTI-1 of (X, Y, Z, 1, T), as ISLES 2017 stores its series."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 5, *array.shape[:0:-1], 1, len(array), 1, 1)
    struct.pack_into("<2h", header, 70, 16, 32)
    struct.pack_into("<8f", header, 76, 1, 1.8, 1.8, 6.5, 1, 1.5, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<h", header, 254, 1)
    struct.pack_into("<12f", header, 280, -1.8, 0, 0, 90, 0, -1.8, 0, 80, 0, 0, 6.5, -20)
    header[344:348] = b"n+1\0"
    return bytes(header)


def test_a_5d_perfusion_series_is_read_and_gives_maps_that_a_task_may_name(tmp_path, rng):
    array = rng.uniform(300, 310, (30, 3, 8, 9)).astype(np.float32)
    array[12:16] *= np.array([0.8, 0.5, 0.7, 0.9], np.float32)[:, None, None, None]
    home = tmp_path / "training_1"
    path = home / smir_path("pwi", 127015, "VSD")
    path.parent.mkdir(parents=True)
    path.write_bytes(perfusion_header(array) + array.tobytes())
    series = read_series(path)
    np.testing.assert_array_equal(series.array, array)
    assert Volume(array[0], series.affine).spacing_mm == pytest.approx((6.5, 1.8, 1.8))
    adc = Volume(rng.integers(0, 99, (3, 8, 9)).astype(np.int16), series.affine)
    save(adc, home / smir_path("adc", 127014))
    (files,) = find_cases([tmp_path])
    assert list(files.images) == ["adc", "pwi_baseline", "pwi_drop", "pwi_peak", "pwi_area"]
    assert common_sequences([files], ISLES2017) == ("adc",)
    task = ISLES2017.model_copy(update={"sequences": ("adc", "pwi_peak", "pwi_drop")})
    case = load_case(files, common_sequences([files], task), task, lesion=False)
    assert (case.images["pwi_peak"].array == 1).all()
    np.testing.assert_allclose(case.images["pwi_drop"].array, np.log(2), atol=0.05)
    with pytest.raises(ImageError, match=r"is 5-D \(30, 1, 3, 8, 9\), a 3-D image is due"):
        read_image(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match="cut short"):
        read_series(path)


def test_a_4d_file_is_read_once_for_all_channels_and_one_with_too_few_is_refused(tmp_path, rng, monkeypatch):
    grid = np.diag([2.0, 1, 1, 1])
    images = {key: Volume(rng.integers(0, 99, (3, 4, 5)).astype(np.int16), grid) for key in GLIOMA}
    decathlon(Case("BRATS_001", images, LabelMap(np.zeros((3, 4, 5), np.uint8), grid)), tmp_path)
    (files,) = find_cases([tmp_path])
    opened = []
    monkeypatch.setattr(case_files, "read_series", lambda path: opened.append(path) or read_series(path))
    load_case(files, ("t2", "flair", "t1"), BRATS2021, lesion=False)
    assert len(opened) == 1
    save_frames([images["flair"], images["t1"]], files.images["t2"])
    with pytest.raises(ImageError, match=r"holds 2 images, but t1c should be number 3"):
        load_case(files, GLIOMA, BRATS2021, lesion=False)


@pytest.mark.parametrize(("task", "expected"), [(BRATS2021, [0, 2, 1, 4]), (BRATS2023, [0, 2, 1, 3])])
def test_labels_of_the_decathlon_are_brought_to_a_task_by_their_names(tmp_path, task, expected):
    grid = np.eye(4)
    images = {key: Volume(np.arange(4, dtype=np.int16).reshape(1, 2, 2), grid) for key in GLIOMA}
    decathlon(Case("BRATS_001", images, LabelMap(np.arange(4, dtype=np.uint8).reshape(1, 2, 2), grid)), tmp_path)
    (files,) = find_cases([tmp_path])
    assert load_case(files, ("t1",), task, lesion=True).lesion.array.ravel().tolist() == expected


def test_the_folder_of_test_images_alone_has_the_names_of_its_json(tmp_path, rng):
    grid = np.eye(4)
    images = {key: Volume(rng.integers(0, 9, (2, 3, 4)).astype(np.int16), grid) for key in GLIOMA}
    nnunet(Case("pat1", images, LabelMap(np.zeros((2, 3, 4), np.uint8), grid)), tmp_path)
    home = tmp_path / "Dataset137_BraTS"
    (home / "imagesTr").rename(home / "imagesTs")
    (case,) = find_cases([home / "imagesTs"])
    assert [case] == find_cases([tmp_path]) and case.images["t1c"].name == "pat1_0001.nii.gz"
    assert case.lesion is None


def test_labels_whose_names_nobody_knows_keep_the_values_of_the_task(tmp_path):
    home, grid = tmp_path / "Task04", np.eye(4)
    save(Volume(np.arange(4, dtype=np.int16).reshape(1, 2, 2), grid), home / "imagesTr/h_001.nii.gz")
    save(LabelMap(np.array([[[0, 1], [1, 0]]], np.uint8), grid), home / "labelsTr/h_001.nii.gz")
    save_json(home, modality={"0": "T1w"}, labels={"0": "background", "1": "focus"})
    (files,) = find_cases([tmp_path])
    assert load_case(files, ("t1",), MS, lesion=True).lesion.array.ravel().tolist() == [0, 1, 1, 0]
