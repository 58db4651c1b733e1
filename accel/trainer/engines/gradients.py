"""density_du of an exported workload: one backward pass on the batches that the other densities were measured on.

The gradient at the output is a random direction from a seed, so that no labels are needed: which gradients are zero is
decided by surrogate windows, resets and FP16 underflow. A program that ends in a loss is driven by that loss. Weights
and running statistics are left alone. Where a gradient overflows, the pass is repeated at half the scale, and the
workload says so.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from spikeloom.accel.export.program import Exported
from spikeloom.accel.trainer.engines.activity import with_densities
from spikeloom.accel.trainer.engines.arithmetic import FP16, Arithmetic
from spikeloom.accel.trainer.engines.program import Engines
from spikeloom.accel.trainer.engines.scaling import SMALLEST, LossScale

LOSS_SCALE = 1024.0


def with_gradient_densities(
    exported: Exported, batches: Sequence[Tensor | tuple[Tensor, ...]], *, arithmetic: Arithmetic = FP16, seed: int = 0
) -> Exported:
    """The export with density_du of every layer that a gradient reaches, measured on `batches`.

    Raises:
        UnsupportedOpError: where the program holds an operation without an engine.
        ValueError: where gradients are not finite at any scale.
    """
    scale = LossScale(1.0 if arithmetic.exact else LOSS_SCALE)
    engines = Engines(exported.program, forward=arithmetic, loss_scale=scale.value, learn_statistics=False)
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        call = batch if isinstance(batch, tuple) else (batch,)
        while True:
            before = deepcopy(engines.activity.seen)
            out = engines.forward(*call)
            direction = torch.randn(out.shape, generator=generator) if out.dim() else torch.ones(())
            if scale.update(engines.backward(direction / direction.norm())):
                break
            engines.activity.seen, engines.loss_scale = before, scale.value
            if scale.value <= SMALLEST:
                raise ValueError(
                    f"gradients of {exported.workload.model_name} are not finite at any loss scale; look for values "
                    "beyond 65,504, or use gradients=false"
                )
    source = f"backward pass of a random direction at the output, {arithmetic.operands}, loss scale {scale.value:g}"
    if scale.overflows:
        source += f" (overflow at {', '.join(f'{s:g}' for s in scale.overflows)})"
    workload = with_densities(exported.workload, engines.activity.densities(), ("du",))
    return replace(exported, workload=replace(workload, source={**workload.source, "density_du": source}))
