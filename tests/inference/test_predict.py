from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, ImageError, MissingSequence
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import filter_components, measure_volumes
from brainsegnet.inference.predict import LoadedCase, compute, finish, predict, prepare_case
from brainsegnet.model.card import ComponentFilter, IntervalNote, SubsetInterval
from brainsegnet.preprocessing.geometry import Turn, turn
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.task import BRATS2021
from brainsegnet.volume import Case, LabelMap, Volume


def keep(case, *names):
    return Case(case.name, {name: case.images[name] for name in names})


def test_labels_are_those_of_the_task_on_the_grid_of_the_case(engine, case):
    found = predict(case, engine)
    assert found.labels.array.dtype == np.uint8 and set(np.unique(found.labels.array)) == {0, 1, 2, 4}
    assert found.labels.on_grid_of(case.reference)
    inside = prepare(case).box.slices
    np.testing.assert_array_equal(found.labels.array[inside], BRATS2021.decode(engine.classify(prepare(case).image)))
    outside = found.labels.array.copy()
    outside[inside] = 0
    assert not outside.any()
    assert (found.name, found.used, found.absent) == ("pat1", ("flair", "t1", "t1c"), ())
    assert found.probabilities is None and set(found.seconds) == {"prepare", "network"}
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_slabs_reach_the_network(engine, case):
    labels = predict(case, engine, SegmentOptions(slabs=3)).labels.array
    classes = engine.classify(prepare(case).image, 3)
    np.testing.assert_array_equal(labels[prepare(case).box.slices], BRATS2021.decode(classes))
    assert np.any(labels != predict(case, engine).labels.array)
    with pytest.raises(BrainSegNetError, match="at least one slice, not 0"):
        SegmentOptions(slabs=0)


def test_sequences_are_matched_by_name(engine, case):
    expected = predict(case, engine).labels.array
    for names in permutations(case.images):
        np.testing.assert_array_equal(predict(keep(case, *names), engine).labels.array, expected)


def test_sequences_that_the_model_does_not_know_are_ignored(engine, case):
    pet = case.reference.with_array(np.ones(case.reference.shape, np.float32))
    more = Case(case.name, {"pet": pet, **case.images})
    found = predict(more, engine)
    np.testing.assert_array_equal(found.labels.array, predict(case, engine).labels.array)
    assert found.used == ("flair", "t1", "t1c")


def test_an_absent_sequence_is_refused_by_a_model_that_needs_it(engine, case):
    sentence = (
        "case pat1 has no t1, only t1c, flair, and model tiny needs all of flair, t1, t1c; "
        "add what is missing, or take a model that allows it"
    )
    with pytest.raises(MissingSequence) as caught:
        predict(keep(case, "t1c", "flair"), engine)
    assert str(caught.value) == sentence


def test_an_absent_sequence_is_a_channel_of_zeros_where_the_model_allows_it(forgiving, case):
    partial = keep(case, "t1c", "flair")
    found = predict(partial, forgiving)
    assert (found.used, found.absent) == (("flair", "t1c"), ("t1",))
    image = prepare(case).image.copy()
    image[1] = 0
    expected = BRATS2021.decode(forgiving.classify(image))
    np.testing.assert_array_equal(found.labels.array[prepare(case).box.slices], expected)


def test_a_case_without_any_sequence_of_the_model_is_refused(forgiving, case):
    foreign = Case("pat2", {"dwi": case.reference})
    with pytest.raises(MissingSequence, match="case pat2 has no flair, t1, t1c, only dwi, and model tiny needs one or"):
        predict(foreign, forgiving)


def test_a_bad_image_is_refused_with_its_name(engine, case):
    constant = case.reference.with_array(np.full(case.reference.shape, 3.0))
    with pytest.raises(ImageError, match="case pat1: t1 is 3 everywhere"):
        predict(replace(case, images={**case.images, "t1": constant}), engine)


@pytest.mark.parametrize("how", [Turn((0, 1, 2), (True, False, True)), Turn((2, 0, 1), (False, True, False))])
def test_a_turned_scan_gives_the_same_labels_turned(engine, case, how):
    turned = Case(case.name, {name: turn(volume, how) for name, volume in case.images.items()})
    found, expected = predict(turned, engine, SegmentOptions(probabilities=True)), predict(case, engine)
    assert found.labels.on_grid_of(turned.reference)
    np.testing.assert_array_equal(found.labels.array, turn(expected.labels, how).array)
    assert found.volumes_ml == expected.volumes_ml
    assert found.probabilities["oedema"].on_grid_of(turned.reference)


