"""The physics of each map: diffusion falls in the core, blood comes late and little in the deficit."""

from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.anatomy.procedural import Tissue
from brainsegnet.anatomy.territories import Territory
from brainsegnet.simulation.stroke import Mimic, draw_stroke, simulate_infarct
from brainsegnet.simulation.stroke_appearance import (
    MIMIC_ADC,
    Tissues,
    draw_diffusion,
    measure_adc,
    paint_diffusion,
    paint_flow,
)

GREY_AND_WHITE = (Tissue.GREY, Tissue.WHITE)


@pytest.fixture(scope="module")
def infarct(small_ground):
    stroke = replace(
        draw_stroke(np.random.default_rng(0)),
        kind="wedge", territory=Territory.MIDDLE_FRONTAL, foci=1, volume_ml=40.0, deficit=3.0, loss=0.4,
    )  # fmt: skip
    return simulate_infarct(np.random.default_rng(0), small_ground, stroke)


@pytest.fixture(scope="module", params=range(6))
def painted(request, small_ground, infarct):
    """A contrast and the tissues in it, with and without the core."""
    contrast = draw_diffusion(np.random.default_rng(request.param), 0)
    nothing = np.zeros(infarct.core.shape, np.uint8)
    with_core, without = (
        paint_diffusion(np.random.default_rng(request.param), small_ground, core, nothing, contrast)
        for core in (infarct.core, infarct.core & False)
    )
    return contrast, with_core, without


def test_adc_falls_and_dwi_rises_in_the_core_and_nowhere_else(infarct, painted):
    contrast, sick, healthy = painted
    core, b = infarct.core, contrast.b_s_mm2
    assert (sick.adc[core] < healthy.adc[core]).all()
    assert 200 < np.median(sick.adc[core]) < 0.95 * np.median(healthy.adc[core])
    assert np.median(sick.weighted(b)[core]) > 1.1 * np.median(healthy.weighted(b)[core])
    assert np.array_equal(sick.adc[~core], healthy.adc[~core]) and np.array_equal(sick.b0[~core], healthy.b0[~core])


def test_healthy_tissue_has_plausible_adc(small_ground, painted):
    _, _, healthy = painted
    for tissue, low, high in ((Tissue.WHITE, 650, 850), (Tissue.GREY, 720, 950), (Tissue.VENTRICLE, 2600, 3600)):
        assert low < np.median(healthy.adc[small_ground.tissue == tissue]) < high


def test_healthy_tissue_varies_less_in_dwi_than_in_adc(small_ground, infarct):
    """As in real scans: where water is freer T2 is longer, so that the two nearly cancel."""
    contrast, nothing = draw_diffusion(np.random.default_rng(0), 0), np.zeros(infarct.core.shape, np.uint8)
    uneven = replace(contrast, texture=0.1, glow=0.0, iron=0.0)
    healthy = paint_diffusion(np.random.default_rng(0), small_ground, infarct.core & False, nothing, uneven)
    white = small_ground.tissue == Tissue.WHITE
    adc, b0, dwi = (np.log(x[white]) for x in (healthy.adc, healthy.b0, healthy.weighted(contrast.b_s_mm2)))
    assert np.corrcoef(adc, b0)[0, 1] > 0.3
    assert np.std(dwi) < 0.8 * np.std(adc)
    fluid = healthy.b0[small_ground.tissue == Tissue.VENTRICLE]
    assert fluid.std() < 0.12 * fluid.mean(), "fluid is even"


def test_some_cortex_is_bright_and_some_of_the_deep_nuclei_dark_and_slow_in_healthy_heads(small_ground, infarct):
    contrast, nothing = draw_diffusion(np.random.default_rng(0), 0), np.zeros(infarct.core.shape, np.uint8)
    plain, varied = (
        paint_diffusion(np.random.default_rng(0), small_ground, infarct.core & False, nothing, chosen)
        for chosen in (replace(contrast, glow=0.0, iron=0.0), replace(contrast, glow=0.3, iron=0.5))
    )
    grey, deep = small_ground.tissue == Tissue.GREY, small_ground.tissue == Tissue.DEEP_GREY
    brighter, slower = varied.b0[grey] / plain.b0[grey], varied.adc[deep] / plain.adc[deep]
    assert brighter.min() >= 1 and 0.1 < (brighter > 1.02).mean() < 0.6
    assert slower.max() <= 1 and 0.1 < (slower < 0.95).mean() < 0.8 and (varied.b0[deep] <= plain.b0[deep]).all()
    others = ~grey & ~deep
    assert np.array_equal(varied.b0[others], plain.b0[others]) and np.array_equal(varied.adc[~deep], plain.adc[~deep])


