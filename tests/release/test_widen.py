"""A widened network has twice the channels and computes the same."""

from pathlib import Path

import torch

from brainsegnet.model.store import open_model
from release.widen import widen

PARENT = Path(__file__).parents[2] / "benchmarks" / "parents" / "stroke"


def test_a_widened_network_computes_the_same(tmp_path):
    narrow = open_model(PARENT)
    wide = widen(narrow, tmp_path / "wide")
    assert wide.card.network.widths == tuple(2 * width for width in narrow.card.network.widths)
    x = torch.randn(1, len(narrow.card.sequences), 5, 18, 21, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, two = (model.build().eval()(x) for model in (narrow, wide))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_its_equal_channels_are_told_apart_by_what_reads_them(tmp_path):
    weight = widen(open_model(PARENT), tmp_path / "wide").tensors()["adapt.1.weight"]
    half = weight.shape[1] // 2
    assert not torch.allclose(weight[:, :half], weight[:, half:], atol=1e-4)
