"""Train the network of brain extraction on simulated raw scans.

    python -m release.brain pack LABEL_MAPS runs/brain/heads.npz
    python -m release.brain train runs/brain/heads.npz runs/brain --steps 4000
    python -m release.brain ship runs/brain/heads.npz runs/brain/best.safetensors src/brainsegnet/models/brain
    python -m release.brain margin src/brainsegnet/models/brain DATA/tumour/brats2021 DATA/tumour/brats2023

`train` continues a training that was interrupted, and then gives the same weights. Sample i of step s follows
from (seed, s, i) alone. Maps whose number is in `VALIDATION` are kept for validation; checkpoints are chosen by them.
Arithmetic is float32: bf16 is not used.
"""

import argparse
import hashlib
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainsegnet._atomic import replacing, write_text
from brainsegnet._machine import describe_cpu, find_versions
from brainsegnet._types import Shape
from brainsegnet.anatomy.heads import load_heads, read_head, write_heads
from brainsegnet.anatomy.label_maps import find_label_maps
from brainsegnet.metrics.scores import dice
from brainsegnet.model.brain import REFINED, WIDTHS, BrainNet
from brainsegnet.model.network import write_tensors
from brainsegnet.preprocessing.head import scale_intensities
from brainsegnet.simulation.head import HEAD_SHAPE, HeadSample, simulate_head, simulate_no_head
from brainsegnet.volume import LabelMap

VALIDATION = (4, 7, 12, 15)
"""Numbers of the maps that are not trained on, counted from 0."""
VALIDATION_STREAM = 2**31
STATE, BEST, LAST, LOG, RUN = "state.pt", "best.safetensors", "last.safetensors", "log.jsonl", "run.json"


@dataclass(frozen=True)
class BrainTraining:
    """Options of a training."""

    steps: int = 4000
    batch: int = 4
    seed: int = 0
    rate: float = 2e-3
    warmup: int = 100
    decay: float = 1e-4
    averaging: float = 0.998
    shape: Shape = (80, 104, 88)
    no_head: float = 0.04
    lesion_weight: float = 3.0
    validate_every: int = 200
    validation_scans: int = 28
    save_minutes: float = 4.0


def make_sample(options: BrainTraining, heads: list[LabelMap], step: int, index: int) -> HeadSample:
    """Sample `index` of a step; a small share of the samples holds no head, and those of validation are larger."""
    rng = np.random.default_rng([options.seed, step, index])
    shape = HEAD_SHAPE if step == VALIDATION_STREAM else options.shape
    if rng.random() < options.no_head:
        return simulate_no_head(rng, shape)
    return simulate_head(rng, heads[rng.integers(len(heads))], shape)


