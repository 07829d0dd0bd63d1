import pytest
import yaml

from brainsegnet.errors import TaskError
from brainsegnet.task import TASKS, Task, load_task

GOOD = {"name": "ms", "sequences": ["flair"], "labels": {1: "lesion"}, "regions": {"lesion": [1]}}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_written_as_yaml_and_read_back_is_the_same(task, tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(task.model_dump(mode="json")), encoding="utf-8")
    assert load_task(path) == task


@pytest.mark.parametrize(
    ("tissues", "disease"),
    [
        (["white-matter lesion"], "multiple sclerosis"),
        (["Ischaemic core", "penumbra"], "stroke"),
        (["oedema", "enhancing"], "tumour"),
        (["whole tumor"], "tumour"),
        (["lesion"], ""),
        (["anterior", "posterior"], "anterior, posterior"),
    ],
)
def test_the_tissues_of_a_task_tell_the_disease(tissues, disease):
    labels = dict(enumerate(tissues, 1))
    assert Task(name="t", sequences=["flair"], labels=labels, regions={"all": [1]}).disease == disease


def test_the_good_task_is_good(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    assert load_task(path).patch == (12, 128, 128)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "names and values are due, as in a: b"),
        (None, "names and values are due, as in a: b"),
        (GOOD | {"sequences": "flair"}, "sequences: a list is due, as in [a, b]"),
        (GOOD | {"labels": [1]}, "labels: names and values are due, as in {a: b}"),
        (GOOD | {"modality": "mri"}, "modality is not known here; take it out, or look at its spelling"),
        ({k: v for k, v in GOOD.items() if k != "labels"}, "labels is missing"),
        (GOOD | {"labels": {300: "lesion"}}, "label values lie between 1 and 255, not [300]"),
        (GOOD | {"regions": {"lesion": [2]}}, "region lesion unites labels [2] that are not in {1: 'lesion'}"),
        (GOOD | {"regions": {"lesion": []}}, "regions.lesion: at least 1 must be named"),
        (GOOD | {"required": ["pd"]}, "pd is required, and not among the sequences ('flair',)"),
        (GOOD | {"patch": [12, 0, 64]}, "patch.1: Input should be greater than or equal to 1"),
        (GOOD | {"colours": {1: "red"}}, "colours.1 does not have the form ^#[0-9a-fA-F]{6}$"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_in_its_own_words(tmp_path, content, sentence):
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(TaskError) as refused:
        load_task(path)
    assert str(refused.value) == f"task file {path}: {sentence}"


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(TaskError, match=r"nowhere\.yaml cannot be read: No such file or directory$"):
        load_task(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Gliom im Kleinhirn, Ödem".encode("latin-1"))
    with pytest.raises(TaskError, match="is not text in UTF-8"):
        load_task(tmp_path / "latin.yaml")
