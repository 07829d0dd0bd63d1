"""Train the small network that tells sequences apart, on simulated heads alone (`brainsegnet.pipeline.contrast`).

python tools/release/brain.py pack LABEL_MAPS runs/brain/heads.npz
python tools/release/sequences.py simulate runs/brain/heads.npz runs/sequences/samples.npz --count 3000
python tools/release/sequences.py train runs/sequences/samples.npz src/brainsegnet/pipeline/contrast.npz
"""

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from brainsegnet._types import Array, Doubles
from brainsegnet.anatomy.heads import KINDS, HeadTissue, load_heads
from brainsegnet.pipeline.contrast import CLASSES, COUNT, INPUT, measure_features, prepare_input
from brainsegnet.simulation.head import (
    BRIGHTNESS,
    HEAD_SPACING_MM,
    MOTTLE,
    SEQUENCES,
    HeadContrast,
    _soft,
    draw_growth,
    draw_pose,
    paint,
    place,
    simulate_no_head,
)
from brainsegnet.simulation.head_scanner import acquire, draw_head_scan
from brainsegnet.volume import LabelMap, Volume

SHAPE = (96, 112, 96)
WIDTH = 16
"""Size of the hidden layer."""
NOISE = 0.1
"""Noise that is added to scaled features during training."""
HELD_OUT = 3
"""The first label maps serve to measure the accuracy alone."""
SHARES = {"t1": 1.0, "t1c": 1.2, "t2": 1.0, "flair": 1.2, "pd": 0.4, "t2star": 0.4, "dwi": 0.7, "adc": 0.6, "none": 0.4}
"""How often each sequence is simulated."""
TAUGHT = {"t1": "t1", "t1c": "t1", "t2": "t2", "flair": "flair", "pd": "other", "t2star": "other", "none": "other"}
"""What the network is to say of each; diffusion scans and ADC maps look like others, and are left out."""
DIFFUSION: Mapping[str, tuple[float, float]] = {
    #                dwi, adc
    "air": (0.02, 0.02),
    "white": (1.0, 0.75),
    "grey": (1.2, 0.83),
    "ventricle": (0.18, 3.0),
    "deep_grey": (1.0, 0.76),
    "cerebellar_grey": (1.15, 0.76),
    "hindbrain_white": (1.0, 0.7),
    "sulcus": (0.25, 2.4),
    "sulcal_vessel": (0.3, 1.3),
    "fluid": (0.2, 2.3),
    "dura": (0.3, 1.0),
    "vein": (0.15, 1.0),
    "artery": (0.1, 1.0),
    "eye": (0.15, 2.8),
    "orbit": (0.4, 0.8),
    "mucosa": (0.7, 1.3),
    "skin": (0.25, 0.8),
    "cord": (1.0, 0.8),
    "bone": (0.06, 0.4),
    "marrow": (0.15, 0.4),
    "fat": (0.15, 0.2),
    "muscle": (0.3, 1.2),
}
"""Brightness of a diffusion scan of b 1000 with suppressed fat, and ADC in 1e-3 mm2/s."""
CONTRASTED = (HeadTissue.GREY, HeadTissue.DEEP_GREY, HeadTissue.CEREBELLAR_GREY, HeadTissue.HINDBRAIN_WHITE)
FLUIDS = (HeadTissue.VENTRICLE, HeadTissue.SULCUS, HeadTissue.FLUID)
VESSELS = (HeadTissue.SULCAL_VESSEL, HeadTissue.VEIN, HeadTissue.ARTERY, HeadTissue.DURA, HeadTissue.MUCOSA)


