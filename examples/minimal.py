"""Brain SegNet on one page: network, training and prediction of Hu et al., BMC Medical Imaging 20:17 (2020).

`python examples/minimal.py` trains on simulated phantoms for about two minutes on two CPU cores, and scores others. The
page quotes the sections of the paper. Sizes are small; comments give the paper's. Tests compare it with the package.
"""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainsegnet.simulation.phantom import simulate_phantom

# Figures 2 and 3 and "3D Refinement Module". From block to block, rows and columns halve; the slices stay.
WIDTHS, REFINED = (8, 16, 32, 64), 32  # channels; (32, 64, 128, 256) and 128 in the paper


def conv_norm_relu(width: int, out: int, stride: int = 1) -> nn.Sequential:
    """A layer of the blocks, which have 2 + 5 + 5 + 5 = 17 such convolutions."""
    return nn.Sequential(nn.Conv3d(width, out, 3, (1, stride, stride), 1, bias=False), nn.BatchNorm3d(out), nn.ReLU())


class ResBlock(nn.Module):
    """Figure 3a: two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm_relu(channels, channels), conv_norm_relu(channels, channels)[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class RefineUnit(nn.Module):
    """Figure 3b: a 1x1x1 convolution of the finer map, the coarser map at twice its size added, a 3x3x3 convolution."""

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.lateral, self.norm = nn.Conv3d(channels, channels, 1), norm
        self.smooth = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:
        return self.smooth(self.norm(self.lateral(finer) + F.interpolate(coarser, scale_factor=(1, 2, 2))))


class BrainSegNet(nn.Module):
    """Figure 2: images (N, C, D, H, W) to logits (N, K, D, H, W); H and W are multiples of 8."""

    def __init__(self, sequences: int, classes: int, widths: tuple[int, ...] = WIDTHS, refined: int = REFINED) -> None:
        super().__init__()
        first = nn.Sequential(conv_norm_relu(sequences, widths[0]), conv_norm_relu(widths[0], widths[0]))
        deeper = (nn.Sequential(conv_norm_relu(a, b, 2), ResBlock(b), ResBlock(b)) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList([first, *deeper])
        self.adapt = nn.ModuleList(nn.Conv3d(width, refined, 1) for width in widths)
        # Figure 3b draws no batch norm and no ReLU. Before all 3x3x3 convolutions but the finest, they help to learn.
        top, *norms = (nn.Sequential(nn.BatchNorm3d(refined), nn.ReLU()) for _ in range(3))
        self.top = nn.Sequential(top, nn.Conv3d(refined, refined, 3, padding=1))
        self.refine = nn.ModuleList(RefineUnit(refined, norm) for norm in (nn.Identity(), *norms))
        self.classify = nn.Conv3d(refined, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [x := block(x) for block in self.blocks]
        y = self.top(self.adapt[3](levels[3]))
        for level in (2, 1, 0):
            y = self.refine[level](self.adapt[level](levels[level]), y)
        return self.classify(y)


# "Data Augmentation" and "Implementation Details": slabs that do not overlap, cropped around the lesion.
SCAN, SAMPLE = (48, 88, 72), (12, 64, 64)  # slices, rows, columns; 155 x 240 x 240 and 12 x 128 x 128
GAIN, SCALE, FLIP = (0.8, 1.2), (0.5, 1.2), 0.5  # of each slice; of all slices; chance along rows and along columns
Scan = tuple[Tensor, Tensor]  # image (C, D, H, W), classes (D, H, W)


def slab_starts(depth: int, thickness: int) -> list[int]:
    """First slice of each slab; the last slab moves back to fit. 155 slices make 13 slabs of 12."""
    return [min(start, max(depth - thickness, 0)) for start in range(0, depth, thickness)]


def crop_start(rng: np.random.Generator, lesion: Tensor, extent: int) -> int:
    """First row of a random crop that holds all rows with lesion, or lies within them; without lesion, all count."""
    rows = lesion.nonzero() if lesion.any() else torch.arange(len(lesion))
    ends = int(rows[0]), int(rows[-1]) + 1 - extent
    return int(rng.integers(min(ends), max(ends) + 1))


def cut_sample(rng: np.random.Generator, scan: Scan, start: int, augment: bool) -> Scan:
    """The slab from slice `start`, cropped to the size of a sample; zero outside the scan."""
    image, classes = (x[..., start : start + SAMPLE[0], :, :] for x in scan)
    scale = rng.uniform(*SCALE) if augment else 1.0
    high, wide = (round(size / scale) for size in SAMPLE[1:])
    top, left = (crop_start(rng, classes.any(0).any(axis), size) for axis, size in ((1, high), (0, wide)))
    margins = (-left, left + wide - classes.shape[2], -top, top + high - classes.shape[1])
    image = F.interpolate(F.pad(image, margins), SAMPLE[1:], mode="bilinear")
    classes = F.interpolate(F.pad(classes, margins)[None].float(), SAMPLE[1:])[0].long()
    if augment:
        image = image * torch.from_numpy(rng.uniform(*GAIN, (len(classes), 1, 1))).float()
        turns, flips = int(rng.integers(4)), [axis for axis in (-2, -1) if rng.random() < FLIP]
        image, classes = (x.rot90(turns, (-2, -1)).flip(flips) for x in (image, classes))
    return image, classes


# "Focal Loss" and "Learning with Curriculum": three stages of equal length, each harder than the one before.
STAGES = {"original": (0.0, 0.0), "augmented": (0.5, 0.0), "focal": (0.75, 2.0)}  # share augmented; gamma
BATCH, RATE, EPOCHS = 2, 2e-3, 6  # 40, 1e-4, and 500 epochs in each stage


def focal_loss(logits: Tensor, classes: Tensor, gamma: float) -> Tensor:
    """Mean over voxels of -(1 - p)^gamma log p, where p is that of the true class. A gamma of 0 is cross entropy."""
    cross_entropy = F.cross_entropy(logits, classes, reduction="none")
    return ((1 - torch.exp(-cross_entropy)).clamp_min(1e-6) ** gamma * cross_entropy).mean()


def train(scans: list[Scan], epochs: int = EPOCHS, seed: int = 0) -> BrainSegNet:
    """A network after so many epochs in each stage; an epoch has every slab of every scan once."""
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), BrainSegNet(len(scans[0][0]), classes=5)
    adam = torch.optim.Adam(net.parameters(), RATE)
    slabs = [(scan, start) for scan in scans for start in slab_starts(len(scan[1]), SAMPLE[0])]
    for stage, (share, gamma) in STAGES.items():
        for epoch in range(epochs):
            losses = []
            for batch in np.split(rng.permutation(len(slabs)), range(BATCH, len(slabs), BATCH)):
                samples = [cut_sample(rng, *slabs[k], rng.random() < share) for k in map(int, batch)]
                images, classes = map(torch.stack, zip(*samples, strict=True))
                loss = focal_loss(net(images), classes, gamma)
                adam.zero_grad()
                loss.backward()
                adam.step()
                losses.append(loss.item())
            print(f"{stage}, epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.4f}", flush=True)
    return net.eval()


# "Implementation Details": sub-volumes of 31 slices, arg-max, no post-processing. "Results": Dice.
REGIONS = {"whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)}  # 1 necrosis, 2 oedema, 3 non-enhancing


@torch.inference_mode()
def predict(net: nn.Module, image: Tensor, thickness: int = 31) -> Tensor:
    """Classes (D, H, W) of an image (C, D, H, W) of any size, which zeros pad to multiples of 8."""
    height, width = image.shape[2:]
    slabs = F.pad(image, (0, -width % 8, 0, -height % 8)).split(thickness, dim=1)
    return torch.cat([net(slab[None])[0].argmax(0) for slab in slabs])[:, :height, :width]


def dice(found: Tensor, true: Tensor, values: tuple[int, ...]) -> float:
    """Overlap of the voxels whose class is one of the values, 0 to 1."""
    a, b = (torch.isin(classes, torch.tensor(values)) for classes in (found, true))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def simulate(seed: int) -> Scan:
    """A phantom with a tumour; each sequence has median 0 and standard deviation 1 in the brain, and is 0 around it."""
    case = simulate_phantom(seed, SCAN)
    *images, classes = (volume.array for volume in (*case.images.values(), case.lesion) if volume)
    image = np.stack(images).astype(np.float32)
    inside = image[:, brain := image.any(0)]
    image[:, brain] = (inside - np.median(inside, 1, keepdims=True)) / inside.std(1, keepdims=True)
    return torch.from_numpy(image), torch.from_numpy(classes.astype(np.int64))


if __name__ == "__main__":
    net = train([simulate(seed) for seed in range(16)])  # 274 patients in the paper
    for seed in range(1000, 1004):
        image, true = simulate(seed)
        found = predict(net, image)
        print(f"phantom {seed}, Dice:", ", ".join(f"{name} {dice(found, true, k):.2f}" for name, k in REGIONS.items()))
