"""The task files under examples/ load, and train and segment real scans."""

from pathlib import Path

import numpy as np
import pytest

from brainsegnet.inference import SegmentOptions
from brainsegnet.io.case_files import MAPS, PERFUSION
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.pipeline.segment import segment
from brainsegnet.preprocessing.prepare import crop, prepare
from brainsegnet.task import ISLES2017, ISLES2022, load_task
from brainsegnet.training import TrainOptions
from brainsegnet.training.train import train
from brainsegnet.volume import Box, Case

TASKS = Path(__file__).parents[2] / "examples" / "tasks"
DATA = {"ms": "ms/lesjak2017", "isles2022": "stroke/isles2022"}


def test_the_examples_load_and_say_what_ours_say():
    assert load_task(TASKS / "isles2022.yaml") == ISLES2022
    ms = load_task(TASKS / "ms.yaml")
    assert (ms.sequences, dict(ms.labels)) == (("t1", "t1c", "t2", "flair"), {1: "white-matter lesion"})
    perfusion = load_task(TASKS / "isles2017_perfusion.yaml")
    assert perfusion.sequences == (*ISLES2017.sequences, *(f"{PERFUSION}_{part}" for part in MAPS))
    alike = {"name": perfusion.name, "sequences": perfusion.sequences}
    assert perfusion == ISLES2017.model_copy(update=alike)
    assert {*DATA, "isles2017_perfusion"} == {path.stem for path in TASKS.glob("*.yaml")}


def copy_slices(source, folder, slices=12):
    """The middle slices of every file of a case, under the names it has."""
    for path in (*source.images.values(), source.lesion):
        volume = read_image(path)
        middle = (volume.shape[0] - slices) // 2
        box = Box((middle, 0, 0), (middle + slices, *volume.shape[1:]))
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        write_image(crop(volume, box), folder / path.parent.name / path.name)


@pytest.mark.real
@pytest.mark.parametrize("name", DATA)
def test_an_example_trains_and_segments_real_scans(real_data, tiny, tmp_path, name):
    """On a few slices, so that it takes seconds."""
    task = load_task(TASKS / f"{name}.yaml")
    copy_slices(find_cases([real_data / DATA[name]])[0], tmp_path / "data")
    model = train(tmp_path / "data", task, tmp_path / "run", TrainOptions(tiny, steps=2))
    how = SegmentOptions(device="cpu", threads=1)
    (done,) = segment(tmp_path / "data", model, tmp_path / "out.nii.gz", how).done
    assert done.report["sequences"] == {"used": list(task.sequences), "absent": []}
    (files,) = find_cases([tmp_path / "data"])
    found = read_labels(tmp_path / "out.nii.gz")
    assert found.on_grid_of(load_case(files, task.sequences, task, lesion=True).lesion)
    assert set(np.unique(found.array)) <= set(task.label_values)


@pytest.mark.real
def test_the_unit_of_adc_changes_nothing(real_data):
    """ISLES 2022 has it in mm2/s in some cases and in 1e-3 mm2/s in others."""
    scales = []
    for files in find_cases([real_data / DATA["isles2022"]]):
        case = load_case(files, ("dwi", "adc"), ISLES2022, lesion=False)
        adc = case.images["adc"]
        scales.append(np.percentile(adc.array[adc.array > 0], 90))
        ours = prepare(case)
        for factor in (1e-6, 1e-3, 1e6):
            other = adc.with_array(adc.array.astype(np.float64) * factor)
            theirs = prepare(Case(case.name, {"dwi": case.images["dwi"], "adc": other}))
            assert theirs.box == ours.box
            np.testing.assert_allclose(theirs.image, ours.image, atol=1e-4)
    assert max(scales) > 100 * min(scales)