def draw_values(rng: np.random.Generator, name: str) -> Doubles:
    """Brightness by `HeadTissue` value of a named sequence; its order of white, grey and fluid is kept."""
    if name in SEQUENCES:
        means = np.array([row[SEQUENCES.index(name)] for row in BRIGHTNESS.values()])
    else:
        means = np.array([row[("dwi", "adc").index(name)] for row in DIFFUSION.values()])
    values = means * np.exp(rng.normal(0, 0.18, len(means)))
    white, strength = means[HeadTissue.WHITE], rng.uniform(0.4, 1.3)
    values[HeadTissue.WHITE] = white
    for tissue in CONTRASTED:
        values[tissue] = (white + (means[tissue] - white) * strength) * np.exp(rng.normal(0, 0.02))
    fluid = np.exp(rng.normal(0, 0.25))
    for tissue in FLUIDS:
        values[tissue] = means[tissue] * fluid * np.exp(rng.normal(0, 0.08))
    if name == "t1c":
        uptake = rng.uniform(0.5, 1.3)
        for tissue in VESSELS:
            values[tissue] = 0.6 + (means[tissue] - 0.6) * uptake * np.exp(rng.normal(0, 0.1))
    if name == "t1" and rng.random() < 0.3:  # inflow in three dimensions
        values[HeadTissue.ARTERY] = rng.uniform(0.8, 1.6)
    *tissues, fat, muscle = values
    if rng.random() < 0.3:
        fat *= rng.uniform(0.1, 0.5)
        tissues[HeadTissue.MARROW] *= rng.uniform(0.1, 0.6)
    return np.array([*tissues, *_soft(rng, fat, muscle)])


def draw_contrast(rng: np.random.Generator, name: str) -> HeadContrast:
    """Brightness, texture and lesions of a named sequence."""
    values = draw_values(rng, name)
    mottle = rng.uniform(0.01, 0.05) * np.ones(KINDS)
    for tissue, amplitude in MOTTLE.items():
        mottle[tissue] = amplitude * rng.uniform(0.5, 1.5)
    mottle[HeadTissue.SOFT :] = rng.uniform(0.05, 0.3)
    count = int(rng.choice([0, 1, 2, 4], p=[0.4, 0.4, 0.12, 0.08]))
    growths = [draw_growth(rng, values, name if name in SEQUENCES else None, count) for _ in range(count)]
    if name == "t1c":
        growths = [replace(g, shades=(g.shades[0], g.shades[1] * rng.uniform(0.6, 1.3), g.shades[2])) for g in growths]
    if name == "dwi":
        growths = [replace(g, shades=tuple(rng.uniform(0.6, 2.2, 3).tolist())) for g in growths]
    grain = float(np.exp(rng.uniform(np.log(3), np.log(9))))
    return HeadContrast(np.asarray(values, np.float32), np.asarray(mottle, np.float32), grain, tuple(growths))


def simulate(heads: list[LabelMap], number: int) -> tuple[Array, int, int]:
    """A sample: input in half precision, number of the sequence, and number of its label map."""
    rng = np.random.default_rng((17, number))
    shares = np.array(list(SHARES.values()))
    label = int(rng.choice(len(SHARES), p=shares / shares.sum()))
    which = int(rng.integers(len(heads)))
    name = list(SHARES)[label]
    if name == "none":
        image = simulate_no_head(rng, SHAPE).image
    else:
        placed = place(rng, heads[which], draw_pose(rng), SHAPE)
        painted, brain, lesion = paint(rng, placed, draw_contrast(rng, name))
        scan = draw_head_scan(rng)
        scan = replace(scan, noise=min(scan.noise, 0.08), offset=0.0)
        if rng.random() < 0.5:
            scan = replace(scan, stripped_mm=float(rng.choice([0, 0, 2, 4])), view=((0.0, 1.0),) * 3)
        image = acquire(rng, painted, (brain, lesion), scan)[0]
    affine = np.diag([HEAD_SPACING_MM] * 3 + [1.0])[[2, 1, 0, 3]]
    return prepare_input(Volume(image, affine)).astype(np.float16), label, which


