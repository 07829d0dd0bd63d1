import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.io.aliases import build_convention, find_sequence, find_tissue
from brainsegnet.task import BRATS2015, BRATS2021, TASKS


def build(labels):
    convention = build_convention("set", ("t1",), labels, "dataset.json")
    return None if convention is None else dict(convention.labels)


def test_our_own_names_stay_as_they_are():
    for task in TASKS.values():
        assert tuple(map(find_sequence, task.sequences)) == task.sequences
        assert {tissue: find_tissue(tissue) for tissue in task.labels.values()} == {t: t for t in task.labels.values()}


def test_either_direction_of_the_labels_is_the_same():
    assert build({"0": "background", "1": "edema", "3": "ET"}) == {1: "oedema", 3: "enhancing"}
    assert build({"background": 0, "ET": 3, "edema": 1, "ignore": 4}) == {1: "oedema", 3: "enhancing"}


def test_non_enhancing_stands_for_necrosis_too_where_that_has_no_label():
    assert build({"NET": 1})[1] == BRATS2021.labels[1]
    every = {tissue: value for value, tissue in BRATS2015.labels.items()}
    assert build(every) == BRATS2015.labels


def test_nested_regions_come_apart_and_other_regions_have_no_convention():
    assert build({"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3}) == {
        1: "oedema",
        2: "necrosis + non-enhancing",
        3: "enhancing",
    }
    assert build({"background": 0, "WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": 4}) is None
    assert build({"background": 0, "organ": [1, 2], "tumor": 2}) is None


def test_values_beyond_a_byte_are_refused():
    with pytest.raises(DatasetError, match=r"dataset\.json: label values lie between 1 and 255, not \[300\]; mend it"):
        build({"lesion": 300})
