import numpy as np
import pytest
import yaml

from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.case_files import MAPS, find_bolus, map_perfusion, read_table
from brainsegnet.io.images import Series
from brainsegnet.task import ISLES2022

FRAMES, SHAPE = 40, (3, 8, 9)


def contrast(arrival, volume=1.0):
    """Concentration over time: a gamma variate, the usual model of a bolus."""
    t = np.clip(np.arange(FRAMES) - arrival, 0, None) / 3
    return volume * t**3 * np.exp(3 * (1 - t))


@pytest.fixture
def series():
    """A head in air: tissue at 1000, half the blood in the upper rows, and late arrival on the right."""
    late = np.where(np.arange(SHAPE[2]) < 5, 12, 15)
    signal = np.zeros((FRAMES, *SHAPE))
    for row in range(1, 7):
        for column in range(1, 8):
            signal[:, :, row, column] = 1000 * np.exp(-contrast(late[column], 0.5 if row < 4 else 1))[:, None]
    signal[:2] *= 1.2
    return Series(signal.astype(np.float32), np.diag([6.5, 1.8, 1.8, 1]))


def test_maps_say_how_much_contrast_comes_how_late(series):
    maps = {name: volume.array for name, volume in map_perfusion(series).items()}
    assert tuple(maps) == MAPS and all(part.dtype == np.float32 and part.shape == SHAPE for part in maps.values())
    inside = series.array[5] > 0
    assert all((part[~inside] == 0).all() for part in maps.values())
    np.testing.assert_allclose(maps["baseline"][inside], 1000, rtol=0.02)
    np.testing.assert_allclose(maps["drop"][:, 1:4, 1:8], 0.5, atol=0.02)
    np.testing.assert_allclose(maps["drop"][:, 4:7, 1:8], 1, atol=0.02)
    np.testing.assert_allclose(maps["area"][:, 4:7, 1:4] / maps["area"][:, 1:4, 1:4], 2, rtol=0.02)
    assert (maps["peak"][:, 1:7, 5:8] - maps["peak"][:, 1:7, 1:4] == 3).all()


def test_the_scale_of_the_signal_is_in_the_baseline_alone(series):
    ours, scaled = map_perfusion(series), map_perfusion(Series(series.array * 7, series.affine))
    for name in ("drop", "peak", "area"):
        np.testing.assert_allclose(scaled[name].array, ours[name].array, rtol=1e-5)
    np.testing.assert_allclose(scaled["baseline"].array, 7 * ours["baseline"].array, rtol=1e-6)


