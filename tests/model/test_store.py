import hashlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from brainsegnet._machine import find_host, find_versions
from brainsegnet.errors import ModelError, OutputError
from brainsegnet.model.card import Data, ExportNote, IntervalNote, SubsetInterval, TrainingNote
from brainsegnet.model.store import open_model, resolve_model, save_exports, save_model


def test_a_model_comes_back_bit_for_bit(net, model, image):
    x = torch.from_numpy(image)[None]
    again = open_model(model.folder)
    with torch.inference_mode():
        assert torch.equal(again.build()(x), net(x))
    assert again == model and not again.build().training


def test_a_card_without_subsets_and_calibration_loads_and_one_with_them_comes_back(net, card, calibration, tmp_path):
    """Cards of earlier releases have neither; what is read is as if nothing was measured."""
    note = IntervalNote(alpha=0.2, coverage=0.8, cases=11, subsets={"t1": SubsetInterval(alpha=0.01)})
    full = card.model_copy(update={"intervals": {"whole": note}, "calibration": {"whole": calibration}})
    save_model(tmp_path / "full", full, net.state_dict())
    written = json.loads((tmp_path / "full" / "card.json").read_text())
    read = open_model(tmp_path / "full").card
    assert read.intervals == full.intervals and read.calibration == full.calibration
    del written["calibration"], written["intervals"]["whole"]["subsets"]
    (tmp_path / "full" / "card.json").write_text(json.dumps(written))
    old = open_model(tmp_path / "full").card
    assert old.calibration == {} and old.intervals == {"whole": note.model_copy(update={"subsets": {}})}


def test_a_card_says_the_same_after_a_round_trip(net, card, tmp_path):
    training = TrainingNote(
        recipe={"name": "quick", "widths": [4, 4, 8, 8]},
        budget={"minutes": 15},
        seed=5,
        data=Data(cases=("a", "b"), count=2, sources="phantoms, CC0"),
        held_out=("c",),
        scores={"whole": 0.75, "core": float("nan")},
    )
    full = card.model_copy(update={"training": training, "versions": find_versions()})
    save_model(tmp_path / "full", full, net.state_dict())
    read = open_model(tmp_path / "full").card
    assert read.training.scores == {"whole": 0.75, "core": None}
    assert read.training.model_copy(update={"scores": training.scores}) == training
    assert (read.task, read.created, read.versions) == (card.task, card.created, find_versions())
    written = json.loads((tmp_path / "full" / "card.json").read_text())
    assert written["input"]["sequences"] == ["flair", "t1", "t1c"] and written["versions"]["torch"]
    assert written["intended_use"] == "research software, not a medical device"


def test_a_training_folder_opens_its_best_model_else_its_last(net, card, tmp_path):
    run = tmp_path / "run"
    for kind in ("last", "best", "."):
        save_model(run / kind, card, net.state_dict())
        assert open_model(run).folder == run / kind


def test_saving_again_replaces_the_model_and_nothing_else(net, model, card):
    (model.folder / "log.csv").write_text("step,loss\n")
    with torch.no_grad():
        net.classify.bias += 1
    save_model(model.folder, card, net.state_dict())
    assert sorted(os.listdir(model.folder)) == ["card.json", "log.csv", "weights.safetensors"]
    assert torch.equal(open_model(model.folder).build().classify.bias, net.classify.bias)


def test_a_failing_save_leaves_the_former_model_whole(model, card):
    weights = {"classify.bias": torch.zeros(4), "broken": "no tensor"}
    with pytest.raises(AttributeError):
        save_model(model.folder, card, weights)
    assert open_model(model.folder) == model
    assert sorted(os.listdir(model.folder)) == ["card.json", "weights.safetensors"]


def test_a_folder_that_cannot_be_made_is_one_sentence(net, card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"card\.json cannot be written|weights\.safetensors cannot be written"):
        save_model(tmp_path / "file" / "model", card, net.state_dict())