def test_the_cerebellum_is_brighter_towards_its_surface_and_has_fissures_of_fluid(small_ground, infarct):
    """As in real scans, where a network would take an even cerebellum's bright rim for an infarct."""
    contrast, nothing = draw_diffusion(np.random.default_rng(0), 0), np.zeros(infarct.core.shape, np.uint8)
    plain, bright, folded = (
        paint_diffusion(np.random.default_rng(0), small_ground, infarct.core & False, nothing, chosen)
        for chosen in (
            replace(contrast, hindbrain=0.0, folia=0.0),
            replace(contrast, hindbrain=0.3, folia=0.0),
            replace(contrast, hindbrain=0.0, folia=0.4),
        )
    )
    stem = small_ground.tissue == Tissue.HINDBRAIN_WHITE
    cortex = small_ground.tissue == Tissue.CEREBELLAR_GREY
    rise = bright.b0 / np.maximum(plain.b0, 1e-6)
    assert 1.1 < rise[stem].mean() < rise[cortex].mean() < 1.45
    assert bright.adc == pytest.approx(plain.adc, rel=1e-3)
    wet = folded.adc[cortex] / plain.adc[cortex]
    assert wet.min() > 0.999 and 0.05 < (wet > 1.1).mean() < 0.5
    b = contrast.b_s_mm2
    darker = folded.weighted(b)[cortex] / plain.weighted(b)[cortex]
    assert darker.max() < 1.001 and np.median(darker[wet > 1.1]) < 0.95
    elsewhere = ~stem & ~cortex
    for other in (bright, folded):
        assert np.array_equal(other.b0[elsewhere], plain.b0[elsewhere])


def test_infarcts_are_as_bright_in_dwi_as_real_ones(small_ground, infarct):
    """Half as bright again as healthy tissue, to two and a half times: 1.5 to 2.4 in three real scans."""
    nothing, ratios = np.zeros(infarct.core.shape, np.uint8), []
    for seed in range(20):
        contrast = draw_diffusion(np.random.default_rng(seed), 0)
        dwi = paint_diffusion(np.random.default_rng(seed), small_ground, infarct.core, nothing, contrast).weighted(1000)
        tissue = np.isin(small_ground.tissue, GREY_AND_WHITE)
        ratios.append(np.median(dwi[infarct.core]) / np.median(dwi[tissue & ~infarct.core]))
    assert 1.2 < np.percentile(ratios, 10) < 1.7 < np.median(ratios) < 2.3 < np.percentile(ratios, 90) < 3.2


def test_a_few_scans_have_a_random_contrast_and_show_the_core_alike(small_ground, infarct):
    """So that a network learns what is darker in ADC than its surroundings, and not how bright each tissue is."""
    physical, free = ([draw_diffusion(np.random.default_rng(seed), share) for seed in range(60)] for share in (0, 1))
    orders = [[c.adc[Tissue.GREY] > c.adc[Tissue.WHITE] for c in contrasts] for contrasts in (physical, free)]
    assert np.mean(orders[0]) > 0.85 and 0.25 < np.mean(orders[1]) < 0.75
    default = [draw_diffusion(np.random.default_rng(seed)) for seed in range(600)]
    assert 20 < sum(max(c.t2[Tissue.CSF], 0) < 2 for c in default) < 70, "fluid that is dark for its T2"
    nothing = np.zeros(infarct.core.shape, np.uint8)
    for seed, contrast in enumerate(free[:6]):
        assert contrast.t2[Tissue.BACKGROUND] == 0 == contrast.adc[Tissue.BACKGROUND]
        sick, healthy = (
            paint_diffusion(np.random.default_rng(seed), small_ground, core, nothing, contrast)
            for core in (infarct.core, infarct.core & False)
        )
        core, b = infarct.core, contrast.b_s_mm2
        assert (sick.adc[core] < healthy.adc[core]).all()
        assert np.median(sick.weighted(b)[core] / healthy.weighted(b)[core]) > 1.1


def test_old_lesions_never_look_like_infarcts_whatever_the_contrast(small_ground):
    """Their ADC is above that of the tissue that they lie in, in each tissue in which they are found."""
    brain = np.isin(small_ground.tissue, (*GREY_AND_WHITE, Tissue.DEEP_GREY, Tissue.CEREBELLAR_GREY))
    nothing = np.zeros(brain.shape, np.uint8)
    for seed in range(12):
        contrast = draw_diffusion(np.random.default_rng(seed), 1)
        for kind in (k for k in Mimic if k):
            old, healthy = (
                paint_diffusion(np.random.default_rng(seed), small_ground, brain & False, mimics, contrast).adc
                for mimics in (np.where(brain, kind, nothing), nothing)
            )
            tissues = [Tissue.WHITE] if kind == Mimic.HYPERINTENSITY else np.unique(small_ground.tissue[brain])
            for tissue in tissues:
                here = small_ground.tissue == tissue
                assert np.median(old[here]) > np.median(healthy[here]), (seed, kind, tissue)


