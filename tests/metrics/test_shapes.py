"""Laws of the surface scores: MONAI and SimpleITK find the same distances, on noise and on real masks."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from brainsegnet.errors import GridMismatch
from brainsegnet.metrics.shapes import surface, surface_distances

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")

UNIT = (1.0, 1.0, 1.0)
TOLERANCE_MM = 1.0


def blob(rng: np.random.Generator, shape: tuple[int, int, int], share: float = 0.08) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    return noise > np.quantile(noise, 1 - share)


def ours(predicted, truth, spacing_mm):
    distances = surface_distances(predicted, truth, spacing_mm)
    return distances.hd95_mm(), distances.assd_mm, distances.dice_within(TOLERANCE_MM)


def monais(predicted, truth, spacing_mm):
    metrics = pytest.importorskip("monai.metrics")
    masks = [metrics.utils.torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    common = {"include_background": True, "spacing": list(spacing_mm)}
    return (
        float(metrics.compute_hausdorff_distance(*masks, percentile=95, **common)),
        float(metrics.compute_average_surface_distance(*masks, symmetric=True, **common)),
        float(metrics.compute_surface_dice(*masks, [TOLERANCE_MM], **common)),
    )


def simpleitks(predicted, truth, spacing_mm):
    """Contours and Maurer's distance maps of ITK, on an image that has a border of background."""
    contours, maps = [], []
    for mask in (predicted, truth):
        image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
        image.SetSpacing(spacing_mm[::-1])
        contour = sitk.LabelContour(image, fullyConnected=False)
        distance = sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True)
        contours.append(sitk.GetArrayFromImage(contour) > 0)
        maps.append(np.abs(sitk.GetArrayFromImage(distance)))
    a, b = maps[1][contours[0]], maps[0][contours[1]]
    both = np.concatenate((a, b))
    return max(np.percentile(a, 95), np.percentile(b, 95)), both.mean(), (both <= TOLERANCE_MM + 1e-5).mean()


@pytest.mark.parametrize("library", [monais, simpleitks])
@pytest.mark.parametrize("spacing_mm", [UNIT, (6.5, 1.25, 1.25), (0.9, 2.0, 0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_other_libraries_find_the_same_distances(library, spacing_mm, seed):
    rng = np.random.default_rng(seed)
    a, b = blob(rng, (14, 26, 22)), blob(rng, (14, 26, 22), 0.03 + 0.05 * seed)
    assert ours(a, b, spacing_mm) == pytest.approx(library(a, b, spacing_mm), abs=1e-4)


@pytest.mark.parametrize("library", [monais, simpleitks])
def test_other_libraries_agree_at_the_border_of_the_image(library):
    a, b = np.zeros((2, 8, 12, 12), bool)
    a[:, :5], b[:, :9] = True, True
    assert ours(a, b, UNIT) == pytest.approx(library(a, b, UNIT), abs=1e-4)


def real_masks(folder):
    """A glioma of 1 mm, MS lesions and an infarct of 2 mm, each with its spacing (D, H, W)."""
    for pattern in ("tumour/brats2021/BraTS2021_01479/*_seg.nii.gz", "ms/*/*19/GOLD*", "stroke/isles2022/*/**/*_msk*"):
        path = sorted(folder.glob(pattern))[0]
        image = sitk.ReadImage(str(path))
        yield sitk.GetArrayFromImage(image) > 0, tuple(float(mm) for mm in image.GetSpacing()[::-1])


@pytest.mark.real
def test_other_libraries_agree_on_real_masks(real_data):
    for truth, spacing_mm in real_masks(real_data):
        for predicted in (np.roll(truth, (1, 2), (1, 2)), ndimage.gaussian_filter(truth.astype(np.float32), 1.0) > 0.4):
            box = tuple(slice(max(0, i.min() - 3), i.max() + 4) for i in np.nonzero(truth | predicted))
            p, t = predicted[box], truth[box]
            found = ours(p, t, spacing_mm)
            assert found == pytest.approx(simpleitks(p, t, spacing_mm), abs=1e-3)
            assert found == pytest.approx(monais(p, t, spacing_mm), abs=1e-3)
            assert found[0] > 0 and 0 < found[2] < 1


def test_distances_scale_with_the_spacing_and_ignore_the_surroundings(rng):
    a, b = blob(rng, (10, 20, 20)), blob(rng, (10, 20, 20))
    once = surface_distances(a, b, (2.0, 1.0, 1.0))
    large = surface_distances(a, b, (6.0, 3.0, 3.0))
    assert large.hd95_mm() == pytest.approx(3 * once.hd95_mm()) and large.assd_mm == pytest.approx(3 * once.assd_mm)
    assert large.dice_within(3.0) == once.dice_within(1.0)
    assert surface_distances(np.pad(a, 9), np.pad(b, 9), (2.0, 1.0, 1.0)).hd95_mm() == once.hd95_mm()


def test_pooled_hd95_is_the_percentile_of_both_directions_and_never_larger(rng):
    a, b = blob(rng, (10, 20, 20)), blob(rng, (10, 20, 20), 0.02)
    distances = surface_distances(a, b, (2.0, 1.0, 1.0))
    both = np.concatenate((distances.from_predicted_mm, distances.from_truth_mm))
    assert distances.hd95_mm("pooled") == np.percentile(both, 95) < distances.hd95_mm("max")
    nothing = np.zeros_like(a)
    assert surface_distances(nothing, nothing, UNIT).hd95_mm("pooled") == 0
    assert surface_distances(a, nothing, UNIT).hd95_mm("pooled") == pytest.approx(np.hypot(10, np.hypot(20, 20)))


def test_a_surface_is_what_an_erosion_takes_away(rng):
    mask = blob(rng, (9, 20, 21), 0.3)
    assert np.array_equal(surface(mask), mask & ~ndimage.binary_erosion(mask))


def test_surface_dice_grows_with_the_tolerance_to_one(rng):
    distances = surface_distances(blob(rng, (10, 20, 20)), blob(rng, (10, 20, 20)), UNIT)
    scores = [distances.dice_within(mm) for mm in (0, 0.5, 1, 1.5, 2, 4, 40)]
    assert scores == sorted(scores) and scores[0] == scores[1] < scores[2] and scores[-1] == 1


def test_a_tolerance_of_one_voxel_survives_single_precision():
    mask = np.zeros((6, 12, 12), bool)
    mask[2:4, 3:8, 3:8] = True
    spacing_mm = tuple(np.array([1.0000001, 1.0000002, 1.0000005], np.float32).tolist())
    assert surface_distances(np.roll(mask, 1, 1), mask, spacing_mm).dice_within(1.0) == 1.0


def test_an_empty_mask_is_never_near_whatever_the_tolerance():
    mask = np.zeros((3, 4, 5), bool)
    other = mask.copy()
    other[1, 1, 1] = True
    assert surface_distances(mask, other, UNIT).dice_within(100.0) == 0.0
    assert surface_distances(mask, mask, UNIT).dice_within(0.0) == 1.0


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(GridMismatch):
        surface_distances(np.zeros((2, 3, 4), bool), np.zeros((2, 3, 5), bool), UNIT)
