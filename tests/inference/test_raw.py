"""From raw images to what the network sees: prepared scans unchanged, skulls taken off, and who is out of scope."""

from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.errors import ImageError, MissingSequence
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.raw import RawCase, find_brain, find_skull_state, find_transform, load_images
from brainsegnet.inference.scope import find_scope_warnings
from brainsegnet.io.cases import find_cases
from brainsegnet.io.dicom_headers import SeriesHeader
from brainsegnet.io.images import read_image, write_image
from brainsegnet.model.store import open_model
from brainsegnet.preprocessing.alignment import Alignment, Motion, align
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.grids import bring
from brainsegnet.volume import Volume, load_itk


@pytest.fixture
def trained_card(trained):
    return open_model(trained).card


def at(card, spacing_mm):
    return card.model_copy(update={"input": card.input.model_copy(update={"spacing_mm": spacing_mm})})


def refuse():
    raise AssertionError("no brain is to be looked for")


def test_prepared_scans_pass_unchanged(phantoms, trained_card):
    case = find_cases([phantoms])[0]
    images = {name: read_image(path) for name, path in case.images.items()}
    loaded = load_images(RawCase("a", images), trained_card, SegmentOptions(), refuse)
    assert loaded.native is None and not loaded.warnings and loaded.steps.brain.how == "as given"
    assert all(loaded.case.images[name] is image for name, image in images.items())


def test_raw_scans_come_to_the_voxels_of_the_model_and_the_grid_of_the_result_is_kept(
    raw_heads, trained_card, depth_extractor
):
    extractor = depth_extractor()
    loaded = load_images(RawCase("a", raw_heads), at(trained_card, 2.0), SegmentOptions(), lambda: extractor)
    assert extractor.calls == 3 and loaded.native.on_grid_of(raw_heads["t2"])
    assert all(image.spacing_mm == pytest.approx((2, 2, 2)) for image in loaded.case.images.values())
    mask = loaded.steps.brain.mask
    assert all((image.array[~mask] == 0).all() for image in loaded.case.images.values())
    keep = SegmentOptions(spacing="keep")
    kept = load_images(RawCase("a", raw_heads), at(trained_card, 2.0), keep, lambda: extractor)
    assert kept.native is None and kept.case.reference.on_grid_of(raw_heads["t2"])


def test_sequences_that_moved_lie_on_each_other_on_the_working_grid(raw_heads, trained_card):
    def spread_mm(register):
        options = SegmentOptions(extract_brain=False, register=register, resample=not register)
        images = load_images(RawCase("a", raw_heads), at(trained_card, 2.0), options).case.images.values()
        middles = [np.argwhere(image.array > image.array.max() / 8).mean(axis=0) * 2 for image in images]
        return np.ptp(middles, axis=0).max()

    assert spread_mm(register=True) < 1 < 3 < spread_mm(register=False)


def test_a_stripped_reference_among_raw_scans_gets_the_brain_of_the_others(raw_heads, trained_card, depth_extractor):
    head = raw_heads["t2"]
    near = np.sqrt(sum(((np.arange(n) - (n - 1) / 2) * 3).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
                       for axis, n in enumerate(head.shape)))  # fmt: skip
    stripped = head.with_array(np.where(near < 60, head.array, 0))
    images = {**raw_heads, "t2": stripped}
    loaded = load_images(RawCase("a", images), trained_card, SegmentOptions(), depth_extractor)
    assert loaded.steps.brain.skull["t2"] == "stripped" and loaded.steps.brain.how == "extracted"
    assert loaded.case.reference.on_grid_of(head)


def test_a_label_map_moves_with_the_sequence_on_which_it_was_drawn(raw_heads):
    alignment = align("a", raw_heads, "register", None, ("flair", "t1", "t1c", "t2"))
    drawn = {name: image.with_labels((image.array > 9).astype(np.uint8)) for name, image in raw_heads.items()}
    assert find_transform(drawn["t2"], raw_heads, alignment) is None
    assert find_transform(drawn["t1c"], raw_heads, alignment) is alignment.motions["t1c"].transform
    elsewhere = replace(drawn["t1c"], affine=drawn["t1c"].affine + np.eye(4, k=3) * 50)
    assert find_transform(elsewhere, raw_heads, alignment) is None


def test_a_label_map_with_other_axes_moves_with_the_sequence_too(raw_heads):
    alignment = align("a", raw_heads, "register", None, ("flair", "t1", "t1c", "t2"))
    image = raw_heads["t1c"]
    drawn = turn(image.with_labels((image.array > 9).astype(np.uint8)), Turn((2, 0, 1), (True, False, True)))
    assert find_transform(drawn, raw_heads, alignment) is alignment.motions["t1c"].transform


def draw_brain(image):
    """A ball of 60 mm around the middle of an image."""
    z, y, x = np.ix_(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(image.shape, image.spacing_mm, strict=True)))
    return image.with_labels((z**2 + y**2 + x**2 < 60**2).astype(np.uint8))


