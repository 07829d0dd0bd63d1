"""Laws of the ranking: it knows which way is better, ties share, and order of naming changes nothing."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from brainsegnet import rank
from brainsegnet.benchmark.ranking import (
    RANKABLE,
    case_ranks,
    console_tables,
    pairs_csv,
    rank_models,
    ranking_csv,
    ranking_json,
    ranking_markdown,
)
from brainsegnet.errors import BrainSegNetError, DatasetError, OutputError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.lesion_matching import LesionRule
from brainsegnet.metrics.scores import ScoreRules
from brainsegnet.volume import LabelMap


def scores(seed, cases=8, better=0.0):
    """Two regions, Dice, HD95 and volume error; `better` raises Dice, lowers HD95 and the size of the error."""
    rng = np.random.default_rng(seed)
    return {
        f"pat|{i}": {
            region: {
                "dice": 0.6 + better + 0.01 * rng.random(),
                "hd95_mm": 9 - 9 * better + 0.01 * rng.random(),
                "volume_error_ml": rng.choice([-1, 1]) * (5 - 5 * better + 0.01 * rng.random()),
            }
            for region in ("whole", "core[x]")
        }
        for i in range(cases)
    }


@pytest.fixture
def models():
    return {"poor": scores(1), "good": scores(2, better=0.3), "fair": scores(3, better=0.1)}


@pytest.mark.parametrize("metric", ["dice", "hd95_mm", "volume_error_ml"])
def test_the_better_model_is_first_whatever_the_metric(models, metric):
    ranking = rank_models(models, [metric])
    assert [(s.model, s.place, s.mean_rank) for s in ranking.models] == [
        ("good", 1, 1),
        ("fair", 2, 2),
        ("poor", 3, 3),
    ]
    assert [s.first for s in ranking.models] == [1, 0, 0]
    assert ranking.means["good"]["whole"]["volume_error_ml" if metric == "volume_error_ml" else metric] >= 0


def test_ranks_are_those_of_scipy_averaged_within_the_case(rng):
    figures = rng.integers(0, 4, (5, 3, 4)) / 8
    ranks = case_ranks(figures, [False, True, False])
    expected = np.stack([stats.rankdata(sign * figures[:, k], axis=1) for k, sign in enumerate((-1, 1, -1))])
    assert np.allclose(ranks, expected.mean(axis=0))
    assert np.allclose(ranks.sum(axis=1), 1 + 2 + 3 + 4)


def test_equal_models_share_the_first_place_and_no_test_tells_them_apart():
    ranking = rank_models({"a": scores(1), "b": scores(1), "c": scores(2, better=-0.2)})
    assert [(s.model, s.place, s.mean_rank) for s in ranking.models] == [("a", 1, 1.5), ("b", 1, 1.5), ("c", 3, 3)]
    assert [s.first for s in ranking.models] == [0.5, 0.5, 0]
    assert ranking.rank_tests[0].p_value == 1
    pair = next(c for c in ranking.score_tests if (c.a, c.b) == ("a", "b"))
    assert (pair.difference, pair.test.equal, pair.test.p_value) == (0, 8, 1)


def test_naming_the_models_in_another_order_changes_signs_only(models):
    one, other = rank_models(models), rank_models(dict(reversed(models.items())))
    assert one.models == other.models
    swapped = {(c.region, c.metric, c.b, c.a): c for c in other.score_tests}
    for c in one.score_tests:
        twin = swapped[c.region, c.metric, c.a, c.b]
        assert (c.difference, c.test) == (pytest.approx(-twin.difference), twin.test)
        assert c.interval == pytest.approx((-twin.interval[1], -twin.interval[0]), abs=2e-3)


def test_each_pair_is_tested_and_adjusted_for_the_number_of_pairs(models):
    ranking = rank_models(models)
    assert len(ranking.rank_tests) == 3 and len(ranking.score_tests) == 3 * 2 * 2
    assert {t.p_value for t in ranking.rank_tests} == {2 / 2**8}
    assert {t.p_adjusted for t in ranking.rank_tests} == {6 / 2**8}
    for c in ranking.score_tests:
        assert c.interval[0] <= c.difference <= c.interval[1] and c.p_adjusted >= c.test.p_value


def test_two_cases_have_no_interval_and_a_warning():
    ranking = rank_models({"a": scores(1, cases=2), "b": scores(2, cases=2)})
    assert ranking.models[0].interval is None and ranking.score_tests[0].interval is None
    text = ranking_markdown(ranking)
    assert "In 4 of 4 comparisons fewer than six cases differ: p cannot fall below 0.5 there" in text
    assert "bootstrap over cases" not in text


def test_what_cannot_be_ranked_is_refused(models):
    with pytest.raises(DatasetError, match="two models or more, not of 1"):
        rank_models({"a": models["good"]})
    with pytest.raises(BrainSegNetError, match="ranked by speed; choose from dice, sensitivity"):
        rank_models(models, ["dice", "speed"])
    with pytest.raises(BrainSegNetError, match="cannot be ranked by none"):
        rank_models(models, [])
    with pytest.raises(DatasetError, match=r"good has no assd_mm of case pat\|0, whole|poor has no assd_mm"):
        rank_models(models, ["assd_mm"])
    less = {name: s for name, s in models["fair"].items() if name != "pat|3"}
    with pytest.raises(DatasetError, match=r"good was scored on case pat\|3 but fair was not"):
        rank_models({"good": models["good"], "fair": less})
    with pytest.raises(DatasetError, match=r"fair was scored on case pat\|3 but good was not|has no case"):
        rank_models({"good": {}, "fair": {}})
    odd = {**models["fair"], "pat|2": {"whole": models["fair"]["pat|2"]["whole"]}}
    with pytest.raises(DatasetError, match=r"fair, case pat\|2: scores of whole instead of whole, core"):
        rank_models({"good": models["good"], "fair": odd})
    assert "predicted_volume_ml" not in RANKABLE


def test_tables_hold_the_same_figures(models):
    ranking = rank_models(models)
    places = list(csv.DictReader(io.StringIO(ranking_csv(ranking))))
    assert [(row["model"], float(row["mean_rank"])) for row in places] == [("good", 1), ("fair", 2), ("poor", 3)]
    pairs = list(csv.DictReader(io.StringIO(pairs_csv(ranking))))
    assert len(pairs) == 3 + 12
    assert [float(row["p_value"]) for row in pairs[3:]] == [c.test.p_value for c in ranking.score_tests]
    document = json.loads(ranking_json(ranking))
    assert document["standings"][0]["model"] == "good" and len(document["comparisons"]) == 12
    assert document["comparisons"][0]["test"]["p_value"] == ranking.score_tests[0].test.p_value
    assert document["notes"][0].startswith("Rank 1 is best")
    markdown = ranking_markdown(ranking)
    assert "| 1.00 | 1.00 to 1.00 | 100 % |" in " ".join(markdown.split()).replace("|  ", "| ")


def test_the_console_fits_80_columns_and_shows_names_as_they_are(models):
    out = io.StringIO()
    console = Console(width=80, file=out, color_system=None)
    for table in console_tables(rank_models(models)):
        console.print(table.to_rich())
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "core[x] hd95_mm" in text and "poor - good" in text


@pytest.fixture(scope="module")
def scored(phantoms, tmp_path_factory):
    """Scores of a model that is always right and of one that is a voxel off, as `evaluate` writes them."""
    root = tmp_path_factory.mktemp("models")
    for model, shift in (("right", 0), ("off", 1)):
        folder = root / model / "predictions"
        folder.mkdir(parents=True)
        for case in find_cases([phantoms]):
            truth = read_labels(case.lesion)
            moved = LabelMap(truth.array[:, :, [*range(shift, 40), *range(shift)]], truth.affine)
            write_image(moved, folder / f"{case.name}.nii.gz")
        evaluate(folder, phantoms, "brats2015", root / model)
    return root


def edited(scored, tmp_path, edit, name="edited"):
    document = json.loads((scored / "off" / "scores.json").read_text())
    edit(document)
    (tmp_path / name).mkdir()
    (tmp_path / name / "scores.json").write_text(json.dumps(document))
    return tmp_path / name


def test_files_and_folders_are_ranked_and_written(scored, tmp_path):
    ranking = rank([scored / "off", scored / "right" / "scores.json"], tmp_path / "out")
    assert [(s.model, s.place) for s in ranking.models] == [("right", 1), ("off", 2)]
    assert ranking.cases == ("phantom0000", "phantom0001", "phantom0002")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "pairs.csv",
        "ranking.csv",
        "ranking.json",
        "ranking.md",
    ]
    assert json.loads((tmp_path / "out" / "ranking.json").read_text())["metrics"] == ["dice", "hd95_mm"]


def test_every_score_of_evaluate_can_be_ranked_by(scored):
    ranking = rank([scored / "off", scored / "right"], metrics=RANKABLE)
    assert ranking.models[0].model == "right" and len(ranking.score_tests) == 3 * len(RANKABLE)


def test_models_are_called_after_what_tells_them_apart(scored, tmp_path):
    (tmp_path / "a" / "scores").mkdir(parents=True)
    (tmp_path / "b" / "scores").mkdir(parents=True)
    for target, source in (("a", "right"), ("b", "off")):
        (tmp_path / target / "scores" / "scores.json").write_bytes((scored / source / "scores.json").read_bytes())
    (tmp_path / "unet.json").write_bytes((scored / "off" / "scores.json").read_bytes())
    ranking = rank([tmp_path / "a" / "scores", tmp_path / "unet.json"])
    assert [s.model for s in ranking.models] == ["scores", "unet"]
    ranking = rank([tmp_path / "a" / "scores", tmp_path / "b" / "scores"])
    assert [s.model for s in ranking.models] == [str(tmp_path / "a" / "scores"), str(tmp_path / "b" / "scores")]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda d: d["cases"].pop("phantom0001"), "right was scored on case phantom0001 but edited was not"),
        (lambda d: d.update(task="brats2021"), "right was scored in task brats2015 but edited in brats2021"),
        (lambda d: d["rules"].update(tolerance_mm=2.0), "evaluate all by the same"),
        (lambda d: d.pop("cases"), "is no scores.json as evaluate writes it with --out: cases is missing"),
        (lambda d: d["cases"]["phantom0000"]["core"].update(dice=float("nan")), "is no scores.json"),
        (
            lambda d: d["cases"]["phantom0000"]["core"].update(true_volume_ml=1.5),
            "case phantom0000: the true core has .* evaluate both against the same truths",
        ),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_and_nothing_is_written(scored, tmp_path, edit, sentence):
    with pytest.raises(DatasetError, match=sentence):
        rank([scored / "right", edited(scored, tmp_path, edit)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_scores_are_refused(scored, tmp_path):
    (tmp_path / "notes.txt").write_text("no scores")
    with pytest.raises(
        DatasetError, match=r"notes.txt is no scores.json as evaluate writes it with --out: Invalid JSON"
    ):
        rank([scored / "right", tmp_path / "notes.txt"])
    with pytest.raises(DatasetError, match=r"nowhere cannot be read: No such file or directory"):
        rank([scored / "right", tmp_path / "nowhere"])
    with pytest.raises(DatasetError, match=r"right.scores.json is named twice"):
        rank([scored / "right", scored / "right" / "scores.json"])
    with pytest.raises(DatasetError, match="two models or more, not of 1"):
        rank([scored / "right"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        rank([scored / "right", scored / "off"], tmp_path / "file" / "out")


def test_the_rules_of_evaluate_change_the_scores_they_govern(scored, phantoms):
    lenient, strict = (
        evaluate(scored / "off" / "predictions", phantoms, "brats2015", rules=rules)
        for rules in (ScoreRules(20.0), ScoreRules(0.0, LesionRule(dilation=1)))
    )
    for case, scores in lenient.scores.items():
        assert scores["whole"].surface_dice > strict.scores[case]["whole"].surface_dice
        assert scores["whole"].dice == strict.scores[case]["whole"].dice
    assert strict.rules.lesions.dilation == 1
