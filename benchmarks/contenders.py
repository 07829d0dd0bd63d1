"""Who is timed by `speed.py`: ours in all widths and precisions, and MONAI's networks, as used and in our engine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet._machine import has_bf16_units
from brainsegnet.inference import Precision
from brainsegnet.inference.openvino_backend import shared_core
from brainsegnet.inference.predict import predict
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.model.card import Architecture, Card, Input
from brainsegnet.model.store import Model, open_model, save_model
from brainsegnet.preprocessing.prepare import Prepared, prepare, restore
from brainsegnet.task import Task
from brainsegnet.training.export import export_with
from brainsegnet.volume import Case, LabelMap

if TYPE_CHECKING:
    from torch import nn

    from brainsegnet.training.sampler import Scan

WIDTHS = {"full": ((32, 64, 128, 256), 128), "half": ((16, 32, 64, 128), 64), "compact": ((8, 16, 32, 64), 32)}
PRECISIONS: tuple[Precision, ...] = ("float", "bf16", "int8") if has_bf16_units() else ("float", "int8")
Run = Callable[[Case], LabelMap]


def model_folder(size: str, home: Path, task: Task) -> Model:
    """A model of untrained weights with its exports, the ranges of 8 bits taken from noise."""
    import torch

    from brainsegnet.model.architecture import BrainSegNet

    torch.manual_seed(0)
    widths, refined = WIDTHS[size]
    net = BrainSegNet(len(task.sequences), task.classes, widths, refined)
    torch.nn.init.normal_(net.classify.weight, std=0.1)
    card = Card(
        name=size,
        task=task,
        input=Input(sequences=task.sequences),
        network=Architecture(widths=widths, refined=refined),
    )
    return export_with(save_model(home / size, card, net.state_dict()), {"noise": noise(task)})


def noise(task: Task) -> "Scan":
    """Something to take ranges from."""
    from brainsegnet.training.sampler import Scan

    rng = np.random.default_rng(0)
    shape = (24, 96, 96)
    return Scan(
        rng.normal(size=(len(task.sequences), *shape)).astype("f"),
        rng.integers(0, task.classes, shape, np.uint8),
        24,
        0,
    )


def ours(size: str, precision: Precision, home: Path, threads: int) -> Run:
    """Ours as `segment` runs it."""
    engine = open_engine(open_model(home / size), "cpu", threads, precision)
    return lambda case: predict(case, engine).labels


def plain(size: str, home: Path, threads: int, task: Task) -> Run:
    """The network as the paper draws it, in torch, on the whole volume in slabs of 31; one pass takes over 24 GB."""
    import torch

    torch.set_num_threads(threads)
    net = open_model(home / size).build()

    def run(case: Case) -> LabelMap:
        image = whole_volume(case, task)
        with torch.inference_mode():
            slabs = torch.from_numpy(image)[None].split(31, dim=2)
            classes = torch.cat([net(slab)[0].argmax(0) for slab in slabs]).numpy().astype(np.uint8)
        return LabelMap(task.decode(classes), case.reference.affine)

    return run


def baseline(name: str, threads: int, task: Task) -> "nn.Module":
    """One of MONAI's networks."""
    import torch
    from monai.networks.nets import DynUNet, SegResNet, UNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    channels, classes, flat = len(task.sequences), task.classes, (1, 2, 2)
    if name == "segresnet":
        return SegResNet(3, init_filters=16, in_channels=channels, out_channels=classes).eval()
    if name == "unet":
        return UNet(3, channels, classes, (32, 64, 128, 256), (flat, flat, flat), num_res_units=2, norm="batch").eval()
    strides, filters = [1, 2, 2, 2, 2, 2], [32, 64, 128, 256, 320, 320]
    return DynUNet(3, channels, classes, [3] * 6, strides, strides[1:], filters=filters, norm_name="instance").eval()


def as_used(name: str, threads: int, task: Task) -> Run:
    """A baseline with torch and MONAI's sliding window over the whole volume."""
    import torch
    from monai.inferers import sliding_window_inference

    net = baseline(name, threads, task)

    def run(case: Case) -> LabelMap:
        image = torch.from_numpy(whole_volume(case, task))[None]
        with torch.inference_mode():
            logits = sliding_window_inference(image, (128, 128, 128), 1, net, overlap=0.5)
        return LabelMap(task.decode(logits[0].argmax(0).numpy().astype(np.uint8)), case.reference.affine)

    return run


def with_our_engine(name: str, threads: int, task: Task, precision: str) -> Run:
    """A baseline in OpenVINO on the brain box."""
    import openvino
    import torch

    from brainsegnet.inference.openvino_backend import with_arg_max
    from brainsegnet.model.graphs import quantise

    net = baseline(name, threads, task)
    model = openvino.convert_model(net, example_input=torch.zeros(1, len(task.sequences), 64, 64, 64))
    model.reshape([1, len(task.sequences), -1, -1, -1])
    if precision == "int8":
        rng = np.random.default_rng(0)
        model = quantise(model, [rng.normal(size=(len(task.sequences), 64, 64, 64)).astype("f") for _ in range(8)])
    floats = "bf16" if precision == "bf16" else "f32"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": floats, "INFERENCE_NUM_THREADS": threads}
    request = shared_core().compile_model(with_arg_max(model, task.classes), "CPU", settings).create_infer_request()

    def run(case: Case) -> LabelMap:
        prepared: Prepared = prepare(case)
        d, h, w = prepared.image.shape[1:]
        image = np.pad(prepared.image, [(0, 0), *((0, -n % 32) for n in (d, h, w))])
        request.infer({0: image[None]}, share_inputs=True)
        classes = request.get_output_tensor(0).data[0, :d, :h, :w]
        return LabelMap(task.decode(restore(classes, prepared)), case.reference.affine)

    return run


def whole_volume(case: Case, task: Task) -> np.ndarray:
    """All voxels (C, D, H, W), normalised over those that are not 0."""
    image = np.stack([case.images[name].array.astype(np.float32) for name in task.sequences])
    for channel in image:
        inside = channel[channel != 0]
        channel[channel != 0] = (inside - inside.mean()) / inside.std()
    return image


CONTENDERS: dict[str, Callable[[Path, int, Task], Run]] = {
    "full-plain-torch": lambda home, threads, task: plain("full", home, threads, task),
    **{
        f"{size}-{precision}": lambda home, threads, task, size=size, precision=precision: ours(
            size, precision, home, threads
        )
        for size in WIDTHS
        for precision in PRECISIONS
    },
    **{
        f"{name}-as-used": lambda home, threads, task, name=name: as_used(name, threads, task)
        for name in ("segresnet", "unet", "dynunet")
    },
    **{
        f"{name}-our-engine-{kind}": lambda home, threads, task, name=name, kind=kind: with_our_engine(
            name, threads, task, kind
        )
        for name in ("segresnet", "unet", "dynunet")
        for kind in PRECISIONS
    },
}
