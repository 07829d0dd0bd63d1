"""One batch over many processes: sums and batch statistics that every process sees alike.

PyTorch's SyncBatchNorm serves GPUs only; this one serves CPU processes as well, so that training in two processes is
the same computation as training in one.
"""

from typing import cast

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn


def many() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_sum(x: Tensor) -> Tensor:
    """Sum over all processes of a tensor of any shape, differentiable; `x` itself in a single process."""
    return cast(Tensor, dist_nn.all_reduce(x.clone())) if many() else x  # type: ignore[no-untyped-call]


def largest(value: float, device: torch.device) -> float:
    """The largest of all processes' values, so that all take the same decision."""
    if not many():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return float(shared)


class GlobalBatchNorm3d(nn.BatchNorm3d):
    """Batch norm whose statistics are those of the batch over all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to the same shape."""
        if not (self.training and many()):
            return super().forward(x)
        wide, axes = x.float(), (0, 2, 3, 4)
        count = torch.full((1,), float(x.numel() // x.shape[1]), device=x.device)
        total = all_sum(torch.cat([wide.sum(axes), count]))
        mean = total[:-1] / total[-1]
        centred = wide - mean[:, None, None, None]
        variance = all_sum(centred.square().sum(axes)) / total[-1]
        self._remember(mean.detach(), variance.detach() * total[-1] / (total[-1] - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None, None] + self.bias[:, None, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        rate = self.momentum if self.momentum is not None else 0.1
        cast(Tensor, self.running_mean).lerp_(mean, rate)
        cast(Tensor, self.running_var).lerp_(variance, rate)
        cast(Tensor, self.num_batches_tracked).add_(1)


def share_statistics(net: nn.Module) -> None:
    """Replace, in place, every batch norm of `net` by one over all processes; names of tensors stay as they are."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm3d:
                shared = GlobalBatchNorm3d(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)