def test_probabilities_sum_to_one_and_agree_with_the_labels(engine, case):
    found = predict(case, engine, SegmentOptions(probabilities=True))
    maps = found.probabilities
    assert list(maps) == ["background", "necrosis + non-enhancing", "oedema", "enhancing"]
    stack = np.stack([volume.array for volume in maps.values()])
    assert stack.dtype == np.float32
    np.testing.assert_allclose(stack.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(BRATS2021.decode(stack.argmax(0)), found.labels.array)
    np.testing.assert_array_equal(found.labels.array, predict(case, engine).labels.array)
    assert maps["background"].array[0, 0, 0] == 1


def test_volumes_count_voxels_of_their_size(engine, case):
    found = predict(case, engine)
    millilitres = found.volumes_ml
    assert case.reference.voxel_ml == pytest.approx(0.001)
    assert millilitres["labels"]["enhancing"] == pytest.approx(np.sum(found.labels.array == 4) * 0.001)
    assert millilitres["regions"]["core"] == pytest.approx(np.isin(found.labels.array, (1, 4)).sum() * 0.001)
    assert millilitres["regions"]["whole"] == pytest.approx(sum(millilitres["labels"].values()))


def test_volumes_follow_the_spacing():
    array = np.zeros((4, 4, 4), np.uint8)
    array[1:3, 1:3, 1:3] = 2
    affine = np.eye(4)
    affine[:3, :3] = np.diag([5, 0.9, 0.9]) @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert measure_volumes(LabelMap(array, affine), BRATS2021)["labels"]["oedema"] == pytest.approx(8 * 4.05 / 1000)


def test_a_case_is_not_changed(engine, case):
    before = {name: volume.array.copy() for name, volume in case.images.items()}
    predict(case, engine)
    assert all(np.array_equal(before[name], volume.array) for name, volume in case.images.items())
    assert isinstance(case.reference, Volume)


@pytest.fixture
def strict(engine, monkeypatch):
    """The engine of a model whose card drops components."""
    monkeypatch.setattr(
        engine, "card", engine.card.model_copy(update={"components": ComponentFilter(confidence_margin=0.02)})
    )
    return engine


def test_components_below_the_margin_of_the_card_are_dropped_and_counted_unless_all_are_kept(strict, case):
    found, kept = predict(case, strict), predict(case, strict, SegmentOptions(keep_all_components=True))
    image, inside = prepare(case).image, prepare(case).box.slices
    filtered = filter_components(*strict.classify_with_confidence(image), margin=0.02)
    assert filtered.dropped_components > 0 and found.components_dropped == filtered.dropped_components
    assert found.dropped_ml == pytest.approx(filtered.dropped_voxels * found.labels.voxel_ml)
    np.testing.assert_array_equal(found.labels.array[inside], BRATS2021.decode(filtered.classes))
    np.testing.assert_array_equal(kept.labels.array[inside], BRATS2021.decode(strict.classify(image)))
    assert (kept.components_dropped, kept.dropped_ml) == (0, 0)
    whole = [result.volumes_ml["regions"]["whole"] for result in (found, kept)]
    assert whole[1] - whole[0] == pytest.approx(found.dropped_ml)


def test_the_same_components_are_dropped_with_maps_and_they_do_not_count_in_intervals(strict, case):
    plain, soft = predict(case, strict), predict(case, strict, SegmentOptions(probabilities=True, uncertainty=True))
    kept = predict(case, strict, SegmentOptions(probabilities=True, uncertainty=True, keep_all_components=True))
    np.testing.assert_array_equal(plain.labels.array, soft.labels.array)
    for name, map_ in soft.probabilities.items():
        np.testing.assert_array_equal(map_.array, kept.probabilities[name].array)
    assert soft.intervals["whole"].most_ml < kept.intervals["whole"].most_ml
    assert soft.intervals["whole"].least_ml <= kept.intervals["whole"].least_ml


def test_with_tta_labels_maps_and_intervals_are_those_of_the_mean(engine, case):
    plain, flipped = (
        predict(case, engine, SegmentOptions(tta=tta, probabilities=True, uncertainty=True)) for tta in (False, True)
    )
    alone = predict(case, engine, SegmentOptions(tta=True))
    np.testing.assert_array_equal(alone.labels.array, flipped.labels.array)
    assert np.any(plain.labels.array != flipped.labels.array) and alone.probabilities is None
    stack = np.stack([volume.array for volume in flipped.probabilities.values()])
    np.testing.assert_array_equal(engine.card.task.decode(stack.argmax(0)), flipped.labels.array)
    assert flipped.intervals["whole"] != plain.intervals["whole"]


def test_a_card_with_one_alpha_gives_a_coverage_only_without_tta_and_with_all_sequences(engine, case, monkeypatch):
    note = IntervalNote(alpha=0.05, coverage=0.8, cases=11)
    given = engine.card.input.model_copy(update={"any_subset": True})
    card = engine.card.model_copy(update={"intervals": {"whole": note}, "input": given})
    monkeypatch.setattr(engine, "card", card)
    one, four = (predict(case, engine, SegmentOptions(tta=tta, uncertainty=True)) for tta in (False, True))
    assert (one.intervals["whole"].coverage, one.intervals["whole"].cases) == (0.8, 11)
    assert (four.intervals["whole"].coverage, four.intervals["whole"].cases) == (None, 0)
    part = replace(case, images={name: case.images[name] for name in tuple(case.images)[1:]})
    fewer = predict(part, engine, SegmentOptions(uncertainty=True))
    assert fewer.absent and (fewer.intervals["whole"].coverage, fewer.intervals["whole"].cases) == (None, 0)
    assert (fewer.intervals["whole"].alpha, fewer.intervals["whole"].sequences) == (0.05, card.sequences)
    assert (fewer.intervals["core"].alpha, fewer.intervals["core"].sequences) == (0.1, ())


def test_a_required_sequence_must_be_there(engine, case, monkeypatch):
    given = engine.card.input.model_copy(update={"any_subset": True})
    task = engine.card.task.model_copy(update={"required": ("flair",)})
    monkeypatch.setattr(engine, "card", engine.card.model_copy(update={"input": given, "task": task}))
    alone = replace(case, images={"flair": case.images["flair"]})
    assert predict(alone, engine).absent
    others = replace(case, images={name: image for name, image in case.images.items() if name != "flair"})
    with pytest.raises(MissingSequence, match="needs flair; add it, or take another model"):
        predict(others, engine)


def test_each_subset_has_its_own_interval_and_coverage(engine, case, monkeypatch):
    names = engine.card.sequences[1:]
    subset = SubsetInterval(alpha=0.001, coverage=0.7)
    note = IntervalNote(alpha=0.4, coverage=0.8, cases=11, subsets={"+".join(names): subset})
    given = engine.card.input.model_copy(update={"any_subset": True})
    card = engine.card.model_copy(update={"intervals": {"whole": note}, "input": given})
    monkeypatch.setattr(engine, "card", card)
    part = replace(case, images={name: case.images[name] for name in reversed(names)})
    plain, mirrored = (predict(part, engine, SegmentOptions(uncertainty=True, tta=tta)) for tta in (False, True))
    found = plain.report()["uncertainty"]["volume_intervals"]["whole"]
    assert [found[key] for key in ("coverage", "cases", "alpha", "sequences")] == [0.7, 11, 0.001, list(names)]
    found = mirrored.intervals["whole"]
    assert (found.coverage, found.cases, found.alpha, found.sequences) == (None, 0, 0.001, names)
    wide, whole = plain.intervals["whole"], predict(case, engine, SegmentOptions(uncertainty=True)).intervals["whole"]
    assert (whole.alpha, whole.coverage, whole.sequences) == (0.4, 0.8, card.sequences)
    old = card.model_copy(update={"intervals": {"whole": note.model_copy(update={"subsets": {}})}})
    monkeypatch.setattr(engine, "card", old)
    narrow = predict(part, engine, SegmentOptions(uncertainty=True)).intervals["whole"]
    assert wide.least_ml <= narrow.least_ml <= narrow.most_ml <= wide.most_ml and wide != narrow


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_are_kept_only_if_asked_for(engine, case, tta):
    prepared_case = prepare_case(LoadedCase(case), engine.card)
    assert compute(prepared_case, engine, SegmentOptions(tta=tta)).probabilities is None
    assert compute(prepared_case, engine, SegmentOptions(tta=tta, uncertainty=True)).probabilities is not None


def at_spacing(engine, monkeypatch, spacing_mm):
    given = engine.card.input.model_copy(update={"spacing_mm": spacing_mm, "any_subset": True})
    monkeypatch.setattr(engine, "card", engine.card.model_copy(update={"input": given}))
    return engine


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_a_scan_of_other_voxels_is_computed_at_the_spacing_of_the_model(engine, case, monkeypatch, tta, keep):
    engine = at_spacing(engine, monkeypatch, 1.0)
    options = SegmentOptions(tta=tta, keep_all_components=keep, probabilities=True, uncertainty=True)
    found = predict(case, engine, options)
    native = case.reference
    assert found.case.reference.spacing_mm == pytest.approx((1, 1, 1)) and found.case.reference.shape == (20, 22, 10)
    every = [found.labels, found.entropy, *found.probabilities.values()]
    assert all(one.shape == native.shape and one.on_grid_of(native) for one in every)
    total = sum(one.array for one in found.probabilities.values())
    np.testing.assert_allclose(total, 1, atol=1e-5)
    voxels = np.count_nonzero(found.labels.array)
    assert voxels and found.volumes_ml["regions"]["whole"] == pytest.approx(voxels * native.voxel_ml)
    assert found.intervals["whole"].least_ml <= native.array.size * native.voxel_ml
    assert found.notes == ("interpolated from voxels of 0.5 x 1 x 2 mm to 1 x 1 x 1 mm, the voxel size of the model",)
    assert found.report()["geometry"]["spacing_mm"] == [1, 1, 1]


def test_labels_are_the_most_probable_tissue_on_the_grid_of_the_scan(engine, case, monkeypatch):
    engine = at_spacing(engine, monkeypatch, 1.0)
    found = predict(case, engine, SegmentOptions(probabilities=True, keep_all_components=True))
    maps = np.array([one.array for one in found.probabilities.values()])
    np.testing.assert_array_equal(engine.card.task.encode(found.labels.array), maps.argmax(0))
    plain = predict(case, engine, SegmentOptions(keep_all_components=True))
    np.testing.assert_array_equal(plain.labels.array, found.labels.array)
    assert plain.probabilities is None and plain.entropy is None and plain.intervals is None


@pytest.mark.parametrize("tta", [False, True])
def test_dropped_components_stay_dropped_on_the_grid_of_the_scan(engine, case, monkeypatch, tta):
    engine = at_spacing(engine, monkeypatch, 1.0)
    raw = compute(prepare_case(LoadedCase(case), engine.card), engine, SegmentOptions(tta=tta, uncertainty=True))
    nothing = raw.filtered._replace(classes=np.zeros_like(raw.filtered.classes), dropped_components=1, dropped_voxels=9)
    found = finish(replace(raw, filtered=nothing), engine.card)
    assert not found.labels.array.any() and found.entropy.array.any()
    assert found.dropped_ml == pytest.approx(9 / 1000)
    whole = finish(raw, engine.card).intervals["whole"]
    assert found.intervals["whole"].most_ml < whole.most_ml


def test_a_scan_of_the_spacing_of_the_model_is_computed_as_it_is(engine, case, monkeypatch):
    expected = predict(case, engine)
    cube = {name: image.with_array(image.array) for name, image in case.images.items()}
    for image in cube.values():
        image.affine[:3, :3] = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0) * 0.95
    found = predict(Case("pat1", cube), at_spacing(engine, monkeypatch, 1.0))
    np.testing.assert_array_equal(found.labels.array, expected.labels.array)
    assert not found.notes and found.labels.on_grid_of(cube["flair"])


def test_a_picture_shows_the_scan_on_the_grid_of_the_result(engine, case, monkeypatch):
    found = predict(case, at_spacing(engine, monkeypatch, 1.0))
    assert found.figure() is not None


def test_a_label_map_given_as_a_sequence_is_refused_before_it_is_interpolated(engine, case, monkeypatch, rng):
    labels = rng.integers(0, 4, case.reference.shape).astype(np.uint8)
    images = {**case.images, "t1c": case.reference.with_array(np.kron(labels[:2, :2, :2], np.ones((5, 11, 10))))}
    with pytest.raises(ImageError, match="t1c holds only"):
        predict(Case("pat1", images), at_spacing(engine, monkeypatch, 1.0))
