"""What the report of a pruned run shows: how the zeros came, and where they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from spikeloom.accel.common.files import contents, read_csv
from spikeloom.accel.common.report import Section, Table, new_figure, palette
from spikeloom.accel.trainer.cost.compression import Form, bits_per_weight

METHODS = {
    "lats": "a soft threshold that grows with the learning rate", "linear": "a soft threshold that grows in every step",
    "sine": "a soft threshold that grows as a sine of the steps (STDS)",
    "str": "a soft threshold for each layer that is learned (STR; the curve shows their mean)",
    "gmp": "gradual masks with the same share of zeros in each layer (GMP)",
    "dnw": "masks with the same share of zeros in each layer, chosen anew in every step (DNW)",
    "rigl": "masks from the first step on whose connections move (RigL)",
    "magnitude": "masks over the smallest weights", "prune_at_init": "a mask that was found before training",
}  # fmt: skip


def pruning_sections(run: Path, result: Mapping[str, Any]) -> list[Section]:
    """Sections from pruning.csv and result.json; none for a run that was not pruned."""
    if "pruning" not in result:
        return []
    kept, path = result["pruning"], run / "pruning.csv"
    again = "train again with overwrite=true"
    with contents(path, again):
        rows = read_csv(path, again)
        epochs = [int(row["epoch"]) for row in rows]
        zeros = [100 * float(row["sparsity_of_pruned_layers"]) for row in rows]
        growing = all(row["threshold"] for row in rows)
        thresholds = [float(row["threshold"]) for row in rows] if growing else []
        if not rows or not np.isfinite([*zeros, *thresholds]).all():
            raise ValueError("no row, or a number that is not finite")
    figure = new_figure(9.4, 3.2)
    panels = figure.subplots(1, 2 if growing else 1, squeeze=False)[0]
    panels[0].plot(epochs, zeros, color=palette[0], marker="o")
    panels[0].set_title("Zeros among the weights (%)", loc="left")
    if growing:
        panels[1].plot(epochs, thresholds, color=palette[1], marker="o")
        panels[1].set_title("Threshold (in units of the weights)", loc="left")
    for panel in panels:
        panel.set_xlabel("Epoch")
        panel.set_ylim(bottom=0)
        panel.xaxis.get_major_locator().set_params(integer=True)
    l1 = f" Mean L1 coefficient: {kept['l1_mean']:.3g}." if kept["l1_mean"] is not None else ""
    ended = f"at the end of training there were {zeros[-1]:.1f} %"
    if "last_epoch" in result:  # of a classifier
        ended += f", with {100 * result['last_epoch']['test_accuracy']:.1f} % right on the test set"
    came = Section(
        "How the zeros came",
        f"Pruned by {METHODS[kept['method']]}. The model that is kept has {100 * kept['sparsity']:.1f} % zeros; "
        f"{ended}.{l1}",
        figure=figure,
    )
    layers = [
        [layer["path"], layer["numel"], f"{100 * (1 - layer['density']):.1f} %", _known(layer["macs"]),
         _known(layer["macs_left"]), _kb(layer, 'dense'), min(_kb(layer, form) for form in get_args(Form))]
        for layer in kept["report"]["layers"]
    ]  # fmt: skip
    where = Section(
        "Where the zeros are",
        "Every convolution and linear map of the kept model: weights, zeros, and multiply-accumulates for one "
        "sample (padding included), all of them and those with a weight that is not 0. The last two columns are the "
        "size in FP16, as it is and as a bitmap or by run lengths with their index, whichever is smallest.",
        table=Table(["layer", "weights", "zeros", "MACs", "MACs left", "kB", "kB stored"], layers),
    )
    return [came, where]


def _kb(layer: Mapping[str, Any], form: Form) -> float:
    return float(layer["numel"]) * bits_per_weight(form, layer["density"]) / 8e3


def _known(macs: float | None) -> str | float:
    return "–" if macs is None else round(macs)
