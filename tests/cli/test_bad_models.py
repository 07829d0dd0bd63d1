"""A model that is not what its card says, or that could execute code, is refused in one sentence."""

import json
import pickle
import shutil

import pytest

from brainsegnet.model.store import open_model, save_model

CPU = ("--device", "cpu", "--threads", 1)


def card_of(model):
    return json.loads((model / "card.json").read_text())


def spoil_weights(model):
    path = model / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def drop_a_tensor(model):
    opened = open_model(model)
    tensors = dict(opened.tensors())
    tensors.pop("classify.bias")
    save_model(model, opened.card, tensors)


def spoil_a_value(model):
    opened = open_model(model)
    tensors = {name: tensor.clone() for name, tensor in opened.tensors().items()}
    tensors["classify.weight"].view(-1)[3] = float("nan")
    save_model(model, opened.card, tensors)


def only_a_pickle(model):
    shutil.rmtree(model)
    model.mkdir()
    (model / "model.pt").write_bytes(pickle.dumps({"a": 1}))


def pickle_weights(model):
    (model / "weights.safetensors").unlink()
    (model / "weights.pth").write_bytes(pickle.dumps({"a": 1}))


MODELS = {
    "pickle": (only_a_pickle, "only model.pt, a pickle, which can execute code"),
    "pickled weights": (pickle_weights, "weights.pth is a pickle, which can execute code"),
    "wrong hash": (spoil_weights, "is not the file that its card describes (SHA-256 differs)"),
    "missing tensor": (drop_a_tensor, "lacks 1 tensors, classify.bias first"),
    "NaN": (spoil_a_value, "weights.safetensors holds NaN or infinite weights, in classify.weight first"),
    "newer card": (
        lambda model: (model / "card.json").write_text(json.dumps({**card_of(model), "format": 2})),
        "has format 2, this version reads up to 1; update it",
    ),
    "no JSON": (lambda model: (model / "card.json").write_text("{"), "is not JSON"),
    "no card": (lambda model: (model / "card.json").unlink(), "holds no card.json"),
    "missing folder": (shutil.rmtree, "does not exist; name a folder that training wrote"),
}


@pytest.mark.parametrize(("spoil", "sentence"), MODELS.values(), ids=MODELS)
def test_segment_refuses_a_model_that_cannot_be_trusted(run, left, phantoms, strict, tmp_path, spoil, sentence):
    shutil.copytree(strict, tmp_path / "model")
    spoil(tmp_path / "model")
    out = tmp_path / "out" / "a.nii.gz"
    ended = run("segment", phantoms / "phantom0000", "--model", tmp_path / "model", "--out", out, *CPU)
    assert ended.code == 1 and sentence in ended.sentence and str(tmp_path / "model") in ended.sentence
    assert not left(tmp_path / "out")


@pytest.mark.parametrize("name", ["NaN", "wrong hash", "newer card", "no JSON", "pickled weights"])
def test_inspect_says_what_segment_would_refuse(run, strict, tmp_path, name):
    spoil, sentence = MODELS[name]
    shutil.copytree(strict, tmp_path / "model")
    spoil(tmp_path / "model")
    ended = run("inspect", tmp_path / "model")
    assert ended.code == 1 and sentence in ended.sentence


def test_a_model_file_instead_of_its_folder_is_refused(run, phantoms, strict, tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"a": 1}))
    for model in (tmp_path / "model.pt", strict / "weights.safetensors"):
        ended = run("segment", phantoms / "phantom0000", "--model", model, "--out", tmp_path / "a.nii.gz")
        assert ended.code == 1 and ("is a pickle" if model.suffix == ".pt" else "is a file") in ended.sentence
