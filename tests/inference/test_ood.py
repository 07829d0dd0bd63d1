from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import ndimage

from brainsegnet.inference.ood import MIRROR, find_warnings, measure_features
from brainsegnet.io.cases import common_sequences, find_cases, load_case
from brainsegnet.model.card import Profile
from brainsegnet.preprocessing.geometry import Turn, turn_array
from brainsegnet.preprocessing.prepare import Prepared, prepare
from brainsegnet.simulation.phantom import simulate_phantom
from brainsegnet.task import BRATS2021, ISLES2022
from brainsegnet.volume import Case, Volume
from release.calibration import measure_profile

FLIPS = {"upside down": Turn(flips=(True, False, False)), "back to front": Turn(flips=(False, True, False))}
PERMUTED = [
    Turn(axes, (flip, False, False)) for axes in permutations(range(3)) if axes != (0, 1, 2) for flip in (False, True)
]
SHAPE = (42, 76, 64)


def warnings_on(case: Case, profile: Profile) -> list[str]:
    return find_warnings(prepare(case), case.reference.spacing_mm, profile)


def profile_of(cases) -> Profile:
    return measure_profile((prepare(case), case.reference.spacing_mm) for case in cases)


def named(case: Case, names: dict[str, str]) -> Case:
    """Images of a case under other names: name to the sequence that it is given."""
    return Case(case.name, {name: case.images[sequence] for name, sequence in names.items()})


def exchanged(case: Case, one: str, other: str) -> Case:
    return named(case, {name: {one: other, other: one}.get(name, name) for name in case.images})


def hidden_turn(case: Case, how: Turn) -> tuple[Prepared, tuple[float, float, float]]:
    """A head that lies otherwise than its header says, prepared, and its spacing."""
    prepared = prepare(case)
    upright_mm = [case.reference.spacing_mm[axis] for axis in prepared.turn.axes]
    d, h, w = (upright_mm[axis] for axis in how.axes)
    image, mask = turn_array(prepared.image, how), turn_array(prepared.mask, how)
    return replace(prepared, image=image, mask=mask, turn=Turn()), (d, h, w)


def with_scalp(case: Case, rng: np.random.Generator) -> Case:
    """Fat of 4 mm, uneven, around a dark bone of 5 mm, around the brain, in all sequences."""
    pad = round(20 / min(case.reference.spacing_mm))
    brain = np.pad(np.any([volume.array != volume.array.flat[0] for volume in case.images.values()], axis=0), pad)
    away_mm = ndimage.distance_transform_edt(~brain, sampling=case.reference.spacing_mm)
    bone, fat = (away_mm > 0) & (away_mm <= 5), (away_mm > 5) & (away_mm <= 9)
    images = {}
    for sequence, volume in case.images.items():
        inside = volume.array[volume.array != volume.array.flat[0]].astype(np.float64)
        bright = np.quantile(inside, {"t1": 0.98, "t1c": 0.97}.get(sequence, 0.85))
        array = np.pad(volume.array.astype(np.float64), pad, constant_values=volume.array.flat[0])
        array[bone] = 0.1 * np.median(inside) * rng.uniform(0.5, 1.5, np.count_nonzero(bone))
        array[fat] = bright * rng.normal(1.1, 0.15, np.count_nonzero(fat))
        images[sequence] = Volume(array, volume.affine)
    return Case(case.name, images)


@pytest.fixture(scope="module")
def heads():
    return [simulate_phantom(seed, SHAPE) for seed in range(6)]


@pytest.fixture(scope="module")
def profile(heads):
    return profile_of(heads[:4])


def test_an_unseen_head_gives_no_warning(heads, profile):
    for case in heads[4:]:
        assert warnings_on(case, profile) == []
        for name, volume in case.images.items():
            assert warnings_on(Case(case.name, {name: volume}), profile) == []


def test_exchanged_sequences_are_named(heads, profile):
    (said,) = warnings_on(exchanged(heads[4], "t1", "flair"), profile)
    assert said.startswith("flair and t1 seem to be exchanged; check")


