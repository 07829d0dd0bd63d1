"""White matter lesions lie where their names say, have the volumes that are drawn, and stay in white matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from brainsegnet.anatomy.procedural import Tissue, simulate_anatomy
from brainsegnet.simulation.fields import RandomStreams
from brainsegnet.simulation.white_matter import (
    FAR_MM,
    LARGEST_MM3,
    LEAST_LABEL_MM3,
    MOST_OVOIDS,
    NEAR_MM,
    SMALLEST_MM3,
    Content,
    Site,
    draw_disease,
    fill,
    find_sites,
    frame,
    measure,
    remove_specks,
    render_lesions,
    scatter_ovoids,
    survey,
)

ONLY = {site: tuple(float(site is other) for other in Site) for site in Site}
DISEASE = replace(
    draw_disease(np.random.default_rng(7)),
    ovoids_ml=6.0,
    confluent_ml=0.0,
    enhancing=0,
    holes=0.0,
    halo=0.0,
    edge_mm=1.0,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def head():
    """A procedural head of voxels of 2 mm."""
    return simulate_anatomy(np.random.default_rng(3), (77, 98, 80))


@pytest.fixture(scope="module")
def ground(head):
    return survey(torch.as_tensor(head.array), head.spacing_mm)


def rendered(head, seed=0, **changes):
    streams = RandomStreams.of(np.random.default_rng(seed))
    return render_lesions(streams, replace(DISEASE, **changes), torch.as_tensor(head.array), head.spacing_mm)


def scattered(ground, seed=0, **changes):
    return scatter_ovoids(np.random.default_rng(seed), replace(DISEASE, **changes), ground)


def test_loads_are_drawn_as_they_are_published():
    drawn = [draw_disease(np.random.default_rng(seed)) for seed in range(600)]
    loads = np.array([d.ovoids_ml + d.confluent_ml for d in drawn])
    ill = loads[loads > 0]
    assert 0.03 < np.mean(loads == 0) < 0.1 and ill.min() >= 0.1 and ill.max() <= 60
    assert 2 < np.median(ill) < 6
    merged = np.array([d.confluent_ml > 0 for d in drawn])
    assert merged[loads > 15].mean() > 0.8 and merged[loads < 2].mean() < 0.25
    shares = np.mean([d.sites for d in drawn], axis=0)
    assert shares.argmax() == Site.PERIVENTRICULAR and shares.argmin() == Site.INFRATENTORIAL
    assert 0.25 < np.mean([d.enhancing > 0 for d in drawn]) < 0.45


@pytest.mark.parametrize("seed", range(4))
def test_lesions_stay_in_white_matter(head, seed):
    disease = replace(draw_disease(np.random.default_rng(seed)), ovoids_ml=8.0, confluent_ml=9.0, halo=0.3)
    streams, tissue = RandomStreams.of(np.random.default_rng(seed)), torch.as_tensor(head.array)
    lesions = render_lesions(streams, disease, tissue, head.spacing_mm)
    white = (tissue == Tissue.WHITE) | (tissue == Tissue.HINDBRAIN_WHITE)
    assert not lesions.labels[~white].any() and not lesions.opacity[~white].any()
    assert lesions.opacity.min() == 0 and lesions.opacity.max() <= 1
    assert (lesions.opacity[lesions.labels > 0] > 0).all() and set(lesions.labels.unique().tolist()) == {0, 1}
    assert (lesions.contents[lesions.opacity > 0] > 0).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("confluent_ml", [0.0, 12.0])
def test_the_label_has_about_the_drawn_volume(head, seed, confluent_ml):
    lesions = rendered(head, seed, confluent_ml=confluent_ml, outline=0.5)
    volume_ml = int(lesions.labels.sum()) * head.voxel_ml
    assert 0.4 * (6 + confluent_ml) < volume_ml < 1.2 * (6 + confluent_ml)
    _, count = ndimage.label(lesions.labels.numpy(), np.ones((3, 3, 3)))
    assert 1 <= count <= MOST_OVOIDS


def test_ovoids_have_published_sizes_and_their_number_is_limited(ground):
    some = scattered(ground)
    volumes = np.array([4 / 3 * np.pi * ovoid.radii_mm.prod() for ovoid in some])
    assert volumes.min() > SMALLEST_MM3 - 0.1 and volumes.max() < LARGEST_MM3 + 0.1
    assert volumes.sum() == pytest.approx(6000, abs=SMALLEST_MM3)
    assert len(scattered(ground, ovoids_ml=100.0, typical_mm3=25.0, spread=0.5)) == MOST_OVOIDS
    assert not scattered(ground, ovoids_ml=0.0)


@pytest.mark.parametrize("site", Site)
def test_each_site_is_where_its_name_says(ground, site):
    found = find_sites(ground)[site]
    wall, rim = ground.to_ventricle_mm[found], ground.to_cortex_mm[found]
    tissue = Tissue.HINDBRAIN_WHITE if site is Site.INFRATENTORIAL else Tissue.WHITE
    assert found.sum() > 100 and (ground.tissue[found] == tissue).all()
    assert (
        wall.max() < NEAR_MM if site is Site.PERIVENTRICULAR else (site is Site.INFRATENTORIAL) or wall.min() > FAR_MM
    )
    assert site is not Site.JUXTACORTICAL or rim.max() < NEAR_MM
    assert site is not Site.DEEP or rim.min() > NEAR_MM


@pytest.mark.parametrize(("site", "kind"), [(Site.PERIVENTRICULAR, "ventricle"), (Site.JUXTACORTICAL, "cortex")])
def test_lesions_of_a_border_touch_it(head, ground, site, kind):
    tissue = torch.as_tensor(head.array)
    touch = []
    for ovoid in scattered(ground, sites=ONLY[site], typical_mm3=200.0):
        box, reach = measure(ovoid, tissue.shape, head.spacing_mm, tissue.device)
        border = tissue[box] == (Tissue.VENTRICLE if kind == "ventricle" else Tissue.GREY)
        touch.append(bool((border & (fill(reach, ovoid, 1.0) > 0)).any()))
    assert np.mean(touch) > 0.85


def test_lesions_of_the_ventricles_are_perpendicular_to_them(ground):
    found = scattered(ground, sites=ONLY[Site.PERIVENTRICULAR])
    long = [o for o in found if o.radii_mm[0] > 1.3 * o.radii_mm[1:].max()]
    along = []
    for ovoid in long:
        at = np.clip(np.rint(ovoid.centre_mm / ground.spacing_mm).astype(int), 0, np.array(ground.tissue.shape) - 1)
        along.append(abs(ovoid.axes[0] @ ground.direction(ground.to_ventricle_mm, at)))
    assert len(long) > 0.3 * len(found) and np.median(along) > 0.85


def test_confluent_lesions_lie_around_the_ventricles(head, ground):
    labels = rendered(head, ovoids_ml=0.0, confluent_ml=15.0).labels.numpy()
    assert ground.tissue.shape == labels.shape
    white = ground.tissue == Tissue.WHITE
    assert np.median(ground.to_ventricle_mm[labels > 0]) < 0.5 * np.median(ground.to_ventricle_mm[white])
    assert labels[white & (ground.to_ventricle_mm < NEAR_MM)].mean() > 0.35


def test_only_the_lesions_that_were_drawn_enhance(ground, head):
    contents = [ovoid.content for ovoid in scattered(ground, enhancing=3, holes=0.5)]
    assert contents.count(Content.ENHANCING) == 3 and contents.count(Content.BLACK_HOLE) > 2
    plain, mixed = rendered(head), rendered(head, enhancing=3, holes=0.5)
    assert set(plain.contents.unique().tolist()) == {Content.NONE, Content.PLAQUE}
    assert set(mixed.contents.unique().tolist()) == {*map(int, Content)}


def test_a_head_without_disease_has_no_label(head):
    lesions = rendered(head, ovoids_ml=0.0, halo=0.3)
    assert not lesions.labels.any() and not lesions.opacity.any() and not lesions.contents.any()


def test_diffuse_changes_around_lesions_have_no_label(head):
    plain, diffuse = rendered(head, 2), rendered(head, 2, halo=0.3)
    assert torch.equal(plain.labels, diffuse.labels)
    extra = (diffuse.opacity > 0) & (plain.opacity == 0)
    assert extra.sum() > 100 and diffuse.opacity[extra].max() <= 0.3


@pytest.mark.parametrize("seed", range(20))
def test_a_frame_is_orthonormal_and_keeps_its_first_direction(seed):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=3)
    axes = frame(rng, first)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(axes[0], first / np.linalg.norm(first), atol=1e-9)


def test_specks_are_removed_and_all_else_is_kept():
    mask = torch.zeros((9, 9, 9), dtype=torch.bool)
    mask[1, 1, 1] = mask[4:6, 4:6, 4:6] = True
    kept = remove_specks(mask, (1.0, 1.0, 1.0))
    assert not kept[1, 1, 1] and kept.sum() == 8 > LEAST_LABEL_MM3
    assert torch.equal(remove_specks(mask, (4.0, 1.0, 1.0)), mask)


def test_a_head_without_ventricles_has_no_periventricular_lesion(head):
    solid = np.where(head.array == Tissue.VENTRICLE, Tissue.WHITE, head.array).astype(np.uint8)
    ground = survey(torch.as_tensor(solid), head.spacing_mm)
    assert not find_sites(ground)[Site.PERIVENTRICULAR].any()
    assert scattered(ground) and not scattered(ground, sites=ONLY[Site.PERIVENTRICULAR])
