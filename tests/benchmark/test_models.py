import importlib.abc
import importlib.util
import re
import sys

import pytest
import torch

from brainsegnet.benchmark import models as baselines
from brainsegnet.benchmark.models import BASELINES, Padded, plan_stages
from brainsegnet.errors import MissingExtra, TaskError

PATCH = (16, 32, 32)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("sequences", [1, 3])
def test_baselines_take_any_size_and_any_number_of_sequences(name, sequences):
    net = BASELINES[name](sequences, 4, PATCH, (1.0, 1.0, 1.0)).build().eval()
    with torch.inference_mode():
        assert net(torch.randn(1, sequences, 5, 17, 33)).shape == (1, 4, 5, 17, 33)


def test_padding_is_zeros_that_are_cut_off_again():
    seen = []
    net = Padded(torch.nn.Identity(), (4, 8, 8), 4)
    net.net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = torch.randn(1, 3, 5, 8, 9)
    assert torch.equal(net(x)[:, :3], x) and seen[0].shape == (1, 4, 8, 8, 16)
    assert torch.isclose(seen[0].abs().sum(), x.abs().sum())


def test_sizes_that_fit_are_not_padded():
    for name in BASELINES:
        design = BASELINES[name](2, 3, PATCH, (1.0, 1.0, 1.0))
        net = design.build().eval()
        x = torch.randn(1, 2, *(max(m, 16) for m in design.multiples))
        with torch.inference_mode():
            assert torch.equal(net(x), net.net(x)), name


@pytest.mark.parametrize(
    ("patch", "spacing_mm", "strides", "flat_kernels"),
    [
        ((128, 128, 128), (1.0, 1.0, 1.0), ["222"] * 5, 0),
        ((40, 56, 40), (1.0, 1.0, 1.0), ["222"] * 3, 0),
        ((20, 320, 256), (3.6, 0.62, 0.62), ["122", "122", "222", "222", "122", "122"], 2),
    ],
    ids=["brain tumour", "hippocampus", "prostate"],
)
def test_stages_are_those_that_nnunet_plans_for_the_decathlon(patch, spacing_mm, strides, flat_kernels):
    found, kernels = plan_stages(patch, spacing_mm)
    assert ["".join(map(str, stride)) for stride in found] == ["111", *strides]
    assert [kernel[0] for kernel in kernels] == [1] * flat_kernels + [3] * (len(found) - flat_kernels)


def test_more_sequences_than_vnet_takes_are_refused():
    with pytest.raises(TaskError, match="V-Net takes up to 16 sequences, not 17; leave vnet out"):
        BASELINES["vnet"](17, 3, PATCH, (1.0, 1.0, 1.0))


def test_without_monai_a_sentence_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    spec = importlib.util.spec_from_file_location("baselines_without_monai", baselines.__file__)
    with pytest.raises(
        MissingExtra, match=re.escape('monai is not installed; run: pip install "brainsegnet[compare]"')
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


class Hidden(importlib.abc.MetaPathFinder):
    """MONAI is not to be found."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "monai":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
