"""The pages of the reference name every field, code and public name, and their tables are those of the classes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import brainsegnet
from brainsegnet import LabelMap, Segmentation, Volume
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.steps import BrainNote, Steps
from brainsegnet.inference.uncertainty import Interval
from brainsegnet.model.store import resolve_model
from brainsegnet.preprocessing.alignment import Alignment, Motion
from brainsegnet.preprocessing.registration import Registration
from brainsegnet.volume import Case
from documents.fields import CLASSES, ROOT, fields_pages

REFERENCE = ROOT / "docs" / "reference"


def read(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", fields_pages(), ids=str)
def test_tables_are_those_of_the_classes(page: Path):
    assert fields_pages()[page] == (ROOT / page).read_text(encoding="utf-8"), "write what fields_pages gives"


def test_every_class_of_the_card_has_a_table():
    named = set(re.findall(r"<!-- fields: (\w+) -->", read("task-file.md") + read("model-card.md")))
    assert named == CLASSES.keys()


def test_every_stable_name_is_on_the_page_of_python():
    directives = re.findall(r"^::: brainsegnet\.(\S+)$", read("python.md"), re.MULTILINE)
    expected = {f"{home}.{name}" for name, home in brainsegnet._HOMES.items()} | {"errors.BrainSegNetError"}
    assert expected <= set(directives) and len(directives) == len(set(directives))


def test_every_error_is_on_the_page_of_python():
    def below(error: type) -> set[str]:
        return {error.__name__}.union(*(below(one) for one in error.__subclasses__()))

    ours = {name for name in below(BrainSegNetError)} & set(vars(brainsegnet.errors))
    assert not {name for name in ours if f"::: brainsegnet.errors.{name}\n" not in read("python.md")}


def make_result() -> Segmentation:
    """A result with everything in it, that no network computed."""
    card = resolve_model("tumour").card
    volume = Volume(np.zeros((2, 3, 4), np.float32), np.eye(4))
    moved = Motion("registered", Registration(np.eye(4), 0.1, 0.2, 1.0, 2.0), warning="far")
    alignment = Alignment("flair", {"flair": Motion("in place"), "t1c": moved})
    brain = BrainNote("extracted", {"t1c": "skull on"}, None, 1400.0, {"sequences": {}, "warnings": []})
    return Segmentation(
        case=Case("pat1", {"flair": volume, "t1c": volume}),
        card=card,
        labels=LabelMap(np.zeros((2, 3, 4), np.uint8), np.eye(4)),
        used=("flair", "t1c"),
        absent=("t1", "t2"),
        volumes_ml={"labels": {"oedema": 0.0}, "regions": {"whole": 0.0}},
        probabilities={"oedema": volume},
        entropy=volume,
        intervals={"whole": Interval(0.0, 1.0, None, 11)},
        options=SegmentOptions(uncertainty=True, probabilities=True),
        steps=Steps(alignment, brain, {"flair": volume, "t1c": volume}),
    )


def names_in(content: object) -> set[str]:
    """The names in a JSON, at any depth."""
    if not isinstance(content, dict):
        return set()
    return set(content).union(*(names_in(part) for part in content.values()))


def test_every_field_of_a_result_is_on_its_page():
    page, task = read("result-json.md"), make_result().card.task
    of_the_case = {*task.regions, *task.labels.values(), *map(str, task.labels), "flair", "t1c"}
    fields = names_in(make_result().report("pat1.nii.gz", {"entropy": "pat1_entropy.nii.gz"})) - of_the_case
    assert len(fields) > 30
    assert not {name for name in fields if not re.search(rf"`(\w+\.)*{name}(\.\w+)*`", page)}


def test_the_example_of_a_result_has_the_fields_of_today():
    example = json.loads(re.search(r"```json\n(.*?)```", read("result-json.md"), re.DOTALL)[1])
    assert list(example) == list(make_result().report())


def test_the_example_of_a_task_file_is_the_one_of_the_repository():
    import yaml

    example = re.search(r"```yaml\n(name:.*?)```", read("task-file.md"), re.DOTALL)[1]
    assert yaml.safe_load(example) == yaml.safe_load((ROOT / "examples/tasks/ms.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("code", [0, 1, 2, 128 + 2, 128 + 15])
def test_every_exit_code_is_on_its_page(code: int):
    assert f"\n| {code} |" in read("exit-codes.md")
