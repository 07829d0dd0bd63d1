"""Damaged and odd input of every kind, drawn by hypothesis: a sentence or a right result, and nothing left over.

`make test` draws a few inputs of each kind, `make nightly` five hundred in all. Whatever comes in, a verb ends in time,
with exit code 0, 1 or 2 and without a traceback. With 1, it has written nothing. With 0, what it has written is right.
"""

import csv
import json
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.model.store import hash_file, open_model
from damage import changed, damage

CPU = ("--device", "cpu", "--threads", 1)
SHARES = {"images": 0.3, "tables": 0.15, "YAML": 0.15, "JSON": 0.15, "weights": 0.15, "exports": 0.1}
NIGHTLY, DAILY = 500, 40


def share_of(kind):
    """Examples of a kind: of five hundred by night, of forty by day."""
    total = NIGHTLY if settings().max_examples > 100 else DAILY
    return settings(
        max_examples=max(int(SHARES[kind] * total), 1),
        phases=(Phase.reuse, Phase.generate),  # a counterexample is as small as what was drawn: runs take seconds
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def world(phantoms, strict, tmp_path_factory):
    """A case in each format, the model with an export, and what is right for them."""
    home = tmp_path_factory.mktemp("fuzz")
    (case, *_) = find_cases([phantoms])
    for suffix in (".nii.gz", ".nii", ".mha", ".nrrd"):
        folder = home / suffix[1:] / case.name
        folder.mkdir(parents=True)
        for name, path in case.images.items():
            write_image(read_image(path), folder / f"{name}{suffix}")
        write_image(read_labels(case.lesion), folder / f"lesion{suffix}")
    from brainsegnet.training.export import export_with

    model = Path(shutil.copytree(strict, home / "model"))
    export_with(open_model(model), {}, onnx=False)
    make_json(home, case, strict)
    return home


def make_json(home, case, model):
    """What else JSON stands in: a model, a prediction by torch, its scores, and a data set."""
    from brainsegnet.inference import SegmentOptions
    from brainsegnet.metrics.evaluate import evaluate
    from brainsegnet.pipeline.segment import segment

    documents = home / "json"
    shutil.copytree(home / "model", documents / "model")
    segment(home / "nii", model, documents / "found", SegmentOptions(device="cpu", threads=1))
    evaluate(documents / "found", [home / "nii"], "brats2015", documents / "scores")
    for folder, path in (("imagesTr", case.images["flair"]), ("labelsTr", case.lesion)):
        volume = read_image(path) if folder == "imagesTr" else read_labels(path)
        write_image(volume, documents / "decathlon" / folder / "a.nii.gz")
    names = {"modality": {"0": "FLAIR"}, "labels": {"0": "background", "1": "tumour"}}
    listed = {"training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}], "test": []}
    (documents / "decathlon" / "dataset.json").write_text(json.dumps({"name": "x", **names, **listed}))


def is_whole_gzip(content):
    """Whether Python's own reader takes the stream, its checksum included, whatever follows it."""
    stream = zlib.decompressobj(31)
    try:
        return bool(stream.decompress(content)) and stream.eof
    except zlib.error:
        return False


@share_of("images")
@given(data=st.data())
def test_images(obey, world, tmp_path_factory, data):
    suffix = data.draw(st.sampled_from([".nii.gz", ".nii", ".mha", ".nrrd"]))
    folder = Path(shutil.copytree(world / suffix[1:], tmp_path_factory.mktemp("images") / "data"))
    image = folder / "phantom0000" / f"{data.draw(st.sampled_from(['flair', 't1c', 'lesion']))}{suffix}"
    image.write_bytes(data.draw(damage(image.read_bytes())))
    whole = suffix != ".nii.gz" or is_whole_gzip(image.read_bytes())
    verb = data.draw(st.sampled_from(["segment", "inspect", "evaluate"]))
    if verb == "segment":
        done = obey("segment", folder, "--model", world / "model", "--out", ..., *CPU)
        assert whole or not done or image.name.startswith("lesion")
    elif verb == "inspect":
        obey("inspect", folder)
    else:
        obey("evaluate", image, folder / "phantom0000" / f"lesion{suffix}", "--task", "brats2015", "--out", ...)
    shutil.rmtree(folder)


@share_of("tables")
@given(data=st.data())
def test_tables(obey, world, tmp_path_factory, data):
    home, kind = tmp_path_factory.mktemp("tables"), data.draw(st.sampled_from(["csv", "yaml"]))
    names = ("flair", "t1", "t1c", "t2", "lesion")
    rows = [["a", name, str(world / "nii" / "phantom0000" / f"{name}.nii")] for name in names]
    table = home / f"cases.{kind}"
    if data.draw(st.booleans()):
        row = data.draw(st.sampled_from(rows))
        row[data.draw(st.integers(0, 2))] = data.draw(st.text(max_size=20) | st.sampled_from(["..", "/", str(world)]))
    if kind == "csv":
        with table.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows([["case", "sequence", "path"], *rows])
    else:
        table.write_text(json.dumps({"a": {row[1]: row[2] for row in rows}}), encoding="utf-8", errors="surrogatepass")
    if data.draw(st.booleans()):
        table.write_bytes(data.draw(damage(table.read_bytes())))
    obey("segment", table, "--model", world / "model", "--out", ..., *CPU)
    shutil.rmtree(home)


TASK = {
    "name": "mine", "sequences": ["flair", "t1", "t1c", "t2"], "labels": {"1": "a", "2": "b", "3": "c", "4": "d"},
    "regions": {"whole": [1, 2, 3, 4], "core": [1]}, "patch": [4, 32, 32], "normalisation": "median-sd",
}  # fmt: skip


@share_of("YAML")
@given(data=st.data())
def test_yaml(obey, world, tmp_path_factory, data):
    home = tmp_path_factory.mktemp("yaml")
    task, truth = home / "task.yaml", world / "nii" / "phantom0000" / "lesion.nii"
    document = data.draw(changed(TASK)) if data.draw(st.booleans()) else TASK
    task.write_text(json.dumps(document), encoding="utf-8")
    if data.draw(st.booleans()):
        task.write_bytes(data.draw(damage(task.read_bytes())))
    if data.draw(st.integers(0, 4)) == 0:
        task.write_text(data.draw(st.text(max_size=60)), encoding="utf-8", errors="surrogatepass")
    obey("evaluate", truth, truth, "--task", task, "--out", ...)
    shutil.rmtree(home)


@share_of("JSON")
@given(data=st.data())
def test_json(obey, world, tmp_path_factory, data):
    home = Path(shutil.copytree(world / "json", tmp_path_factory.mktemp("json") / "json"))
    model, found, truth = home / "model", home / "found", world / "nii"
    path, *commands = data.draw(
        st.sampled_from(
            [
                (
                    model / "card.json",
                    ("inspect", model),
                    ("report", model, "--out", "page.html"),
                    ("segment", truth, "--model", model, "--out", ..., *CPU),
                ),
                (
                    found / "phantom0000.json",
                    ("evaluate", found, truth, "--task", "brats2015", "--out", ...),
                    ("report", found, truth, "--task", "brats2015", "--out", "page.html"),
                ),
                (
                    home / "scores" / "scores.json",
                    ("benchmark", "rank", home / "scores", world / "json" / "scores", "--out", ...),
                    ("paper", "table", home / "scores", "--number", 1, "--out", "table.md"),
                ),
                (home / "decathlon" / "dataset.json", ("inspect", home / "decathlon")),
            ]
        )
    )
    path.write_text(json.dumps(data.draw(changed(json.loads(path.read_text())))), encoding="utf-8")
    if data.draw(st.integers(0, 3)) == 0:
        path.write_bytes(data.draw(damage(path.read_bytes())))
    obey(*data.draw(st.sampled_from(commands)))
    shutil.rmtree(home)


def sign(model):
    """Let the card describe the files as they are, as one who makes a hostile model would."""
    card = json.loads((model / "card.json").read_text())
    card["weights"] = card["weights"] | {
        "sha256": hash_file(model / "weights.safetensors"), "bytes": (model / "weights.safetensors").stat().st_size
    }  # fmt: skip
    for note in card["exports"].values():
        note["weights"] = card["weights"]["sha256"]
        note["files"] = {name: hash_file(model / "export" / name) for name in note["files"]}
    (model / "card.json").write_text(json.dumps(card))


@share_of("weights")
@given(data=st.data())
def test_weights(obey, world, tmp_path_factory, data):
    home = Path(shutil.copytree(world / "model", tmp_path_factory.mktemp("weights") / "model"))
    weights = home / "weights.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(data.draw(damage(before)))
    if signed := data.draw(st.booleans()) and bool(weights.stat().st_size):
        sign(home)
        card = json.loads((home / "card.json").read_text())
        (home / "card.json").write_text(json.dumps(card | {"exports": {}}))
    done = obey("segment", world / "nii", "--model", home, "--out", ..., *CPU)
    assert signed or not done or weights.read_bytes() == before
    shutil.rmtree(home)


@share_of("exports")
@given(data=st.data())
def test_exports(obey, world, tmp_path_factory, data):
    home = Path(shutil.copytree(world / "model", tmp_path_factory.mktemp("exports") / "model"))
    file = home / "export" / data.draw(st.sampled_from(["fp16.xml", "fp16.bin"]))
    before = file.read_bytes()
    file.write_bytes(data.draw(damage(before)))
    done = obey("segment", world / "nii", "--model", home, "--out", ..., *CPU)  # a signed one can crash OpenVINO
    assert not done or file.read_bytes() == before
    shutil.rmtree(home)
