import numpy as np
import pytest
import torch
from torch import nn

from brainsegnet.inference.openvino_backend import shared_core
from brainsegnet.model.architecture import BrainSegNet
from brainsegnet.model.fused import fuse
from brainsegnet.model.graphs import write_onnx


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("nonlinear", [True, False])
def test_onnx_holds_the_same_function_for_any_size(stride, nonlinear, tmp_path):
    torch.manual_seed(0)
    net = BrainSegNet(3, 4, (4, 4, 8, 8), 8, stride, nonlinear).eval()
    nn.init.normal_(net.classify.weight)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    write_onnx(net, tmp_path / "model.onnx")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    run = shared_core().compile_model(str(tmp_path / "model.onnx"), "CPU", settings)
    for size in ((8, 16, 24), (16, 8, 8)):
        x = torch.randn(1, 3, *size)
        expected = fuse(net)(x).numpy()
        np.testing.assert_allclose(run(x.numpy())[0], expected, atol=1e-5 * np.abs(expected).max())
