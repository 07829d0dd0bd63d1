import json

import pytest

from brainsegnet import rank
from brainsegnet.errors import DatasetError, OutputError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.lesions import LesionRule
from brainsegnet.metrics.scores import ScoreRules
from brainsegnet.volume import LabelMap


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
    assert [(s.model, s.place) for s in ranking.standings] == [("right", 1), ("off", 2)]
    assert ranking.cases == ("phantom0000", "phantom0001", "phantom0002")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "pairs.csv",
        "ranking.csv",
        "ranking.json",
        "ranking.md",
    ]
    assert json.loads((tmp_path / "out" / "ranking.json").read_text())["metrics"] == ["dice", "hd95_mm"]


def test_every_score_of_evaluate_can_be_ranked_by(scored):
    from brainsegnet.benchmark.ranking import RANKABLE

    ranking = rank([scored / "off", scored / "right"], metrics=RANKABLE)
    assert ranking.standings[0].model == "right" and len(ranking.comparisons) == 3 * len(RANKABLE)


def test_scores_of_version_0_1_are_read(scored, tmp_path):
    old = (
        "dice",
        "sensitivity",
        "specificity",
        "precision",
        "hd95_mm",
        "predicted_volume_ml",
        "true_volume_ml",
        "empty",
    )

    def age(document):
        for key in ("rules", "interval", "lesions", "surface_rule", "lesion_rule", "interval_rule"):
            del document[key]
        for regions in document["cases"].values():
            for region, row in regions.items():
                regions[region] = {key: row[key] for key in old}

    assert rank([scored / "right", edited(scored, tmp_path, age)]).standings[0].model == "right"


def test_models_are_called_after_what_tells_them_apart(scored, tmp_path):
    (tmp_path / "a" / "scores").mkdir(parents=True)
    (tmp_path / "b" / "scores").mkdir(parents=True)
    for target, source in (("a", "right"), ("b", "off")):
        (tmp_path / target / "scores" / "scores.json").write_bytes((scored / source / "scores.json").read_bytes())
    (tmp_path / "unet.json").write_bytes((scored / "off" / "scores.json").read_bytes())
    ranking = rank([tmp_path / "a" / "scores", tmp_path / "unet.json"])
    assert [s.model for s in ranking.standings] == ["scores", "unet"]
    ranking = rank([tmp_path / "a" / "scores", tmp_path / "b" / "scores"])
    assert [s.model for s in ranking.standings] == [str(tmp_path / "a" / "scores"), str(tmp_path / "b" / "scores")]


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