def test_old_lesions_have_their_own_adc_in_every_tissue_where_tissues_have_theirs(small_ground):
    """Whatever they lie in, as long as the contrast is a known one."""
    grey, white = (small_ground.tissue == kind for kind in GREY_AND_WHITE)
    found = []
    for seed in range(16):
        contrast = replace(draw_diffusion(np.random.default_rng(seed), 0), glow=0.0)
        mimics = np.where(grey | white, Mimic.GLIOSIS, 0).astype(np.uint8)
        adc = paint_diffusion(np.random.default_rng(seed), small_ground, grey & False, mimics, contrast).adc
        found.append([np.median(adc[grey]), np.median(adc[white])])
    assert np.mean(found, axis=0) == pytest.approx([MIMIC_ADC[Mimic.GLIOSIS]] * 2, rel=0.05)


def test_blood_too_is_random_in_some_scans_and_short_in_the_deficit_in_all(small_ground, infarct):
    grey, white = ((small_ground.tissue == t) & ~infarct.deficit for t in GREY_AND_WHITE)
    short = infarct.deficit & np.isin(small_ground.tissue, GREY_AND_WHITE)
    richer = []
    for seed in range(12):
        free, same = (
            paint_flow(np.random.default_rng(seed), small_ground, case, 1)
            for case in (infarct, replace(infarct, severity=0 * infarct.severity, core=infarct.core & False))
        )
        richer.append(np.median(free.cbf[white]) > np.median(free.cbf[grey]))
        assert np.median(free.cbf[short]) < 0.9 * np.median(same.cbf[short])
    assert 0 < sum(richer) < 12


def test_dwi_is_consistent_with_adc_and_b(painted):
    contrast, sick, _ = painted
    brain = sick.b0 > 0
    for b in (contrast.b_s_mm2, 500.0):
        back = measure_adc(sick.b0, sick.weighted(b), b)
        assert back[brain] == pytest.approx(np.clip(sick.adc[brain], 0, 6000), rel=1e-3, abs=0.5)
    assert np.array_equal(sick.weighted(0), sick.b0)


def test_old_lesions_have_high_adc_and_some_shine_in_dwi(small_ground):
    contrast = draw_diffusion(np.random.default_rng(1), 0)
    white = np.argwhere(small_ground.tissue == Tissue.WHITE)
    mimics = np.zeros(small_ground.tissue.shape, np.uint8)
    kinds = np.arange(len(white)) % len(Mimic)
    mimics[tuple(white.T)] = kinds
    tissues = paint_diffusion(np.random.default_rng(1), small_ground, mimics > 99, mimics, contrast)
    dwi = tissues.weighted(1000)
    healthy, *old = (tuple(white[kinds == kind].T) for kind in Mimic)
    assert all(np.median(tissues.adc[where]) > 1.1 * np.median(tissues.adc[healthy]) for where in old)
    assert np.median(dwi[old[Mimic.SHINE_THROUGH - 1]]) > 1.15 * np.median(dwi[healthy])
    assert np.median(dwi[old[Mimic.CAVITY - 1]]) < np.median(dwi[healthy])


def test_mtt_and_tmax_rise_and_flow_falls_in_the_deficit(small_ground, infarct):
    tissue = np.isin(small_ground.tissue, GREY_AND_WHITE)
    core, healthy = infarct.core & tissue, tissue & ~infarct.deficit
    penumbra = infarct.deficit & ~infarct.core & tissue & (infarct.severity > 0.3)
    for seed in range(6):
        flow = paint_flow(np.random.default_rng(seed), small_ground, infarct, 0)
        mtt = 60 * flow.cbv / np.maximum(flow.cbf, 1e-3)
        for where in (core, penumbra):
            assert np.median(flow.delay[where]) > np.median(flow.delay[healthy]) + 0.2
            assert np.median(mtt[where]) > 1.05 * np.median(mtt[healthy])
            assert np.median(flow.cbf[where]) < np.median(flow.cbf[healthy])
        assert np.median(flow.cbv[core]) < 0.75 * np.median(flow.cbv[healthy])
        assert np.median(flow.cbv[penumbra]) > np.median(flow.cbv[core])


def test_white_matter_has_half_the_blood_of_grey(small_ground, infarct):
    flow = paint_flow(np.random.default_rng(0), small_ground, infarct, 0)
    grey, white = ((small_ground.tissue == t) & ~infarct.deficit for t in GREY_AND_WHITE)
    assert 0.3 < np.median(flow.cbf[white]) / np.median(flow.cbf[grey]) < 0.65


def test_the_weighted_signal_never_exceeds_that_without_weighting():
    tissues = Tissues(np.ones((2, 2, 2), np.float32), np.full((2, 2, 2), 800, np.float32))
    assert (tissues.weighted(1000) < tissues.weighted(500)).all() and (tissues.weighted(500) < tissues.b0).all()