class Net(nn.Module):
    """The network of `pipeline.contrast.run_network`, for training."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.first, self.last = nn.Linear(COUNT, WIDTH), nn.Linear(WIDTH, len(CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of features (N, COUNT)."""
        scaled = ((features - self.mean) / self.deviation).clamp(-4, 4)
        if self.training:
            scaled = scaled + NOISE * torch.randn_like(scaled)
        hidden = functional.dropout(functional.relu(self.first(scaled)), 0.2, self.training)
        return self.last(hidden)  # type: ignore[no-any-return]


def train(features: torch.Tensor, labels: torch.Tensor, held_out: torch.Tensor, steps: int, seed: int = 0) -> Net:
    """Train on all samples but those `held_out`, on which its accuracy is printed."""
    torch.manual_seed(seed)
    chosen = features[~held_out]
    weights = 1 / torch.bincount(labels[~held_out], minlength=len(CLASSES)).float()
    net = Net(chosen.mean(0), chosen.std(0).clamp(min=0.02))
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, steps)
    for _ in range(steps):
        loss = functional.cross_entropy(net(chosen), labels[~held_out], weights, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    print(f"loss {float(loss.detach()):.3f}, {score(net, features[held_out], labels[held_out])}")
    return net


def score(net: Net, features: torch.Tensor, labels: torch.Tensor) -> str:
    """Accuracy, and how each class is read."""
    net.eval()
    with torch.no_grad():
        right: torch.Tensor = torch.eq(net(features).argmax(1), labels).float()
    each = [f"{name} {float(right[labels == i].mean()):.2f}" for i, name in enumerate(CLASSES)]
    return f"held out {float(right.mean()):.3f}: {', '.join(each)}"


def export(net: Net, path: Path) -> None:
    """Write the weights in single precision."""
    arrays = {
        "mean": net.mean,
        "deviation": net.deviation,
        "first": net.first.weight,
        "bias": net.first.bias,
        "last": net.last.weight,
        "offset": net.last.bias,
    }
    found = {name: np.asarray(tensor.detach().numpy(), np.float32) for name, tensor in arrays.items()}
    np.savez_compressed(path, allow_pickle=False, **found)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    first = verbs.add_parser("simulate")
    first.add_argument("heads", type=Path)
    first.add_argument("out", type=Path)
    first.add_argument("--count", type=int, default=3000)
    first.add_argument("--start", type=int, default=0)
    first.add_argument("--workers", type=int, default=2)
    second = verbs.add_parser("train")
    second.add_argument("samples", type=Path, nargs="+")
    second.add_argument("out", type=Path)
    second.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    if arguments.verb == "simulate":
        heads = load_heads(arguments.heads)
        with ProcessPoolExecutor(arguments.workers) as pool:
            numbers = range(arguments.start, arguments.start + arguments.count)
            made = list(pool.map(partial(simulate, heads), numbers, chunksize=20))
        inputs, labels, heads_of = (np.array(part) for part in zip(*made, strict=True))
        assert inputs.shape[1:] == INPUT
        np.savez(arguments.out, inputs=inputs, labels=labels, heads=heads_of)
        return
    parts = [np.load(path) for path in arguments.samples]
    inputs, labels, heads_of = (np.concatenate([part[key] for part in parts]) for key in ("inputs", "labels", "heads"))
    names = [TAUGHT.get(list(SHARES)[label], "") for label in labels]
    known = np.array([name in CLASSES for name in names])
    labels = np.array([CLASSES.index(name) for name in names if name in CLASSES])
    inputs, heads_of = inputs[known], heads_of[known]
    if inputs.ndim == 5:
        inputs = inputs[:, 0]
    features = np.stack([measure_features(image.astype(np.float32)) for image in inputs]).astype(np.float32)
    print(f"{len(features)} samples of {features.shape[1]} features")
    held_out = torch.from_numpy(heads_of < HELD_OUT)
    net = train(torch.from_numpy(features), torch.from_numpy(labels), held_out, arguments.steps)
    export(net, arguments.out)


if __name__ == "__main__":
    main()
