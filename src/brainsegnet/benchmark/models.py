"""Networks of others to compare with, as MONAI makes them, each padded to sizes that it takes.

Their published defaults, but for what makes them fit samples of few slices. V-Net's drop-out, which its authors did
not use, is off: in a short training it only costs accuracy.

Who takes part in a comparison: networks under one recipe, or one network under recipes that differ in one value.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from brainsegnet._types import Millimetres
from brainsegnet.errors import MissingExtra, TaskError
from brainsegnet.model.architecture import IN_PLANE, Stride, unpad
from brainsegnet.model.design import Design
from brainsegnet.training.recipes import PAPER, Recipe

if TYPE_CHECKING:
    from brainsegnet.model.design import Design

try:
    from monai.networks.nets.dynunet import DynUNet
    from monai.networks.nets.segresnet import SegResNet
    from monai.networks.nets.unet import UNet
    from monai.networks.nets.vnet import VNet
except ModuleNotFoundError as error:
    raise MissingExtra(
        f'{str(error.name).split(".")[0]} is not installed; run: pip install "brainsegnet[compare]"'
    ) from error

SMALLEST = 4
"""nnU-Net halves an axis as long as no fewer voxels than these are left."""
FILTERS = (32, 64, 128, 256, 320)
"""nnU-Net's channels; deeper stages keep the last."""
VNET_CHANNELS = (1, 2, 4, 8, 16)
"""V-Net repeats its input until it has 16 channels."""

Maker = Callable[[int, int, Stride, Millimetres], Design]


class Padded(nn.Module):
    """`net` on any size: zeros at the far ends, and their logits cut off.

    Args:
        net: Takes sizes (D, H, W) that are multiples of `multiples`.
        multiples: See `net`.
        channels: Channels that it takes; those beyond the sequences are zeros. None is as many as there are sequences.
    """

    def __init__(self, net: nn.Module, multiples: Stride, channels: int | None = None) -> None:
        super().__init__()
        self.net, self.multiples, self.channels = net, multiples, channels

    def forward(self, x: Tensor) -> Tensor:
        """Scans (N, C, D, H, W) to logits (N, K, D, H, W)."""
        missing = [-n % m for n, m in zip(x.shape[2:], self.multiples, strict=True)]
        missing.insert(0, (self.channels or x.shape[1]) - x.shape[1])
        logits = self.net(F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x)
        return unpad(logits, x)


def baseline(name: str, sequences: int, classes: int, patch: Stride, spacing_mm: Millimetres) -> Design:
    """A network of others by name.

    Args:
        name: One of `BASELINES`.
        sequences: Channels in.
        classes: Channels out.
        patch: Training sample (D, H, W), which shapes DynUNet.
        spacing_mm: Of the scans (D, H, W), which shapes DynUNet too.

    Raises:
        TaskError: it does not take so many sequences.
    """
    return BASELINES[name](sequences, classes, patch, spacing_mm)


def unet(sequences: int, classes: int, patch: Stride, spacing_mm: Millimetres) -> Design:
    """UNet with 32 to 256 channels, slices kept, two residual units a stage, batch norm."""
    strides: Any = [IN_PLANE] * 3
    multiples = (1, 8, 8)
    return Design(
        "unet",
        lambda: Padded(UNet(3, sequences, classes, FILTERS[:4], strides, num_res_units=2, norm="batch"), multiples),
        multiples=multiples,
    )


def vnet(sequences: int, classes: int, patch: Stride, spacing_mm: Millimetres) -> Design:
    """V-Net with 16 to 256 channels; it halves all axes four times.

    Raises:
        TaskError: more sequences than it takes.
    """
    channels = next((n for n in VNET_CHANNELS if n >= sequences), None)
    if channels is None:
        raise TaskError(f"V-Net takes up to {VNET_CHANNELS[-1]} sequences, not {sequences}; leave vnet out")
    multiples = (16, 16, 16)
    return Design(
        "vnet",
        lambda: Padded(
            VNet(3, channels, classes, dropout_prob_down=None, dropout_prob_up=(None, 0.0)), multiples, channels
        ),
        multiples=multiples,
        channels_last=False,
    )


def segresnet(sequences: int, classes: int, patch: Stride, spacing_mm: Millimetres) -> Design:
    """SegResNet with 16 to 128 channels; it halves all axes three times."""
    multiples = (8, 8, 8)
    return Design(
        "segresnet",
        lambda: Padded(SegResNet(3, init_filters=16, in_channels=sequences, out_channels=classes), multiples),
        multiples=multiples,
    )


def dynunet(sequences: int, classes: int, patch: Stride, spacing_mm: Millimetres) -> Design:
    """DynUNet in the shape that nnU-Net plans for such samples: 32 to 320 channels, instance norm."""
    strides, kernels = plan_stages(patch, spacing_mm)
    filters = [*FILTERS, *[FILTERS[-1]] * len(strides)][: len(strides)]
    d, h, w = (2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(3))
    return Design(
        "dynunet",
        lambda: Padded(
            DynUNet(3, sequences, classes, kernels, strides, strides[1:], filters=filters, norm_name="instance"),
            (d, h, w),
        ),
        multiples=(d, h, w),
    )


BASELINES: Mapping[str, Maker] = {"unet": unet, "vnet": vnet, "segresnet": segresnet, "dynunet": dynunet}


