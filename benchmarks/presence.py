"""Fit the decision whether a scan has enhancing tumour at all, on simulated gliomas that the model has not seen.

    python benchmarks/presence.py runs/tumour/whole --cases 80 --anatomy LABELS \
        --out benchmarks/results/presence-tumour.json

Each glioma is segmented, and the features of `inference.postprocessing` are measured where the model marks the tissue.
A logistic regression with a ridge penalty is fitted to them; a scan has the tissue from `TRUE_ML` on. The JSON holds
the rule for the card (`ship.py --presence`), the features of each case, and how often the rule is right where each
tenth of the cases is left out of the fit. Cases that are there already are not simulated again.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Doubles, Floats
from brainsegnet.inference.postprocessing import filter_components, measure_presence
from brainsegnet.inference.predict import Engine
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.model.card import PRESENCE_FEATURES, Card, PresenceRule
from brainsegnet.model.store import LAST, Model, open_model
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.simulation.simulate import SimulateOptions, open_simulator
from brainsegnet.volume import Case

Simulated = tuple[Floats, float]
TRUE_ML = 0.05
RIDGE = 1.0
"""Penalty on the squared coefficients, of standardised features."""
PARTS = 10


def prepare_case(simulate: Callable[[int], Case], seed: int, card: Card, label: int, kept: Path | None) -> Simulated:
    """Channels (C, D, H, W) as the network sees them, and the true volume in ml of a simulated case."""
    file = kept / f"{seed}-{card.input.normalisation}.npz" if kept else None
    if file and file.exists():
        with np.load(file) as found:
            return found["image"].astype(np.float32), float(found["true_ml"])
    case = simulate(seed)
    prepared = prepare(Case(case.name, {name: case.images[name] for name in card.sequences}), card.input.normalisation)
    assert case.lesion is not None
    true_ml = float(np.count_nonzero(case.lesion.array == label)) * case.lesion.voxel_ml
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, image=prepared.image.astype(np.float16), true_ml=true_ml)
    return prepared.image, true_ml


def measure(model: Model, engine: Engine, case: Simulated, label: int, sequence: str) -> dict[str, float] | None:
    """The features and the truth of one case; None where the model marks nothing."""
    card, (image, true_ml) = model.card, case
    found, confidence, certainty = engine.classify_with_certainty(image)
    classes = filter_components(found, confidence, card.components.confidence_margin).classes
    channel, brain = image[card.sequences.index(sequence)], (image != 0).any(0)
    features = measure_presence(classes, certainty, card.task.label_values.index(label), channel, brain)
    return None if features is None else {**features, "true_ml": round(true_ml, 3)}


def fit(features: Doubles, there: Doubles) -> tuple[float, Doubles]:
    """Intercept and coefficients of a logistic regression, by Newton's method.

    Args:
        features: Features (cases, features).
        there: 1 for the cases with the tissue, else 0.
    """
    mean, sd = features.mean(0), np.maximum(features.std(0), 1e-6)
    x = np.column_stack([np.ones(len(features)), (features - mean) / sd])
    penalty = np.diag([0.0, *[RIDGE] * features.shape[1]])
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (p - there) + penalty @ weights
        hessian = (x.T * (p * (1 - p))) @ x + penalty + 1e-9 * np.eye(x.shape[1])
        weights -= np.linalg.solve(hessian, gradient)
    slopes = weights[1:] / sd
    return float(weights[0] - slopes @ mean), slopes


def fit_rule(rows: Sequence[dict[str, float]], label: int, becomes: int, sequence: str) -> dict[str, Any]:
    """The rule, and how often it is right on cases that it was not fitted to."""
    features = np.array([[row[name] for name in PRESENCE_FEATURES] for row in rows])
    there = np.array([float(row["true_ml"] > TRUE_ML) for row in rows])
    right = []
    for part in range(PARTS):
        out = np.arange(len(rows)) % PARTS == part
        if not out.any() or len(set(there[~out])) < 2:
            continue
        intercept, slopes = fit(features[~out], there[~out])
        right += list(((intercept + features[out] @ slopes) >= 0) == (there[out] == 1))
    intercept, slopes = fit(features, there)
    rule = PresenceRule(
        label=label,
        becomes=becomes,
        sequence=sequence,
        intercept=round(intercept, 4),
        coefficients={name: round(float(one), 4) for name, one in zip(PRESENCE_FEATURES, slopes, strict=True)},
        cases=len(rows),
    )
    shares = {"marked": len(rows), "there": int(there.sum()), "right": round(float(np.mean(right)), 4)}
    return {"rule": rule.model_dump(mode="json"), **shares}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--seed", type=int, default=7_000_000)
    parser.add_argument("--anatomy")
    parser.add_argument("--label", type=int, default=4)
    parser.add_argument("--becomes", type=int, default=1)
    parser.add_argument("--sequence", default="t1c")
    parser.add_argument("--keep", type=Path, help="folder of the prepared cases, for other models")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    folder = arguments.model / LAST
    model = open_model(folder if folder.exists() else arguments.model)
    engine = open_engine(model, "cpu")
    simulate = open_simulator(SimulateOptions(realistic=True, anatomy=arguments.anatomy))
    digest = model.card.weights.sha256 if model.card.weights else None
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    cases: dict[str, Any] = known.get("cases", {}) if known.get("sha256") == digest else {}
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        if str(seed) in cases:
            continue
        case = prepare_case(simulate, seed, model.card, arguments.label, arguments.keep)
        cases[str(seed)] = measure(model, engine, case, arguments.label, arguments.sequence)
        rows = [row for row in cases.values() if row]
        document = {
            "date": datetime.date.today().isoformat(),
            "machine": describe_cpu(),
            "versions": find_versions(),
            "model": model.card.name,
            "sha256": digest,
            "margin": model.card.components.confidence_margin,
            **(fit_rule(rows, arguments.label, arguments.becomes, arguments.sequence) if len(rows) > PARTS else {}),
            "cases": cases,
        }
        write_text(json.dumps(document, indent=1) + "\n", arguments.out)
        sys.stdout.write(f"{seed}: {cases[str(seed)]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