def test_a_later_bolus_gives_the_same_maps(series):
    later = Series(np.concatenate([series.array[:2], *[series.array[2:3]] * 4, series.array[2:]]), series.affine)
    ours, theirs = map_perfusion(series), map_perfusion(later)
    for name in MAPS:
        np.testing.assert_allclose(theirs[name].array, ours[name].array, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("curve", [np.full(20, 5.0), np.arange(20.0), np.r_[9, 9, np.full(18, 5.0)]])
def test_a_series_without_a_bolus_is_refused(curve):
    with pytest.raises(ImageError, match=r"^p\.nii shows no passage of contrast"):
        find_bolus(curve, "p.nii")


def test_too_few_frames_and_another_shape_are_refused(series):
    with pytest.raises(ImageError, match="has 7 frames, a perfusion series has 8 or more"):
        map_perfusion(Series(series.array[:7], series.affine))
    with pytest.raises(ValueError, match="a series is 4-D"):
        Series(series.array[0], series.affine)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("a.mha", "b.mha", "scans/c, d.mha"):
        (tmp_path / name).touch()
    return tmp_path


def table_of(folder, suffix, text):
    path = folder / f"cases{suffix}"
    path.write_bytes(text.encode())
    return path


def files_in(table):
    return {
        case.name: {**case.images, **({"lesion": case.lesion} if case.lesion else {})} for case in read_table(table)
    }


EXPECTED = {"007": {"flair": "a.mha", "lesion": "scans/c, d.mha"}, "pat2": {"t1": "b.mha"}}
CSV = 'case,sequence,path\n007,FLAIR,a.mha\n007,seg,"scans/c, d.mha"\npat2,t1,{folder}/b.mha\n'
YAML = "007:\n  flair: a.mha\n  label: scans/c, d.mha\npat2: {t1: '{folder}/b.mha'}\n"


@pytest.mark.parametrize(
    "suffix, text",
    [
        (".csv", CSV),
        (".csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        (".csv", 'path, case ,Sequence\na.mha,007,flair\n\n"scans/c, d.mha",007,lesion\n{folder}/b.mha, pat2,t1'),
        (".yaml", YAML),
        (".yml", YAML),
    ],
)
def test_tables_are_read(folder, suffix, text):
    table = files_in(table_of(folder, suffix, text.replace("{folder}", str(folder))))
    assert table == {case: {s: folder / p for s, p in files.items()} for case, files in EXPECTED.items()}
    assert list(table) == ["007", "pat2"]


@pytest.mark.parametrize("row, column", [("{},{},a.mha", "case,sequence,path\n"), ("{}: {{{}: a.mha}}", "")])
def test_sequences_get_our_names_and_unknown_ones_keep_theirs(folder, row, column):
    given = {"T1Gd": "t1c", "T1w": "t1", "t1ce": "t1c", "T2-FLAIR": "flair", "CBF": "rcbf", "DCE-Ktrans": "dce-ktrans"}
    suffix = ".csv" if column else ".yaml"
    table = files_in(
        table_of(folder, suffix, column + "\n".join(row.format(f"p{i}", name) for i, name in enumerate(given)))
    )
    assert [next(iter(files)) for files in table.values()] == list(given.values())


@pytest.mark.parametrize(
    "suffix, text, sentence",
    [
        (".csv", "", "line 1: the header must be case,sequence,path, it is empty"),
        (".csv", "a,t1,a.mha\n", "line 1: the header must be case,sequence,path, it is a,t1,a.mha"),
        (".csv", "case,sequence,path\n", "names no case"),
        (".csv", "case,sequence,path\np,t1,a.mha\np,t2\n", "line 3: 2 values where case,sequence,path are due"),
        (".csv", "case,sequence,path\np,t1,a.mha,x\n", "line 2: 4 values where"),
        (".csv", "case,sequence,path\n,t1,a.mha\n", "line 2: the case is empty"),
        (".csv", "case,sequence,path\n../p,t1,a.mha\n", "line 2: case ../p is no name for a file"),
        (".yaml", "a:\n  t1: a.mha\n'c:\\p':\n  t1: b.mha\n", r"line 4: case c:\\p is no name for a file"),
        (".csv", "case,sequence,path\np, ,a.mha\n", "line 2: the sequence is empty"),
        (".csv", "case,sequence,path\np,t1,none.mha\n", r"line 2: .*none\.mha does not exist; paths are relative"),
        (".csv", "case,sequence,path\np,t1,scans\n", "line 2: .*scans does not exist"),
        (".csv", "case,sequence,path\np,t1,a.mha\np,T1,b.mha\n", "line 3: case p has t1 twice"),
        (".csv", "case,sequence,path\np,t1c,a.mha\np,T1Gd,b.mha\n", "line 3: case p has t1c twice"),
        (".csv", "case,sequence,path\np,seg,a.mha\np,label,b.mha\n", "line 3: case p has lesion twice"),
        (".csv", 'case,sequence,path\np,t1,"a.mha\n', "line 2: this is no CSV"),
        (".csv", 'case,sequence,path\np,t1,a.mha\np,t2,"b"mha\n', "line 3: this is no CSV"),
        (".yaml", "", "names no case"),
        (".yaml", "- a\n", "line 1: {case: {sequence: path}} is due"),
        (".yaml", "p:\n  - a.mha\n", "line 2: {case: {sequence: path}} is due"),
        (".yaml", "p:\n  t1: [a.mha]\n", "line 2: a single name or path is due"),
        (".yaml", "p: {t1: a.mha}\np: {t2: a.mha}\n", "line 2: case p is named twice"),
        (".yaml", "p:\n  t1: a.mha\n  t1: b.mha\n", "line 3: case p has t1 twice"),
        (".yaml", "p: {t1: none.mha}\n", r"line 1: .*none\.mha does not exist"),
        (".yaml", "p: {t1: a.mha\n", "is not YAML"),
        (".yaml", "p: {t1: }\n", "line 1: the path is empty"),
    ],
)
def test_each_defect_is_one_sentence_with_its_line(folder, suffix, text, sentence):
    path = table_of(folder, suffix, text)
    with pytest.raises(DatasetError, match=sentence) as caught:
        read_table(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../a", "a/b", "..", ".a", "a\\b", "a\x1bb", "a\x00b"])
def test_a_case_of_a_table_cannot_be_called_after_another_place(folder, name):
    (folder / "a.yaml").write_text(yaml.safe_dump({name: {"t1": "a.mha"}}), encoding="utf-8")
    with pytest.raises(DatasetError, match="is no name for a file; results are called after it"):
        read_table(folder / "a.yaml")


@pytest.mark.parametrize("suffix", [".csv", ".yaml"])
def test_what_is_no_text_is_refused(folder, suffix):
    path = folder / f"cases{suffix}"
    path.write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(DatasetError, match=r"^table .* is not text in UTF-8; save it as such$"):
        read_table(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_table(folder / f"none{suffix}")


def test_a_table_may_name_the_task_of_a_case_and_with_it_its_disease(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nsequences: [flair]\nlabels: {1: cyst}\nregions: {all: [1]}\n")
    for name in ("flair.nii", "lesion.nii"):
        (tmp_path / name).touch()
    rows = [("a", "task", "isles2022"), ("b", "Task", "mine.yaml"), ("c", "lesion", "lesion.nii")]
    lines = [f"{case},flair,flair.nii" for case in "abc"] + [",".join(row) for row in rows]
    (tmp_path / "cases.csv").write_text("\n".join(["case,sequence,path", *lines]) + "\n")
    a, b, c = read_table(tmp_path / "cases.csv")
    assert a.convention == ISLES2022 and (a.disease, a.source) == ("stroke", "the task (isles2022)")
    assert (b.disease, b.source, list(b.images)) == ("cyst", "the task (mine)", ["flair"])
    assert (c.convention, c.disease, c.lesion) == (None, "", tmp_path / "lesion.nii")
    (tmp_path / "cases.yaml").write_text("a: {flair: flair.nii, task: brats2015}\n")
    assert read_table(tmp_path / "cases.yaml")[0].disease == "tumour"
    (tmp_path / "cases.yaml").write_text("a: {flair: flair.nii, task: brats1900}\n")
    with pytest.raises(DatasetError, match="brats1900 does not exist; the tasks are brats2015, "):
        read_table(tmp_path / "cases.yaml")
