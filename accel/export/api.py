"""Export any module in one call: what `spikeloom export model=` and `spikeloom.cost` do."""

from collections.abc import Sequence

from torch import nn

from spikeloom.accel.export.neurons import swap_neurons
from spikeloom.accel.export.program import Batch, Exported, export
from spikeloom.accel.export.unchanged import unchanged


def export_model(
    model: nn.Module,
    x: Batch | Sequence[Batch],
    *,
    axes: str | None = None,
    name: str | None = None,
    strict: bool = True,
    swap: bool = True,
) -> Exported:
    """Trace and measure a model that anybody wrote, with the inputs that stand for its data.

    Args:
        model: any module; it is left as it was.
        x: one batch (a tensor, or a tuple of the arguments of `forward`), or a list of several of one shape.
        axes: a letter for each axis of the first tensor, T for time and B for the batch ("TBN", "BCHW", "BTC"); without
            it they are inferred, which `workload.source["axes"]` then says.
        name: of the workload; the class of the model without one.
        strict: fail where an operation has no rule or a trained parameter is lost.
        swap: replace the neurons of snnTorch, SpikingJelly, Norse and sinabs by equal ones of this package.

    Returns:
        Program, workload and closing balance.

    Raises:
        ValueError: see `program.export`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> str(export_model(nn.Linear(8, 4), torch.randn(2, 8), axes="BN").balance)
        '36 of 36 parameters owned, 1 of 1 operations priced, loss reaches all trained parameters'
    """
    batches: Sequence[Batch] = x if isinstance(x, list) else [x]  # type: ignore[list-item]
    source = {"densities": f"{len(batches)} batch{'es' * (len(batches) > 1)} given by the caller"}
    with unchanged(model):
        changed, told = swap_neurons(model) if swap else (model, ())
        if told:
            source["neurons"] = "; ".join(told)
        return export(changed, batches, name=name or type(model).__name__, source=source, strict=strict, axes=axes)
