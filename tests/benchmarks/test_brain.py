"""The benchmark of brain extraction: what it compares, and that the tumour it looks for lies where others saw it."""

import numpy as np
import pytest

from brainsegnet.volume import Volume


@pytest.fixture(scope="module")
def brain(benchmark_called):
    return benchmark_called("brain")


def test_a_mask_is_compared_with_another_and_with_the_tumour(brain):
    mask, truth, tumour = (np.zeros((4, 4, 4), bool) for _ in range(3))
    mask[:2], truth[:3], tumour[1:3, 0] = True, True, True
    assert brain.compare(mask, truth, tumour) == {"dice": 0.8, "volume_ratio": 0.6667, "tumour_kept": 0.5}


def test_the_middle_is_that_of_what_is_not_zero(brain):
    array = np.zeros((5, 6, 7))
    array[2, 3, 4] = 1
    scan = Volume(array, np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])
    assert brain.find_middle(scan).tolist() == [4, 3, 4]


@pytest.mark.real
def test_the_tumour_of_the_patient_lies_in_the_other_tools_mask(brain, real_data):
    folder = real_data / "raw" / "tcga-fg-6692"
    scan = brain.read_image(folder / "TCGA-FG-6692_t1c.nii.gz")
    mask = brain.read_labels(folder / "TCGA-FG-6692_t1c_hdbet_mask.nii.gz").array > 0
    tumour = brain.tumour_on(scan, mask, "t1c", folder / "reference_1mm")
    assert tumour.sum() * scan.voxel_ml == pytest.approx(30.2, abs=1.5)
    assert mask[tumour].mean() > 0.97
