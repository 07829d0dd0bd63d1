"""Whole cases of stroke: repeatable, cases of their task, the lesion in the brain and dark in ADC."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.simulation.echo_planar import FLAWLESS, Faults, Ghost, Jolt
from brainsegnet.simulation.stroke_appearance import draw_diffusion
from brainsegnet.simulation.stroke_case import Library, simulate_stroke
from brainsegnet.simulation.stroke_scanner import Grid, acquire_diffusion, draw_optics, outline, place_grid
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


def test_scalp_left_on_the_brain_is_bright_in_dwi_and_dark_in_adc(small_head, small_ground):
    """As on real scans: at the rim alone, and a network must not take it for an infarct."""
    grid = place_grid(np.random.default_rng(0), small_head, (36, 56, 56), (4.0, 4.0, 4.0))
    still = replace(draw_optics(np.random.default_rng(0)), noise=1e-4, fat=0.0, faults=FLAWLESS)
    nothing = np.zeros(small_head.shape, np.uint8)
    clean, fat = (
        acquire_diffusion(
            np.random.default_rng(0), small_head, small_ground, (nothing > 0, nothing),
            (grid, replace(still, fat=share), draw_diffusion(np.random.default_rng(1), 0)),
        )
        for share in (0.0, 1.0)
    )  # fmt: skip
    brighter = fat.dwi / np.maximum(clean.dwi, 1e-6) > 1.3
    rim = clean.brain & ~ndimage.binary_erosion(clean.brain, iterations=2)
    assert 0.03 < brighter[rim].mean() < 0.6 and not (brighter & clean.brain & ~rim).any()
    assert np.median(fat.adc[brighter & rim]) < np.median(clean.adc[brighter & rim]) - 200
    assert fat.b0[clean.brain] == pytest.approx(clean.b0[clean.brain], rel=0.05)


@pytest.fixture
def scanned(small_head, small_ground):
    """Scans the small head, with other optics than those drawn."""
    grid = place_grid(np.random.default_rng(0), small_head, (36, 56, 56), (4.0, 4.0, 4.0))
    still = replace(draw_optics(np.random.default_rng(0)), noise=1e-4, fat=0.0, drift=0.0, grain=0.0, faults=FLAWLESS)
    nothing = np.zeros(small_head.shape, np.uint8)

    def scan(**changes):
        scanner = grid, replace(still, **changes), draw_diffusion(np.random.default_rng(1), 0)
        return acquire_diffusion(np.random.default_rng(0), small_head, small_ground, (nothing > 0, nothing), scanner)

    return scan


def test_the_image_with_diffusion_weighting_is_a_mean_and_has_less_noise(scanned):
    clean, noisy = scanned(), scanned(noise=0.1)
    added = [float((after - before)[clean.brain].std()) for before, after in
             ((clean.b0, noisy.b0), (clean.dwi, noisy.dwi))]  # fmt: skip
    assert 0.5 < added[1] / added[0] < 0.75


def test_drift_moves_the_image_without_diffusion_weighting_against_the_other(scanned):
    still, moved = scanned(), scanned(drift=1.0)
    assert moved.dwi == pytest.approx(still.dwi, rel=1e-3)
    assert np.abs(moved.b0 - still.b0)[still.brain].mean() > 0.05 * still.b0[still.brain].mean()


def test_a_jolt_makes_adc_uneven_where_tissues_meet_and_moves_the_brain_that_is_found(scanned):
    still, moved = scanned(), scanned(faults=Faults(jolt=Jolt(0.5, 2.0, 0.0, 0.0)))
    assert moved.b0 == pytest.approx(still.b0, rel=1e-3, abs=1e-3), "it is taken before"
    changed = [k for k in range(36) if np.abs(moved.dwi[k] - still.dwi[k]).max() > 0.1]
    assert changed and all(k % 2 for k in changed)
    both = still.brain & moved.brain
    wrong = np.abs(moved.adc - still.adc) / np.maximum(still.adc, 1)
    assert np.percentile(wrong[1::2][both[1::2]], 90) > 0.2 and np.percentile(wrong[::2][both[::2]], 99) < 0.01
    assert (moved.brain != still.brain)[1::2].sum() > 10 > (moved.brain != still.brain)[::2].sum()


def test_slices_that_were_taken_at_the_jolt_are_dark_with_diffusion_weighting_alone(scanned):
    still, moved = scanned(), scanned(faults=Faults(jolt=Jolt(0.25, 0.0, 0.0, 0.3)))
    ratio = [float(np.median((moved.dwi / np.maximum(still.dwi, 1e-6))[k][still.brain[k]])) for k in range(12, 24)]
    assert sorted(ratio)[:2] == pytest.approx([0.7, 0.7], abs=0.01) and sorted(ratio)[2:] == pytest.approx(
        [1] * 10, abs=0.01
    )
    assert moved.b0 == pytest.approx(still.b0, rel=1e-2, abs=1e-3)
    assert np.median((moved.adc - still.adc)[12 + int(np.argmin(ratio))][still.brain[12 + int(np.argmin(ratio))]]) > 200


def test_a_ghost_shows_in_both_images_within_the_brain(scanned):
    still, ghostly = scanned(), scanned(faults=Faults(ghost=Ghost(0.12, 0.5, (1.0, 2.0, 0.0))))
    for name in ("b0", "dwi"):
        change = np.abs(getattr(ghostly, name) / np.maximum(getattr(still, name), 1e-6) - 1)[still.brain]
        assert 0.03 < np.percentile(change, 95) < 0.25 and np.median(change) < 0.12


def test_a_head_from_elsewhere_becomes_another_persons(small_head, monkeypatch):
    library = Library(draw_head=lambda rng: small_head)
    varied = simulate_stroke(5, library=library, detail=0.35)
    monkeypatch.setattr("brainsegnet.simulation.stroke_case.vary_head", lambda rng, head: head)
    assert as_bytes(varied) != as_bytes(simulate_stroke(5, library=library, detail=0.35))


def test_slices_that_were_not_taken_are_in_no_image(small_head, monkeypatch):
    def simulated(cut):
        monkeypatch.setattr(
            "brainsegnet.simulation.stroke_case.draw_optics",
            lambda rng: replace(draw_optics(rng), faults=Faults(cut=cut)),
        )
        return simulate_stroke(5, detail=0.35)

    whole, part = simulated((0.0, 0.0)), simulated((0.15, 0.15))
    lost = whole.images["adc"].array.any(axis=(1, 2)).sum() - part.images["adc"].array.any(axis=(1, 2)).sum()
    assert 2 <= lost <= 10 and part.lesion.array.any()
    assert not part.lesion.array[part.images["dwi"].array == 0].any()


def test_the_outline_goes_with_the_slices_that_moved():
    head = LabelMap(np.ones((8, 20, 20), np.uint8), np.diag([3.0, 2.0, 2.0, 1.0]))
    grid, brain, core = Grid(head.shape, head.affine), np.ones(head.shape, bool), np.zeros(head.shape, bool)
    core[2:6, 6:13, 6:13] = True
    still, moved = (
        outline(np.random.default_rng(0), core, head, (grid, brain), jolt).array
        for jolt in (None, Jolt(0.5, 0.0, 3.0, 0.0))
    )
    columns = [[np.argwhere(drawn[k])[:, 1].mean() for k in (3, 4)] for drawn in (still, moved)]
    assert columns[0][0] == columns[0][1] and columns[1][0] > columns[0][0] + 2 > columns[1][1] + 1


@pytest.mark.parametrize("task", ["isles2022", "isles2017"])
def test_what_air_does_to_a_scan_it_does_to_outline_and_perfusion(task, monkeypatch):
    """But not to the outcome of ISLES 2017, which is outlined on later scans."""

    def simulated(shift_mm):
        monkeypatch.setattr(
            "brainsegnet.simulation.stroke_case.draw_optics",
            lambda rng: replace(draw_optics(rng), shift_mm=shift_mm, fat=0.0, noise=1e-4, faults=FLAWLESS),
        )
        return simulate_stroke(3, task, detail=0.35)

    monkeypatch.setattr("brainsegnet.simulation.stroke_case.grow_core", lambda rng, ground, *more: low(ground))
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


def test_a_head_from_elsewhere_is_taken(small_head):
    drawn = simulate_stroke(5, library=Library(draw_head=lambda rng: small_head), detail=0.35)
    own = simulate_stroke(5, detail=0.35)
    assert as_bytes(drawn) != as_bytes(own)
    litres = np.count_nonzero(drawn.images["adc"].array) * drawn.reference.voxel_ml / 1000
    assert 1.0 < litres < 2.2


def test_an_infarct_of_the_first_slice_is_outlined_within_the_brain():
    head = LabelMap(np.ones((6, 20, 20), np.uint8), np.diag([5.0, 2.0, 2.0, 1.0]))
    grid, core, brain = Grid(head.shape, head.affine), np.zeros(head.shape, bool), np.ones(head.shape, bool)
    core[0, 5:12, 5:12] = True
    brain[:, 11:] = False
    drawn = outline(np.random.default_rng(0), core, head, (grid, brain)).array > 0
    assert drawn[0, 6:11, 6:11].all() and not drawn[:, 11:].any() and not drawn[2:].any()
    core[:] = False
    core[2, 11:15, 5:9] = True
    assert outline(np.random.default_rng(0), core, head, (grid, brain)).array.any(), "what shows of it is outlined"
