"""The brain of a scan from logits: its largest component without holes, on the grid of the scan, or nothing."""

import numpy as np
import pytest
import torch

from brainsegnet.volume import Volume

AFFINE = np.diag([1.0, 1.0, 5.0, 1.0])[:, [2, 1, 0, 3]]
SHAPE = (24, 110, 100)


@pytest.fixture(scope="module")
def brain(benchmark_called):
    return benchmark_called("brain")


@pytest.fixture(scope="module")
def head():
    z, y, x = np.ix_(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, (5.0, 1.0, 1.0), strict=True)))
    radius = np.sqrt(z**2 + y**2 + x**2)
    image = np.where(radius < 40, 100.0, 0.0)
    image[radius < 8] = 0
    image[:3, :12, :12] = 100
    return Volume(image.astype(np.float32), AFFINE), radius < 40


def bright(x):
    return 8 * (x - 0.5)


def nothing(x):
    return torch.full_like(x, -5.0)


@pytest.mark.parametrize("flip", [False, True])
def test_the_largest_component_without_holes(brain, head, flip):
    scan, ball = head
    found = brain.find_brain(bright, scan, flip)
    assert found.mask.shape == scan.shape
    assert 2 * (found.mask & ball).sum() / (found.mask.sum() + ball.sum()) > 0.97
    assert found.mask[12, 55, 50] and not found.mask[:3, :12, :12].any()
    assert found.volume_ml == pytest.approx(ball.sum() * 0.005, rel=0.05)
    assert 0.9 < found.largest_share < 1 and found.mean_probability > 0.8


def test_where_nothing_is_found_nothing_is_returned(brain, head):
    found = brain.find_brain(nothing, head[0], True)
    assert not found.mask.any()
    assert found.to_json() | {"seconds": 0} == {
        "volume_ml": 0,
        "largest_share": 0.0,
        "mean_probability": 0.0,
        "seconds": 0,
    }


@pytest.mark.real
def test_the_tumour_of_the_patient_lies_in_the_other_tools_mask(brain, real_data):
    folder = real_data / "raw" / "tcga-fg-6692"
    scan = brain.read_image(folder / "TCGA-FG-6692_t1c.nii.gz")
    mask = brain.read_labels(folder / "TCGA-FG-6692_t1c_hdbet_mask.nii.gz").array > 0
    tumour = brain.tumour_on(scan, mask, "t1c", folder / "reference_1mm")
    assert tumour.sum() * scan.voxel_ml == pytest.approx(30.2, abs=1)
    assert mask[tumour].mean() > 0.97
