"""The networks of a benchmark: Brain SegNet, its variants, and networks of MONAI, each padded to sizes that it takes.

MONAI's networks have their published defaults, except for what fits them to samples of few slices. V-Net's drop-out,
which its authors did not use, is off: in a short training it only costs accuracy.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainsegnet._types import Millimetres, Shape
from brainsegnet.benchmark import BenchmarkOptions
from brainsegnet.errors import MissingExtra, TaskError
from brainsegnet.model.architecture import IN_PLANE, unpad
from brainsegnet.model.network import Design
from brainsegnet.training.recipes import PAPER, Recipe

try:
    from monai.networks.nets.dynunet import DynUNet
    from monai.networks.nets.segresnet import SegResNet
    from monai.networks.nets.unet import UNet
    from monai.networks.nets.vnet import VNet
except ModuleNotFoundError as error:
    raise MissingExtra(
        f'{str(error.name).split(".")[0]} is not installed; run: pip install "brainsegnet[compare]"'
    ) from error

OURS = "brainsegnet"
SIZES = {f"{OURS}-full": 1, f"{OURS}-half": 2, f"{OURS}-quarter": 4}
"""Brain SegNet at other widths than the recipe's, as divisors of the paper's."""
SMALLEST = 4
"""nnU-Net halves an axis while at least so many voxels are left."""
FILTERS = (32, 64, 128, 256, 320)
"""nnU-Net's channels; deeper stages keep the last."""
VNET_CHANNELS = (1, 2, 4, 8, 16)
"""V-Net repeats its input until it has 16 channels."""


@dataclass(frozen=True)
class ModelSpec:
    """A network of a benchmark, with its name in tables, and how it is trained.

    Attributes:
        name: Name in tables.
        recipe: How it is trained.
        network: Name of the architecture, one of `MODELS`.
        fused_decoder: Whether Brain SegNet is trained with its decoder fused, which saves operations.
    """

    name: str
    recipe: Recipe
    network: str = OURS
    fused_decoder: bool = True

    @property
    def stem(self) -> str:
        """The name for files."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower())


def choose_specs(options: BenchmarkOptions, cases: int) -> tuple[ModelSpec, ...]:
    """The networks of a benchmark, with the recipe for this number of training cases.

    Raises:
        TaskError: a network is unknown, named twice, or named together with an ablation.
    """
    recipe = options.chosen_recipe.fit_to(cases)
    if options.ablation and options.models:
        raise TaskError("an ablation compares brainsegnet with itself; name no models, or leave --ablation out")
    return ablation(recipe) if options.ablation else choose_models(options.models or MODELS, recipe)


def choose_models(names: Sequence[str], recipe: Recipe) -> tuple[ModelSpec, ...]:
    """Networks by name with one recipe; Brain SegNet also at another width (`SIZES`).

    Raises:
        TaskError: a network is unknown or named twice.

    Examples:
        >>> from brainsegnet.training.recipes import QUICK
        >>> [spec.network for spec in choose_models(["unet", "brainsegnet-full"], QUICK)]
        ['unet', 'brainsegnet']
    """
    if unknown := [name for name in names if name not in (*MODELS, *SIZES)]:
        raise TaskError(f"unknown model {unknown[0]!r}; choose from {', '.join((*MODELS, *SIZES))}")
    if len(set(names)) < len(names):
        raise TaskError(f"name each model to compare once, not {', '.join(names)}")
    return tuple(
        ModelSpec(name, resize(recipe, SIZES[name])) if name in SIZES else ModelSpec(name, recipe, name)
        for name in names
    )


def resize(recipe: Recipe, divisor: int) -> Recipe:
    """The recipe at the paper's width over `divisor`; the learning rate shrinks as the width grows.

    Examples:
        >>> from brainsegnet.training.recipes import QUICK
        >>> resize(QUICK, 1).widths, resize(QUICK, 1).learning_rate, resize(QUICK, 4) == QUICK.fit_to(3)
        ((32, 64, 128, 256), 0.001, True)
    """
    a, b, c, d = (width // divisor for width in PAPER.widths)
    rate = recipe.learning_rate * recipe.widths[0] / a
    return recipe.model_copy(
        update={"widths": (a, b, c, d), "refined": PAPER.refined // divisor, "narrow_below": 0, "learning_rate": rate}
    )


def ablation(recipe: Recipe) -> tuple[ModelSpec, ...]:
    """Brain SegNet as the recipe has it, and without one of its parts at a time. A part that it lacks adds no row.

    Without curriculum, the whole training is like its last stage.
    """
    stages, strided = recipe.stages, (2, 2, 2) if recipe.stride == (1, 2, 2) else (1, 2, 2)
    changes: dict[str, dict[str, Any]] = {
        "without curriculum": {"stages": stages[-1:]},
        "without focal": {"stages": tuple(stage.model_copy(update={"gamma": 0.0}) for stage in stages)},
        "without augmentation": {"stages": tuple(stage.model_copy(update={"augment": 0.0}) for stage in stages)},
        "linear refinement" if recipe.nonlinear else "refinement with ReLU": {"nonlinear": not recipe.nonlinear},
        f"stride {'x'.join(map(str, strided))}": {"stride": strided},
    }
    rows = [ModelSpec(name, recipe.model_copy(update=change)) for name, change in changes.items()]
    plain = ModelSpec("plain training", recipe, fused_decoder=False)
    return ModelSpec(OURS, recipe), *(row for row in rows if row.recipe != recipe), plain


class Padded(nn.Module):
    """A network on scans of any size: zeros are added at the far ends, and their logits cut off.

    The network takes sizes (D, H, W) that are `multiples`, and so many `channels`, those beyond the sequences zeros;
    None is as many as the sequences.
    """

    def __init__(self, net: nn.Module, multiples: Shape, channels: int | None = None) -> None:
        super().__init__()
        self.net, self.multiples, self.channels = net, multiples, channels

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) to logits (N, K, D, H, W)."""
        missing = [-n % m for n, m in zip(x.shape[2:], self.multiples, strict=True)]
        missing.insert(0, (self.channels or x.shape[1]) - x.shape[1])
        logits = self.net(F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x)
        return unpad(logits, x)


