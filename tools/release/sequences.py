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

from brainsegnet._types import Array, Doubles, Floats
from brainsegnet.anatomy.heads import KINDS, HeadTissue, load_heads
from brainsegnet.pipeline.contrast import CLASSES, INPUT, prepare_input
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
WIDTHS = (12, 20, 32)
SHARES = {"t1": 1.0, "t1c": 1.2, "t2": 1.0, "flair": 1.2, "pd": 0.4, "t2star": 0.4, "dwi": 0.7, "adc": 0.6, "none": 0.4}
"""How often each class is simulated."""
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
    """A sample: input in half precision, class, and number of its label map."""
    rng = np.random.default_rng((17, number))
    shares = np.array([SHARES[name] for name in CLASSES])
    label = int(rng.choice(len(CLASSES), p=shares / shares.sum()))
    which = int(rng.integers(len(heads)))
    name = CLASSES[label]
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

    def __init__(self) -> None:
        super().__init__()
        widths = (2, *WIDTHS)
        self.convs = nn.ModuleList(nn.Conv3d(a, b, 3, 2, 1) for a, b in zip(widths, WIDTHS, strict=False))
        self.linear = nn.Linear(2 * WIDTHS[-1], len(CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of inputs (N, 2, D, H, W)."""
        for conv in self.convs:
            image = functional.relu(conv(image))
        flat = image.flatten(2)
        pooled = torch.cat([flat.mean(2), flat.amax(2)], 1)
        return self.linear(functional.dropout(pooled, 0.2, self.training))  # type: ignore[no-any-return]


def train(inputs: Array, labels: Array, held_out: Array, epochs: int, seed: int = 0) -> Net:
    """Train on all samples but those `held_out`, on which its accuracy is printed."""
    torch.manual_seed(seed)
    net, rng = Net(), np.random.default_rng(seed)
    chosen = np.flatnonzero(~held_out)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    steps = epochs * (len(chosen) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, steps)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for part in np.array_split(rng.permutation(chosen)[: 32 * (len(chosen) // 32)], len(chosen) // 32):
            loss = functional.cross_entropy(
                net(augment(rng, inputs[part])), torch.from_numpy(labels[part]), label_smoothing=0.05
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 5 == 4 or epoch == epochs - 1:
            print(f"epoch {epoch + 1}: loss {total / (len(chosen) // 32):.3f}, {score(net, inputs, labels, held_out)}")
    return net


def augment(rng: np.random.Generator, part: Array) -> torch.Tensor:
    """A batch mirrored, shifted by up to two voxels, and with another scale of intensities."""
    image = torch.from_numpy(part.astype(np.float32))
    if rng.random() < 0.5:
        image = image.flip(4)
    image = torch.roll(image, [int(n) for n in rng.integers(-2, 3, 3)], (2, 3, 4))
    x = image / (2 - image).clamp(min=0.05)
    x = x * torch.from_numpy(np.exp(rng.normal(0, 0.15, (len(part), 1, 1, 1, 1)))).float()
    return 2 * x / (x + 1)


def score(net: Net, inputs: Array, labels: Array, chosen: Array) -> str:
    """Accuracy, and how each class is read."""
    net.eval()
    with torch.no_grad():
        found = net(torch.from_numpy(inputs[chosen].astype(np.float32))).argmax(1).numpy()
    truth = labels[chosen]
    each = [f"{name} {np.mean(found[truth == i] == i):.2f}" for i, name in enumerate(CLASSES)]
    return f"held out {np.mean(found == truth):.3f}: {', '.join(each)}"


def export(net: Net, path: Path) -> None:
    """Write the weights in half precision."""
    arrays: dict[str, Floats] = {}
    for number, conv in enumerate(net.convs):
        arrays[f"conv{number}"] = conv.weight.detach().numpy()  # type: ignore[operator, union-attr]
        arrays[f"bias{number}"] = conv.bias.detach().numpy()  # type: ignore[operator, union-attr]
    arrays["linear"], arrays["offset"] = net.linear.weight.detach().numpy(), net.linear.bias.detach().numpy()
    np.savez_compressed(path, allow_pickle=False, **{name: array.astype(np.float16) for name, array in arrays.items()})


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
    second.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.verb == "simulate":
        heads = load_heads(arguments.heads)
        with ProcessPoolExecutor(arguments.workers) as pool:
            numbers = range(arguments.start, arguments.start + arguments.count)
            made = list(pool.map(partial(simulate, heads), numbers, chunksize=20))
        inputs, labels, heads_of = (np.array(part) for part in zip(*made, strict=True))
        assert inputs.shape[1:] == (2, *INPUT)
        np.savez(arguments.out, inputs=inputs, labels=labels, heads=heads_of)
        return
    parts = [np.load(path) for path in arguments.samples]
    inputs, labels, heads_of = (np.concatenate([part[key] for part in parts]) for key in ("inputs", "labels", "heads"))
    export(train(inputs, labels, heads_of < 3, arguments.epochs), arguments.out)


if __name__ == "__main__":
    main()