def test_a_sequence_alone_under_a_wrong_name_is_found(heads, profile):
    (said,) = warnings_on(named(heads[4], {"t1": "t2"}), profile)
    assert said == "t1 looks like t2 of the training cases; check the file given as t1"


def test_one_image_under_two_names_is_found(heads, profile):
    said = warnings_on(named(heads[4], {"flair": "flair", "t1": "flair", "t2": "t2"}), profile)
    assert said == ["flair and t1 are the same image; give each sequence its own file, or leave one out"]


@pytest.mark.parametrize("words", FLIPS)
def test_a_header_that_hides_a_flip_is_found(heads, profile, words):
    said = find_warnings(*hidden_turn(heads[5], FLIPS[words]), profile)
    assert len(said) == 1 and said[0].startswith(f"the head seems to lie {words}:")


def test_left_and_right_exchanged_gives_no_warning(heads, profile):
    assert find_warnings(*hidden_turn(heads[5], Turn(flips=(False, False, True))), profile) == []


def test_scalp_is_the_only_warning(heads, profile, rng):
    (said,) = warnings_on(with_scalp(exchanged(heads[4], "t1", "t2"), rng), profile)
    assert said.endswith("remove the skull and set all outside the brain to 0")


def test_noise_in_the_air_is_not_taken_for_the_head(heads, profile, rng):
    noisy = {name: v.with_array(np.hypot(v.array, rng.normal(0, 9, v.shape))) for name, v in heads[4].images.items()}
    assert warnings_on(Case("noisy", noisy), profile) == warnings_on(heads[4], profile)


def test_a_model_trained_on_whole_heads_takes_them_and_still_finds_other_mistakes(heads, profile):
    """The training cases themselves give no warning."""
    cases = [with_scalp(case, np.random.default_rng(1)) for case in heads[:4]]
    seen = Profile.model_validate_json(profile_of(cases).model_dump_json())
    for case in cases:
        assert warnings_on(case, profile) and warnings_on(case, seen) == []
        (said,) = warnings_on(exchanged(case, "t1", "t2"), seen)
        assert said.startswith("t1 and t2 seem to be exchanged")


def test_half_a_head_is_found(heads, profile):
    low = {name: Volume(v.array[:18], v.affine) for name, v in heads[4].images.items()}
    assert any("give a scan of the whole brain" in said for said in warnings_on(Case("half", low), profile))


def test_a_profile_survives_json_and_is_small(profile):
    text = profile.model_dump_json()
    assert Profile.model_validate_json(text) == profile and len(text) < 4000
    assert profile.cases == 4 and set(profile.single) == {"flair", "t1", "t1c", "t2"} and len(profile.pairs) == 6


def test_a_profile_needs_a_case():
    with pytest.raises(ValueError, match="at least one case"):
        measure_profile([])


def test_features_do_not_depend_on_how_the_scan_is_stored(heads):
    prepared, spacing_mm = prepare(heads[0]), heads[0].reference.spacing_mm
    other = Turn((2, 0, 1), (True, False, True))
    stored = replace(prepared, turn=other.inverse)
    d, h, w = (spacing_mm[axis] for axis in other.axes)
    one, two = measure_features(prepared, spacing_mm), measure_features(stored, (d, h, w))
    np.testing.assert_allclose(one.shape, two.shape)
    np.testing.assert_allclose(one.single["t1"], two.single["t1"])


def test_features_of_a_pair_mirror(heads):
    """The features of (a, b) times `MIRROR` are those of (b, a)."""
    spacing_mm = heads[0].reference.spacing_mm
    one = measure_features(prepare(heads[0]), spacing_mm).pairs["flair", "t2"]
    two = measure_features(prepare(exchanged(heads[0], "flair", "t2")), spacing_mm).pairs["flair", "t2"]
    np.testing.assert_allclose(one, two * MIRROR, atol=1e-5)


def test_a_tiny_mask_is_measured_too(profile):
    """A mask between the voxels that are sampled."""
    array = np.zeros((9, 9, 9))
    array[4, 4, 4:6] = [1, 2]
    small = np.diag([0.5, 0.5, 0.5, 1.0])[[2, 1, 0, 3]]
    assert any(
        "give a scan of the whole brain" in said
        for said in warnings_on(Case("speck", {"t1": Volume(array, small)}), profile)
    )