def plan_stages(patch: Sequence[int], spacing_mm: Sequence[float]) -> tuple[list[Stride], list[Stride]]:
    """Strides and kernels of the stages that nnU-Net gives to samples of this size (Isensee et al. 2021).

    An axis is halved while it has twice `SMALLEST` voxels and its voxels are less than twice as long as the shortest;
    its kernels are 1 as long as its voxels are longer than that.

    >>> strides, kernels = plan_stages((24, 96, 96), (1.0, 1.0, 1.0))
    >>> strides
    [(1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)]
    >>> plan_stages((16, 64, 64), (6.5, 1.0, 1.0))[1]
    [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    """
    size, spacing, kernel = list(patch), list(spacing_mm), [1, 1, 1]
    strides, kernels = [[1, 1, 1]], []
    while True:
        large = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST]
        halved = [axis for axis in large if spacing[axis] < 2 * min(spacing[a] for a in large)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST):
            break
        kernel = [3 if spacing[axis] < 2 * min(spacing) else kernel[axis] for axis in range(3)]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(3)])
        spacing = [mm * stride for mm, stride in zip(spacing, strides[-1], strict=True)]
        size = [-(-n // stride) for n, stride in zip(size, strides[-1], strict=True)]
    return [_triple(stride) for stride in strides], [_triple(k) for k in [*kernels, [3, 3, 3]]]


def _triple(values: Sequence[int]) -> Stride:
    d, h, w = values
    return d, h, w


OURS = "brainsegnet"
MODELS = (OURS, "unet", "vnet", "segresnet", "dynunet")
SIZES = {f"{OURS}-full": 1, f"{OURS}-half": 2, f"{OURS}-quarter": 4}
"""Ours at other widths than the recipe's, as divisors of the paper's."""


@dataclass(frozen=True)
class Contender:
    """A network and how it is trained.

    Attributes:
        name: As in tables.
        recipe: How it is trained.
        network: One of `MODELS`.
        collapsed: Whether ours spares the operations that it can; others have none to spare.
    """

    name: str
    recipe: Recipe
    network: str = OURS
    fused_decoder: bool = True

    @property
    def stem(self) -> str:
        """For names of files."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower())


def choose_models(names: Sequence[str], recipe: Recipe) -> tuple[Contender, ...]:
    """Networks by name under one recipe, ours also at another width (`SIZES`).

    Args:
        names: Of the networks.
        recipe: Fitted to the number of training cases, see `Recipe.fit_to`.

    Raises:
        TaskError: one is unknown, or named twice.

    >>> from brainsegnet.training.recipes import QUICK
    >>> [contender.network for contender in choose_models(["unet", "brainsegnet"], QUICK)]
    ['unet', 'brainsegnet']
    """
    if unknown := [name for name in names if name not in (*MODELS, *SIZES)]:
        raise TaskError(f"unknown model {unknown[0]!r}; choose from {', '.join((*MODELS, *SIZES))}")
    if len(set(names)) < len(names):
        raise TaskError(f"name each model to compare once, not {', '.join(names)}")
    return tuple(
        Contender(name, resize(recipe, SIZES[name])) if name in SIZES else Contender(name, recipe, name)
        for name in names
    )


def resize(recipe: Recipe, divisor: int) -> Recipe:
    """The recipe at the paper's width over `divisor`; the learning rate shrinks as the width grows.

    >>> from brainsegnet.training.recipes import QUICK
    >>> resize(QUICK, 1).widths, resize(QUICK, 1).learning_rate, resize(QUICK, 4) == QUICK.fit_to(3)
    ((32, 64, 128, 256), 0.001, True)
    """
    a, b, c, d = (width // divisor for width in PAPER.widths)
    rate = recipe.learning_rate * recipe.widths[0] / a
    return recipe.model_copy(
        update={"widths": (a, b, c, d), "refined": PAPER.refined // divisor, "narrow_below": 0, "learning_rate": rate}
    )


def ablation(recipe: Recipe) -> tuple[Contender, ...]:
    """Ours as the recipe has it, and without one of its parts at a time; a part that it lacks makes no row.

    Without curriculum, all of the training is like its last stage.

    >>> from brainsegnet.training.recipes import QUICK
    >>> [contender.name for contender in ablation(QUICK)][:4]
    ['brainsegnet', 'without curriculum', 'without focal', 'without augmentation']
    >>> [contender.name for contender in ablation(QUICK)][4:]
    ['linear refinement', 'stride 2x2x2', 'plain training']
    """
    stages, strided = recipe.stages, (2, 2, 2) if recipe.stride == (1, 2, 2) else (1, 2, 2)
    changes: dict[str, dict[str, Any]] = {
        "without curriculum": {"stages": stages[-1:]},
        "without focal": {"stages": tuple(stage.model_copy(update={"gamma": 0.0}) for stage in stages)},
        "without augmentation": {"stages": tuple(stage.model_copy(update={"augment": 0.0}) for stage in stages)},
        "linear refinement" if recipe.nonlinear else "refinement with ReLU": {"nonlinear": not recipe.nonlinear},
        f"stride {'x'.join(map(str, strided))}": {"stride": strided},
    }
    rows = [Contender(name, recipe.model_copy(update=change)) for name, change in changes.items()]
    whole = Contender(OURS, recipe)
    return (
        whole,
        *(row for row in rows if row.recipe != recipe),
        Contender("plain training", recipe, fused_decoder=False),
    )


def design_of(
    contender: Contender,
    sequences: int,
    classes: int,
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> "Design":
    """The network of a contender.

    Raises:
        MissingExtra: MONAI is not installed, and the network is MONAI's.
        TaskError: the network does not take so many sequences.
    """
    if contender.network != OURS:
        return baseline(contender.network, sequences, classes, patch, spacing_mm)
    from brainsegnet.model.design import as_drawn, brain_segnet

    recipe = contender.recipe
    ours = brain_segnet(sequences, classes, recipe.widths, recipe.refined, recipe.stride, recipe.nonlinear)
    return ours if contender.fused_decoder else as_drawn(ours)
