"""density_du of an exported workload: one backward pass on the batches that the other densities were measured on.

The gradient at the output is a random direction from a seed, so that no labels are needed: which gradients are zero is
decided by surrogate windows, resets and FP16 underflow. Weights and running statistics are left alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from accel.export import Exported
from accel.trainer.engines.activity import with_densities
from accel.trainer.engines.arithmetic import FP16, Arithmetic
from accel.trainer.engines.program import Engines

LOSS_SCALE = 1024.0


def with_gradient_densities(
    exported: Exported, batches: Sequence[Tensor | tuple[Tensor, ...]], *, arithmetic: Arithmetic = FP16, seed: int = 0
) -> Exported:
    """The export with density_du of every layer that a gradient reaches, measured on `batches`.

    Raises:
        UnsupportedOpError: where the program holds an operation without an engine.
    """
    scale = 1.0 if arithmetic.exact else LOSS_SCALE
    engines = Engines(exported.program, forward=arithmetic, loss_scale=scale, learn_statistics=False)
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        out = engines.forward(*(batch if isinstance(batch, tuple) else (batch,)))
        direction = torch.randn(out.shape, generator=generator)
        engines.backward(direction / direction.norm())
    source = f"backward pass of a random direction at the output, {arithmetic.operands}, loss scale {scale:g}"
    workload = with_densities(exported.workload, engines.activity.densities(), ("du",))
    return replace(exported, workload=replace(workload, source={**workload.source, "density_du": source}))
