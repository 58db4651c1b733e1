"""Strategies of Lightning with arguments, and parameters that processes share out among them (FSDP), of models that
also have scalars: a scale, a learned tau.

FSDP cuts tensors into pieces and refuses one without a dimension. Such scalars stay whole in every process; their
gradients are averaged like those of DDP.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch.distributed as distributed
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from spikeloom.accel.common.files import brief

# Strategy -> the class that it wraps a model with.
WRAPPERS = {DDPStrategy: DistributedDataParallel, FSDPStrategy: FullyShardedDataParallel}


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


def sharded(model: nn.Module, *, offload: bool, **arguments: Any) -> FSDPStrategy:
    """Lightning's FSDP for `model`; `offload` keeps parameters on the CPU between their uses; `arguments`: its other
    ones."""
    return FSDPStrategy(**{"ignored_states": average_scalars(model), "cpu_offload": offload, **arguments})


def strategy_of(name: str, arguments: Mapping[str, Any], model: nn.Module) -> Any:
    """What Lightning's trainer takes as its strategy: the name, or an object where there are arguments or FSDP.

    Raises:
        ValueError: arguments of a strategy that has no class of its own, or that its class refuses; names the key.
    """
    keys = ", ".join(arguments)
    known = dict(StrategyRegistry).get(name, {"strategy": None})
    if (wrapper := WRAPPERS.get(known["strategy"])) is not None:  # the strategy hands on what it does not know
        takes = {*signature(known["strategy"]).parameters, *signature(wrapper).parameters}
        if unknown := [key for key in arguments if key not in takes]:
            raise ValueError(f"trainer.strategy_args.{unknown[0]}: trainer.strategy={name} has no such argument")
    try:
        if name.startswith("fsdp"):
            return sharded(model, offload="offload" in name, **arguments)
        if not arguments:
            return name
        if known["strategy"] is None:
            raise ValueError(
                f"trainer.strategy_args ({keys}) with trainer.strategy={name}, which takes none; use trainer=ddp"
            )
        return known["strategy"](**{**known["init_params"], **arguments})
    except (TypeError, ImportError, MisconfigurationException) as error:
        raise ValueError(f"trainer.strategy={name} trainer.strategy_args ({keys}): {brief(error)}") from error
