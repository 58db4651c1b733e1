"""Parameters that processes share out among them (FSDP), of models that also have scalars: a scale, a learned tau.

FSDP cuts tensors into pieces and refuses one without a dimension. Such scalars stay whole in every process; their
gradients are averaged like those of DDP.
"""

import torch.distributed as distributed
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn


def average_scalars(model: nn.Module) -> list[nn.Parameter]:
    """Have the gradient of every scalar parameter averaged over the processes as soon as it is there; returns them."""
    scalars = [parameter for parameter in model.parameters() if parameter.dim() == 0]
    for scalar in scalars:
        scalar.register_post_accumulate_grad_hook(_average)
    return scalars


def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None
    distributed.all_reduce(parameter.grad)
    parameter.grad /= distributed.get_world_size()


def sharded(model: nn.Module, *, offload: bool) -> FSDPStrategy:
    """Lightning's FSDP for `model`; `offload` keeps parameters on the CPU between their uses."""
    return FSDPStrategy(ignored_states=average_scalars(model), cpu_offload=offload)