@pytest.fixture
def twins(raw_heads):
    """T1c, of which a sequence on the same grid is moved, beside T2."""
    thin = raw_heads["t2"]
    images = {"flair": thin.with_array(np.roll(thin.array, 3, 2)), "t1c": thin, "t2": raw_heads["t1c"]}
    motions = {"flair": Motion("registered", transform=load_itk().TranslationTransform(3, (9.0, 0.0, 0.0)))}
    return images, Alignment("t2", {**motions, "t1c": Motion("resampled"), "t2": Motion("in place")})


@pytest.mark.parametrize(("file", "doubted"), [("brain.nii.gz", True), ("a_T1c_mask.nii.gz", False)])
def test_of_two_sequences_on_its_grid_a_brain_mask_goes_with_the_one_that_its_file_names(
    twins, tmp_path, file, doubted
):
    images, alignment = twins
    write_image(draw_brain(images["t1c"]), tmp_path / file)
    options = SegmentOptions(brain_mask=tmp_path / file)
    found = find_brain(RawCase("a", images), alignment, images["t2"], options, refuse)
    said = "the brain mask brain.nii.gz has the grid of flair and t1c"
    assert [warning.startswith(said) for warning in found.warnings] == ([True] if doubted else [])
    expected = bring(draw_brain(images["t1c"]), images["t2"]).array > 0
    assert np.array_equal(found.mask, expected) != doubted


def test_a_scan_in_place_of_a_brain_mask_is_refused(raw_heads, trained_card, tmp_path):
    write_image(raw_heads["t2"], tmp_path / "t2.nii.gz")
    options = SegmentOptions(brain_mask=tmp_path / "t2.nii.gz")
    with pytest.raises(ImageError, match="and a brain has 100 to 2500 ml"):
        load_images(RawCase("a", raw_heads), trained_card, options, refuse)


def test_a_single_slice_is_refused(raw_heads, trained_card):
    image = raw_heads["flair"]
    with pytest.raises(ImageError, match="flair has only 1 slice; give a scan of the whole head"):
        load_images(RawCase("a", {"flair": image.with_array(image.array[20:21])}), trained_card, SegmentOptions())


def test_slices_as_far_apart_as_those_of_a_localizer_are_refused(raw_heads, trained_card):
    image = raw_heads["flair"]
    few = replace(image, array=image.array[::8], affine=image.affine @ np.diag([8, 1, 1, 1]))
    with pytest.raises(ImageError, match="flair has slices 40 mm apart, as a localizer has"):
        load_images(RawCase("a", {"flair": few}), trained_card, SegmentOptions())


def test_ct_is_refused(raw_heads, trained_card):
    image = raw_heads["flair"]
    with pytest.raises(ImageError, match="flair looks like CT, its air is near -1000"):
        load_images(RawCase("a", {"flair": image.with_array(image.array - 1020)}), trained_card, SegmentOptions())


def test_what_the_scanner_shows_without_a_skull_must_be_a_brain(trained_card, rng):
    z, y, x = np.ix_(*((np.arange(64) - 31.5) * 3,) * 3)
    leg = np.where((np.hypot(z, y) < 60) & (np.abs(x) < 80), 600.0, 0.0)
    noisy = np.abs(leg + rng.normal(0, 15, leg.shape)).astype(np.int16)
    images = {"t2": Volume(noisy, np.diag([3.0, 3.0, 3.0, 1.0])[[2, 1, 0, 3]])}
    assert find_skull_state(images["t2"]) == "stripped, noise around"
    with pytest.raises(ImageError, match="no brain was found in t2"):
        load_images(RawCase("a", images), trained_card, SegmentOptions(allow_poor=True))


def test_voxels_that_the_model_does_not_know_are_warned_of(raw_heads, trained_card, depth_extractor):
    options = SegmentOptions(spacing="keep")
    (said,) = load_images(RawCase("a", raw_heads), at(trained_card, 2.0), options, depth_extractor).warnings
    assert said == "the network sees voxels of 3 x 3 x 3 mm, and it knows those of 2 mm; leave out --spacing keep"
    assert not load_images(RawCase("a", raw_heads), at(trained_card, 2.0), SegmentOptions(), depth_extractor).warnings


def test_a_sequence_that_the_model_needs_is_missed_before_any_work(raw_heads, strict):
    with pytest.raises(MissingSequence, match="case a has no t1, only flair, t2, t1c"):
        load_images(RawCase("a", raw_heads), open_model(strict).card, SegmentOptions(), refuse)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (SeriesHeader(age_years=45, body_part="BRAIN"), ""),
        (SeriesHeader(), ""),
        (SeriesHeader(body_part="HeadNeck"), ""),
        (SeriesHeader(age_years=0.5), "the patient is 0 years old"),
        (SeriesHeader(body_part="LSPINE"), "t1: the header says that it shows LSPINE, not the head"),
    ],
)
def test_whom_the_models_are_not_for_is_said(header, said):
    warnings = find_scope_warnings({"t1": header})
    assert [warning.startswith(said) for warning in warnings] == ([True] if said else [])