def unet(sequences: int, classes: int, patch: Shape, spacing_mm: Millimetres) -> Design:
    """UNet with 32 to 256 channels, slices kept, two residual units a stage, batch norm."""
    strides: Any = [IN_PLANE] * 3
    return _padded(
        "unet", (1, 8, 8), lambda: UNet(3, sequences, classes, FILTERS[:4], strides, num_res_units=2, norm="batch")
    )


def vnet(sequences: int, classes: int, patch: Shape, spacing_mm: Millimetres) -> Design:
    """V-Net with 16 to 256 channels; it halves all axes four times.

    Raises:
        TaskError: more sequences than it takes.
    """
    channels = next((n for n in VNET_CHANNELS if n >= sequences), None)
    if channels is None:
        raise TaskError(f"V-Net takes up to {VNET_CHANNELS[-1]} sequences, not {sequences}; leave vnet out")
    multiples = (16, 16, 16)

    def build() -> nn.Module:
        net = VNet(3, channels, classes, dropout_prob_down=None, dropout_prob_up=(None, 0.0))
        return Padded(net, multiples, channels)

    return Design("vnet", build, multiples=multiples, layout=torch.contiguous_format)


def segresnet(sequences: int, classes: int, patch: Shape, spacing_mm: Millimetres) -> Design:
    """SegResNet with 16 to 128 channels; it halves all axes three times."""
    return _padded(
        "segresnet", (8, 8, 8), lambda: SegResNet(3, init_filters=16, in_channels=sequences, out_channels=classes)
    )


def dynunet(sequences: int, classes: int, patch: Shape, spacing_mm: Millimetres) -> Design:
    """DynUNet in the shape that nnU-Net plans for such samples: 32 to 320 channels, instance norm."""
    strides, kernels = plan_stages(patch, spacing_mm)
    filters = [*FILTERS, *[FILTERS[-1]] * len(strides)][: len(strides)]
    d, h, w = (2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(3))
    return _padded(
        "dynunet",
        (d, h, w),
        lambda: DynUNet(3, sequences, classes, kernels, strides, strides[1:], filters=filters, norm_name="instance"),
    )


def _padded(name: str, multiples: Shape, build: Callable[[], nn.Module]) -> Design:
    return Design(name, lambda: Padded(build(), multiples), multiples=multiples)


Baseline = Callable[[int, int, Shape, Millimetres], Design]
BASELINES: Mapping[str, Baseline] = {"unet": unet, "vnet": vnet, "segresnet": segresnet, "dynunet": dynunet}
MODELS = (OURS, *BASELINES)


def plan_stages(patch: Sequence[int], spacing_mm: Sequence[float]) -> tuple[list[Shape], list[Shape]]:
    """Strides and kernels of the stages that nnU-Net gives to samples of this size (Isensee et al. 2021).

    An axis is halved while it has twice `SMALLEST` voxels and its voxels are less than twice as long as the shortest.
    Its kernels are 1 while its voxels are longer than that.

    Examples:
        >>> strides, kernels = plan_stages((24, 96, 96), (1.0, 1.0, 1.0))
        >>> strides
        [(1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)]
        >>> plan_stages((16, 64, 64), (6.5, 1.0, 1.0))[1]
        [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    """
    size, spacing, kernel = list(patch), list(spacing_mm), (1, 1, 1)
    strides, kernels = [(1, 1, 1)], list[Shape]()
    while True:
        large = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST]
        halved = [axis for axis in large if spacing[axis] < 2 * min(spacing[a] for a in large)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST):
            break
        d, h, w = (3 if mm < 2 * min(spacing) else k for mm, k in zip(spacing, kernel, strict=True))
        kernel = d, h, w
        kernels.append(kernel)
        d, h, w = (2 if axis in halved else 1 for axis in range(3))
        strides.append((d, h, w))
        spacing = [mm * stride for mm, stride in zip(spacing, strides[-1], strict=True)]
        size = [-(-n // stride) for n, stride in zip(size, strides[-1], strict=True)]
    return strides, [*kernels, (3, 3, 3)]
