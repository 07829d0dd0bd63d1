import json

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image


def test_evaluate_and_rank_make_a_ranking_of_two_models(run, phantoms, tmp_path):
    first, second, *_ = (case.lesion for case in find_cases([phantoms]))
    for model, lesion in (("right", first), ("wrong", second)):
        predicted = tmp_path / model / "phantom0000.nii.gz"
        predicted.parent.mkdir()
        write_image(read_labels(lesion), predicted)
        flags = ("--out", tmp_path / model / "scores", "--tolerance-mm", 2, "--lesions", "brats2023")
        ended = run("evaluate", predicted, phantoms / "phantom0000", "--task", "brats2015", *flags)
        assert ended.code == 0 and "within 2 mm" in ended.out and "as in BraTS 2023" in " ".join(ended.out.split())
    scores = [tmp_path / model / "scores" / "scores.json" for model in ("wrong", "right")]
    ended = run("rank", *scores, "--out", tmp_path / "ranking", "--metrics", "surface_dice", "lesion_f1")
    assert ended.code == 0 and not ended.err and "whole surface_dice" in ended.out
    assert "fewer than six cases differ" in " ".join(ended.out.split())
    document = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    assert document["standings"][0]["model"] == str(tmp_path / "right" / "scores")
    assert document["metrics"] == ["surface_dice", "lesion_f1"]


def test_flags_that_cannot_be_meant_are_refused(run, left, phantoms, tmp_path):
    lesion = find_cases([phantoms])[0].lesion
    common = ("evaluate", lesion, lesion, "--task", "brats2015", "--out", tmp_path / "out")
    ended = run(*common, "--tolerance-mm", -1)
    assert ended.code == 1 and "tolerance must be a number of millimetres from 0 up, not -1.0" in ended.sentence
    assert run(*common, "--lesions", "all").code == 2
    ended = run("rank", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "out")
    assert ended.code == 1 and "a.json cannot be read: No such file or directory" in ended.sentence
    assert "seed must be 0 or more, not -1" in run("rank", tmp_path / "a.json", "--seed", -1).sentence
    assert not left(tmp_path)