def stack(samples: list[HeadSample], lesion_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Input, share of brain and weight of every voxel, all (N, 1, D, H, W); a voxel that is not seen has weight 0."""
    images = [scale_intensities(s.image, s.seen) for s in samples]
    weights = [s.seen * (1 + (lesion_weight - 1) * s.lesion) for s in samples]
    x, y, w = (
        torch.from_numpy(np.stack(part)[:, None].astype(np.float32))
        for part in (images, [s.brain for s in samples], weights)
    )
    return x.contiguous(memory_format=torch.channels_last_3d), y, w


def measure_loss(logits: Tensor, brain: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy and Dice loss of a batch (N, 1, D, H, W), the mean over scans."""
    axes = (1, 2, 3, 4)
    entropy = F.binary_cross_entropy_with_logits(logits, brain, reduction="none")
    mean = (entropy * weight).sum(axes) / weight.sum(axes)
    p = logits.sigmoid() * weight
    overlap = 2 * (p * brain).sum(axes) + 100
    return (mean + 1 - overlap / (p.sum(axes) + (brain * weight).sum(axes) + 100)).mean()


class Trainer:
    """A training and its state, which is saved to and resumed from a folder."""

    def __init__(self, options: BrainTraining, heads: list[LabelMap], folder: Path) -> None:
        self.options, self.folder = options, folder
        self.training = [h for i, h in enumerate(heads) if i not in VALIDATION]
        self.held_out = [heads[i] for i in VALIDATION]
        torch.manual_seed(options.seed)
        self.net = BrainNet().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.averaged = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=options.rate, weight_decay=options.decay)
        self.step, self.seconds, self.best, self.stopped = 0, 0.0, 0.0, False
        self.resume()

    def resume(self) -> None:
        """Continue from the saved state, if there is one."""
        path = self.folder / STATE
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.averaged = state["averaged"]
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]

    def save(self) -> None:
        """Write the state, and the averaged weights beside it."""
        state = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
        }
        with replacing(self.folder / STATE) as temporary:
            torch.save(state, temporary)
        self.write_weights(LAST)

    def write_weights(self, name: str) -> None:
        """Write the averaged weights as safetensors, with the step in the header."""
        with replacing(self.folder / name) as temporary:
            write_tensors(self.averaged, temporary, {"step": str(self.step)})

    def rate(self) -> float:
        """The learning rate of this step: a linear start, then half a cosine."""
        start = min(1.0, (self.step + 1) / self.options.warmup)
        return self.options.rate * start * 0.5 * (1 + math.cos(math.pi * self.step / self.options.steps))

    def train_step(self) -> float:
        """One step; gives the loss."""
        options = self.options
        samples = [make_sample(options, self.training, self.step, i) for i in range(options.batch)]
        x, y, w = stack(samples, options.lesion_weight)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.net.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss = measure_loss(self.net(x), y, w)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        keep = min(options.averaging, self.step / (self.step + 10))
        for name, tensor in self.net.state_dict().items():
            if tensor.is_floating_point():
                self.averaged[name].lerp_(tensor, 1 - keep)
            else:
                self.averaged[name].copy_(tensor)
        return float(loss.detach())

    def validate(self) -> dict[str, float]:
        """Scores of the averaged weights on simulated scans of the maps that are held out."""
        net = BrainNet().to(memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
        net.load_state_dict(self.averaged)
        scores, kept, false_ml = [], [], []
        for i in range(self.options.validation_scans):
            sample = make_sample(self.options, self.held_out, VALIDATION_STREAM, i)
            x, *_ = stack([sample], 1.0)
            with torch.inference_mode():
                found = (net(x) > 0).numpy()[0, 0] & sample.seen
            brain = sample.brain > 0.5
            if np.count_nonzero(brain) > 1000:
                scores.append(dice(found, brain))
            else:
                false_ml.append(np.count_nonzero(found & ~brain) * 0.008)
            if np.count_nonzero(sample.lesion) > 100:
                kept.append(float(found[sample.lesion].mean()))
        return {
            "dice": round(float(np.mean(scores)), 4),
            "median_dice": round(float(np.median(scores)), 4),
            "worst_dice": round(float(np.min(scores)), 4),
            "lesion_kept": round(float(np.mean(kept)), 4) if kept else math.nan,
            "false_ml": round(float(np.mean(false_ml)), 1) if false_ml else math.nan,
        }

    def run(self) -> None:
        """Train to the last step, or until the process is asked to end."""
        saved, losses = time.monotonic(), []
        while self.step < self.options.steps and not self.stopped:
            start = time.process_time()
            losses.append(self.train_step())
            if self.step % self.options.validate_every == 0 or self.step == self.options.steps:
                scores = self.validate()
                if scores["dice"] > self.best:
                    self.best = scores["dice"]
                    self.write_weights(BEST)
                self.seconds += time.process_time() - start
                self.log({"step": self.step, "loss": round(float(np.mean(losses)), 4), **scores})
                losses = []
            else:
                self.seconds += time.process_time() - start
            if time.monotonic() - saved > 60 * self.options.save_minutes:
                self.save()
                saved = time.monotonic()
        self.save()

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        entry |= {"cpu_s": round(self.seconds), "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


@contextmanager
def ending_well(trainer: Trainer) -> Iterator[None]:
    """Let a request to end stop the training after the step, so that its state is saved."""

    def stop(*_: object) -> None:
        trainer.stopped = True

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def train(maps: Path, folder: Path, options: BrainTraining) -> None:
    """Train, or continue, in a folder; `run.json` records what with."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options, load_heads(maps), folder)
    record = {
        "options": asdict(options),
        "network": {"widths": WIDTHS, "refined": REFINED},
        "maps": {"file": maps.name, "sha256": hashlib.sha256(maps.read_bytes()).hexdigest(), "validation": VALIDATION},
        "processor": describe_cpu(),
        "threads": torch.get_num_threads(),
        "versions": find_versions(),
    }
    write_text(json.dumps(record, indent=2) + "\n", folder / RUN)
    with ending_well(trainer):
        trainer.run()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    pack = verbs.add_parser("pack", help="label maps of whole heads into one file")
    pack.add_argument("folder", type=Path)
    pack.add_argument("out", type=Path)
    training = verbs.add_parser("train", help="train, or continue a training")
    training.add_argument("maps", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--steps", type=int, default=BrainTraining.steps)
    training.add_argument("--seed", type=int, default=BrainTraining.seed)
    training.add_argument("--threads", type=int, default=1)
    shipping = verbs.add_parser("ship", help="make the shipped model, and score it on simulated scans")
    shipping.add_argument("maps", type=Path)
    shipping.add_argument("weights", type=Path)
    shipping.add_argument("out", type=Path)
    shipping.add_argument("--count", type=int, default=60, help="simulated scans with a head, and without one")
    margin = verbs.add_parser("margin", help="compare thresholds of a model with the brains that others left")
    margin.add_argument("home", type=Path)
    margin.add_argument("folders", type=Path, nargs="+", help="prepared cases of BraTS with labels")
    arguments = parser.parse_args()
    if arguments.verb == "pack":
        write_heads([read_head(path) for path in find_label_maps(arguments.folder)], arguments.out)
        return
    if arguments.verb == "ship":
        from release.ship_brain import ship_brain

        scores = ship_brain(arguments.weights, arguments.maps, arguments.out, VALIDATION, arguments.count)
        print(json.dumps(scores.to_json(), indent=2))
        return
    if arguments.verb == "margin":
        from release.ship_brain import measure_margins

        print(json.dumps(measure_margins(arguments.home, arguments.folders), indent=2))
        return
    torch.set_num_threads(arguments.threads)
    train(arguments.maps, arguments.out, BrainTraining(steps=arguments.steps, seed=arguments.seed))


if __name__ == "__main__":
    main()