def sparse(case: Case, step: int) -> Case:
    """Every `step`-th voxel, which is about what is sampled anyway."""
    affine = case.reference.affine.copy()
    affine[:3, :3] *= step
    taken = (slice(None, None, step),) * 3
    return Case(case.name, {name: Volume(v.array[taken].copy(), affine) for name, v in case.images.items()})


@pytest.fixture(scope="module")
def tumours(real_data):
    files = find_cases([real_data / "tumour/brats2021", real_data / "tumour/brats2023"])
    return [sparse(load_case(one, BRATS2021.sequences, BRATS2021, lesion=False), 4) for one in files]


@pytest.fixture(scope="module")
def judged(tumours):
    """Each tumour case with the profile of the others."""
    return [(case, profile_of(other for other in tumours if other is not case)) for case in tumours]


@pytest.fixture(scope="module")
def strokes(real_data):
    files = find_cases([real_data / "stroke/isles2022"])
    names = common_sequences(files, ISLES2022)
    cases = [sparse(load_case(one, names, ISLES2022, lesion=False), 2) for one in files]
    return [(case, profile_of(other for other in cases if other is not case)) for case in cases]


@pytest.mark.real
def test_no_real_scan_gives_a_warning_with_any_of_its_sequences(judged, strokes):
    for case, profile in [*judged, *strokes]:
        names = tuple(case.images)
        for count in range(1, len(names) + 1):
            for chosen in combinations(names, count):
                assert warnings_on(named(case, {name: name for name in chosen}), profile) == [], (case.name, chosen)


@pytest.mark.real
def test_brats_2015_gives_no_warning_beside_2021(tumours, real_data):
    profile = profile_of(tumours)
    for files in find_cases([real_data / "tumour/brats2015"]):
        case = sparse(load_case(files, ("flair", "t1c"), BRATS2021, lesion=False), 4)
        assert warnings_on(case, profile) == []


@pytest.mark.real
@pytest.mark.parametrize("pair", list(combinations(("flair", "t1", "t1c", "t2"), 2)), ids=" ".join)
def test_exchanged_real_sequences(judged, pair):
    words = f"{pair[0]} and {pair[1]} seem to be exchanged"
    found = [any(words in said for said in warnings_on(exchanged(case, *pair), profile)) for case, profile in judged]
    assert sum(found) >= (9 if pair == ("t1", "t1c") else len(found))


@pytest.mark.real
@pytest.mark.parametrize(
    ("given", "name", "least"),
    [
        ("flair", "t1", 8),
        ("t1", "flair", 8),
        ("t2", "flair", 9),
        ("flair", "t2", 7),
        ("t1", "t2", 11),
        ("t2", "t1", 11),
    ],
)
def test_real_sequences_alone_under_a_wrong_name(judged, given, name, least):
    found = [warnings_on(named(case, {name: given}), profile) for case, profile in judged]
    assert sum(any(f"{name} looks like" in line for line in said) for said in found) >= least


@pytest.mark.real
def test_exchanged_real_diffusion(strokes):
    for case, profile in strokes:
        assert any("exchanged" in said for said in warnings_on(exchanged(case, "dwi", "adc"), profile))
        assert warnings_on(named(case, {"dwi": "adc"}), profile)


@pytest.mark.real
def test_real_heads_that_lie_otherwise(judged, strokes):
    for place, (case, profile) in enumerate([*judged, *strokes]):
        for how in (*FLIPS.values(), *PERMUTED[place % 5 :: 5]):
            assert any("head seems to lie" in said for said in find_warnings(*hidden_turn(case, how), profile)), how


@pytest.mark.real
def test_scalp_around_real_brains(judged, strokes):
    rng = np.random.default_rng(0)
    for case, profile in [*judged, *strokes]:
        (said,) = warnings_on(with_scalp(case, rng), profile)
        assert "remove the skull" in said