def refusal(folder):
    """The one sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        open_model(folder).build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_card(model, **changes):
    path = model.folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return model.folder


def test_what_is_not_there_is_refused(tmp_path):
    assert "nowhere does not exist; name a folder" in refusal(tmp_path / "nowhere")
    assert "holds no card.json; name a folder" in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    assert "notes.txt is a file; name the folder" in refusal(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["model.pt", "model.PTH", "epoch.ckpt", "pytorch_model.bin"])
def test_a_pickle_is_refused_as_file_and_in_a_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"never read")
    assert f"{name} is a pickle, which can execute code" in refusal(tmp_path / name)
    assert f"only {name}, a pickle, which can execute code" in refusal(tmp_path)


def test_a_pickle_beside_a_card_is_refused(model):
    os.replace(model.folder / "weights.safetensors", model.folder / "weights.pt")
    assert "holds no weights.safetensors; weights.pt is a pickle" in refusal(model.folder)


def test_a_pickle_under_the_right_name_and_hash_is_not_executed(model, tmp_path):
    path = model.folder / "weights.safetensors"
    torch.save({"classify.bias": torch.zeros(4)}, path)
    assert "SHA-256 differs" in refusal(model.folder)
    data = path.read_bytes()
    note = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert "not a safetensors file" in refusal(edit_card(model, weights=note))


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("", "is not JSON"),
        ('{"format": 1', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no card of a model"),
        ("{}", "is no card of a model: name"),
        ('{"format": 2, "meaning": "another"}', "has format 2, this version reads up to 1; update it"),
    ],
)
def test_a_bad_card_is_refused(model, content, sentence):
    (model.folder / "card.json").write_text(content)
    assert sentence in refusal(model.folder)


def test_a_card_of_bytes_is_refused(model):
    (model.folder / "card.json").write_bytes(b"\xff\xfe\x00")
    assert "is not JSON" in refusal(model.folder)


def test_a_card_that_contradicts_itself_is_refused(model):
    note = {"file": "../elsewhere.safetensors", "sha256": "0" * 64, "bytes": 1}
    assert "weights.file" in refusal(edit_card(model, weights=note))
    assert "named twice" in refusal(edit_card(model, weights=None, input={"sequences": ["t1", "t1"]}))
    assert "does not say which weights" in refusal(edit_card(model, input={"sequences": ["t1", "t2"]}))
    assert "surprise" in refusal(edit_card(model, surprise=1))


def test_altered_weights_are_refused(model):
    path = model.folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "is not the file that its card describes (SHA-256 differs)" in refusal(model.folder)
    path.write_bytes(data[:-8])
    assert "is not the file that its card describes" in refusal(model.folder)
    path.unlink()
    assert "holds no weights.safetensors; copy the whole model again" in refusal(model.folder)


def test_weights_that_do_not_fit_the_card_are_refused(net, card, model, tmp_path):
    fewer = {name: tensor for name, tensor in net.state_dict().items() if name != "classify.bias"}
    save_model(tmp_path / "fewer", card, fewer)
    assert "lacks 1 tensors, classify.bias first" in refusal(tmp_path / "fewer")
    wider = {"widths": [4, 4, 8, 16], "refined": 8}
    assert "but the card describes" in refusal(edit_card(model, network=wider))


def test_a_folder_that_cannot_be_read_is_refused(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser can read every folder")
    (tmp_path / "closed").mkdir(mode=0)
    assert "cannot be read: Permission denied" in refusal(tmp_path / "closed")


def test_without_torch_a_model_is_checked_and_its_use_is_one_sentence(model):
    """A fresh Python in which torch cannot be imported."""
    program = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from brainsegnet.errors import MissingExtra
from brainsegnet.inference import predict
from brainsegnet.model.store import open_model
model = open_model(Path({str(model.folder)!r}))
def use_engine():
    import brainsegnet.inference.torch_backend
for use in (model.tensors, model.build, use_engine):
    try:
        use()
    except MissingExtra as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ['torch is not installed; run: pip install "brainsegnet[train]"'] * 3


@pytest.fixture
def killed(model, monkeypatch):
    """Saves as a process that is killed when the second of two files is to get its name."""
    import brainsegnet._atomic as atomic

    def kill(save):
        swap, count = atomic._swap, []

        def stop(temporary, path):
            count.append(path.name)
            if len(count) == 2:
                raise KeyboardInterrupt
            swap(temporary, path)

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "_swap", stop)
            patch.setattr(atomic, "_remove", lambda path: None)
            with pytest.raises(KeyboardInterrupt):
                save()
        return count

    return kill


def test_a_model_that_was_killed_between_weights_and_card_is_the_new_one(net, model, card, killed):
    with torch.no_grad():
        net.classify.bias += 1
    assert killed(lambda: save_model(model.folder, card, net.state_dict())) == ["weights.safetensors", "card.json"]
    assert torch.equal(open_model(model.folder).build().classify.bias, net.classify.bias)
    assert sorted(os.listdir(model.folder)) == ["card.json", "weights.safetensors"]


def test_exports_that_were_killed_before_the_card_are_the_new_ones(model, killed):
    def write(text):
        def into(folder):
            (folder / "fp16.xml").write_text(text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            return {"fp16": ExportNote(files={"fp16.xml": digest}, weights=model.card.weights.sha256)}

        return into

    before = save_exports(model, write("former"))
    assert killed(lambda: save_exports(before, write("new"))) == ["export", "card.json"]
    assert open_model(model.folder).exported("fp16").read_text() == "new"
    assert sorted(os.listdir(model.folder)) == ["card.json", "export", "weights.safetensors"]


def test_a_card_of_weights_that_never_came_is_removed(model):
    left = model.folder / f".brainsegnet~{find_host()}~{os.getpid()}~0123abcd~card.json"
    left.write_text((model.folder / "card.json").read_text().replace(model.card.weights.sha256, 64 * "0"))
    assert open_model(model.folder) == model
    assert sorted(os.listdir(model.folder)) == ["card.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ({"widths": [10**20] * 4}, "widths.0: Input should be less than or equal to 8192"),
        ({"widths": [8] * 3000}, "widths: Tuple should have at most 12 items"),
        ({"stride": [10**9, 1, 1]}, "stride.0: Input should be less than or equal to 8"),
        ({"refined": 0}, "refined: Input should be greater than or equal to 1"),
        ({"widths": [8192] * 12}, "lacks 328 tensors"),
    ],
)
def test_a_network_that_would_fill_the_memory_is_refused_before_it_is_built(model, network, sentence):
    path = model.folder / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"network": card["network"] | network}))
    began = time.process_time()
    with pytest.raises(ModelError, match=sentence):
        open_model(model.folder).build()
    assert time.process_time() - began < 5


def test_the_model_of_brains_segments_no_lesions():
    with pytest.raises(
        ModelError, match=r"^model brain finds the brain .* name another one: perfusion, stroke, tumour$"
    ):
        resolve_model("brain")
