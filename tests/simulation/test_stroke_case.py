"""Whole cases of stroke are repeatable cases of their task; anatomies are deformed without folds and aged."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue, smooth_noise
from brainsegnet.anatomy.territories import brain_tissue
from brainsegnet.simulation.echo_planar import Faults
from brainsegnet.simulation.stroke_case import (
    Library,
    age_anatomy,
    coarsen,
    deform,
    integrate,
    simulate_stroke,
    vary_anatomy,
)
from brainsegnet.simulation.stroke_scanner import draw_scan
from brainsegnet.task import ISLES2017, ISLES2022
from brainsegnet.volume import LabelMap


def as_bytes(case):
    return [v.array.tobytes() for v in (*case.images.values(), case.lesion)]


@pytest.fixture(scope="module", params=["isles2022", "isles2017"])
def case(request):
    return simulate_stroke(5, request.param, detail=0.35)


def test_same_seed_same_bytes_and_another_seed_others():
    first, again, other = (as_bytes(simulate_stroke(seed, detail=0.35)) for seed in (5, 5, 6))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_case_is_one_of_its_task(case):
    task = ISLES2022 if "dwi" in case.images else ISLES2017
    assert tuple(case.images) == task.sequences
    task.check(case.lesion.array, case.name)
    assert case.lesion.array.any()
    assert all(np.isfinite(v.array).all() and v.array.dtype == np.float32 for v in case.images.values())


def test_the_lesion_lies_in_the_brain_and_is_dark_in_adc(case):
    adc, lesion = case.images["adc"].array, case.lesion.array > 0
    assert (adc[lesion] > 0).all()
    assert np.median(adc[lesion]) < np.median(adc[(adc > 0) & ~lesion])
    assert all(np.array_equal(v.array > 0, adc > 0) for v in case.images.values())


def test_an_anatomy_of_a_library_becomes_that_of_another_person(small_anatomy, monkeypatch):
    library = Library(draw_anatomy=lambda rng: small_anatomy)
    varied = simulate_stroke(5, library=library, detail=0.35)
    monkeypatch.setattr("brainsegnet.simulation.stroke_case.vary_anatomy", lambda rng, anatomy: anatomy)
    assert as_bytes(varied) != as_bytes(simulate_stroke(5, library=library, detail=0.35))


def test_missing_slices_are_in_no_image(small_anatomy, monkeypatch):
    def simulated(cut):
        monkeypatch.setattr(
            "brainsegnet.simulation.stroke_case.draw_scan",
            lambda rng: replace(draw_scan(rng), faults=Faults(cut=cut)),
        )
        return simulate_stroke(5, detail=0.35)

    whole, part = simulated((0.0, 0.0)), simulated((0.15, 0.15))
    lost = whole.images["adc"].array.any(axis=(1, 2)).sum() - part.images["adc"].array.any(axis=(1, 2)).sum()
    assert 2 <= lost <= 10 and part.lesion.array.any()
    assert not part.lesion.array[part.images["dwi"].array == 0].any()


@pytest.mark.parametrize("task", ["isles2022", "isles2017"])
def test_air_distorts_outline_and_perfusion_too(task, monkeypatch):
    """But not to the outcome of ISLES 2017, which is outlined on later scans."""

    def simulated(shift_mm):
        monkeypatch.setattr(
            "brainsegnet.simulation.stroke_case.draw_scan",
            lambda rng: replace(draw_scan(rng), shift_mm=shift_mm, scalp=0.0, noise=1e-4, faults=Faults()),
        )
        return simulate_stroke(3, task, detail=0.35)

    monkeypatch.setattr("brainsegnet.simulation.stroke_case.simulate_core", lambda rng, ground, *more: low(ground))
    still, moved = simulated(0.0), simulated(15.0)
    before, after = ({s: v.array for s, v in case.images.items()} for case in (still, moved))
    both = (before["adc"] > 0) & (after["adc"] > 0)
    assert all(np.abs(after[s] - before[s])[both].max() > 0.5 * before[s][both].std() for s in before)
    if task == "isles2022":
        assert (moved.lesion.array != still.lesion.array).sum() > 20


def low(ground):
    """The brain above the petrous bone of one side."""
    z, y, x = ground.points
    return (ground.tissue > 1) & (np.abs(z + 20) < 14) & (np.abs(y) < 26) & (x > 32)


def test_an_anatomy_of_a_library_is_used(small_anatomy):
    drawn = simulate_stroke(5, library=Library(draw_anatomy=lambda rng: small_anatomy), detail=0.35)
    own = simulate_stroke(5, detail=0.35)
    assert as_bytes(drawn) != as_bytes(own)
    litres = np.count_nonzero(drawn.images["adc"].array) * drawn.reference.voxel_ml / 1000
    assert 1.0 < litres < 2.2


def test_coarsening_keeps_every_voxel_in_its_place():
    fine = np.zeros((40, 44, 48), np.uint8)
    fine[10:30, 12:30, 8:40] = 3
    coarse = coarsen(LabelMap(fine, np.diag([0.5, 0.5, 3.0, 1.0])), 1.0)
    assert coarse.spacing_mm == (1.0, 1.0, 3.0)
    centres = [np.argwhere(v.array).mean(axis=0) @ v.affine[:3, :3].T + v.affine[:3, 3] for v in (coarse,)]
    assert centres[0] == pytest.approx([19.5 * 0.5, 20.5 * 0.5, 23.5 * 3], abs=0.3)
    assert np.count_nonzero(coarse.array) * 3 == pytest.approx(np.count_nonzero(fine) * 0.75, rel=0.15)


def test_age_takes_tissue_for_fluid_and_gives_none(small_anatomy):
    for seed in range(6):
        aged = age_anatomy(np.random.default_rng(seed), small_anatomy)
        before, after = small_anatomy.array, aged.array
        changed = before != after
        assert set(np.unique(after[changed])) <= {Tissue.CSF, Tissue.VENTRICLE}
        assert not (after[before != Tissue.BACKGROUND] == Tissue.BACKGROUND).any()
        assert np.mean(brain_tissue(after)) > 0.7 * np.mean(brain_tissue(before))


@pytest.mark.parametrize("seed", range(4))
def test_another_person_has_the_same_tissues_elsewhere_and_another_size(small_anatomy, seed):
    varied, again = (vary_anatomy(np.random.default_rng(seed), small_anatomy) for _ in range(2))
    assert varied.array.tobytes() == again.array.tobytes() and varied.array.dtype == small_anatomy.array.dtype
    assert set(np.unique(varied.array)) == set(np.unique(small_anatomy.array))
    before, after = (np.bincount(anatomy.array.ravel(), minlength=8)[2:] for anatomy in (small_anatomy, varied))
    assert after / before == pytest.approx(1, abs=0.45) and (before != after).all()
    middles = [np.argwhere(anatomy.array).mean(axis=0) @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3]
               for anatomy in (small_anatomy, varied)]  # fmt: skip
    assert middles[1] == pytest.approx(middles[0], abs=15)


def test_anatomies_keep_their_mean_size_and_are_never_cut_flat(small_anatomy):
    varied = [vary_anatomy(np.random.default_rng(seed), small_anatomy) for seed in range(30)]
    litres = [np.count_nonzero(anatomy.array) * anatomy.voxel_ml for anatomy in varied]
    assert np.mean(litres) == pytest.approx(np.count_nonzero(small_anatomy.array) * small_anatomy.voxel_ml, rel=0.06)
    assert 0.04 < np.std(litres) / np.mean(litres) < 0.2
    for anatomy in varied:
        assert not any(np.take(anatomy.array, end, axis).any() for axis in range(3) for end in (0, -1))


def test_half_of_the_anatomies_are_mirrored(small_anatomy):
    marked = LabelMap(small_anatomy.array.copy(), small_anatomy.affine)
    left = np.indices(marked.shape)[2] > marked.shape[2] // 2
    marked.array[left & (marked.array == Tissue.GREY)] = Tissue.CEREBELLAR_GREY
    at = []
    for seed in range(30):
        anatomy = vary_anatomy(np.random.default_rng(seed), marked)
        at.append(np.argwhere(anatomy.array == Tissue.GREY)[:, 2].mean() > np.argwhere(anatomy.array)[:, 2].mean())
    assert 7 < sum(at) < 23


@pytest.mark.parametrize("amplitude", [0.2, 1.5, 4.0])
def test_a_velocity_that_is_integrated_never_folds(amplitude):
    rng = np.random.default_rng(0)
    flow = np.stack([amplitude * smooth_noise(rng, (24, 26, 28), (1.0, 1.0, 1.0), 6.0) for _ in range(3)])
    where = np.indices(flow.shape[1:]) + integrate(flow)
    rows = np.stack([np.stack(np.gradient(part)) for part in where])
    assert np.linalg.det(rows[:, :, 3:-3, 3:-3, 3:-3].transpose(2, 3, 4, 0, 1)).min() > 0


def test_a_constant_velocity_moves_by_itself():
    flow = np.broadcast_to(np.array([1.0, -2.0, 0.5]).reshape(3, 1, 1, 1), (3, 8, 9, 10))
    assert integrate(flow) == pytest.approx(flow)
    labels = np.random.default_rng(0).integers(0, 5, (22, 25, 28)).astype(np.uint8)
    moved = deform(labels, np.round(flow))
    assert np.array_equal(moved[:-1, 2:], ndimage.shift(labels, (-1, 2, 0), order=0)[:-1, 2:])
    assert np.array_equal(deform(labels, 0 * flow), labels)
