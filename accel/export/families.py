"""Which rule reads which family of operations."""

from functools import partial
from typing import Any

from spikeloom.accel.export import products, recurrent, rules, table
from spikeloom.accel.export.rules import Rule

_RULES: tuple[tuple[frozenset[Any], Rule], ...] = (
    (table.LINEAR, products.linear), (table.ADDMM, products.addmm), (table.CONVOLUTIONS, products.convolution),
    (table.TRANSPOSED, products.transposed), (table.PRODUCTS, products.product),
    (table.BIASED_PRODUCTS, products.biased_product), (table.BILINEAR, products.bilinear),
    (table.EINSUMS, products.einsum), (table.ATTENTIONS, products.attention), (table.NEURONS, rules.neuron),
    (table.NORMS, rules.norm), (table.GATHERS, rules.gather), (table.ELEMENTWISE, rules.elementwise),
)  # fmt: skip


def rule_for(target: Any) -> Rule | None:
    """The rule of an operation; None says that it is not supported."""
    for family, rule in ((table.RECURRENT, recurrent.recurrent), (table.CELLS, recurrent.cell)):
        if target in family:
            return partial(rule, str(target).split(".")[1])
    return next((rule for family, rule in _RULES if target in family), None)
