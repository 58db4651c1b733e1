"""Operations and energy of one trial through CET-MAE or E2T-PTR, counted while it runs.

CET-MAE    the EEG encoder that an export holds: EEG -> states; text and reconstruction are left out
E2T-PTR    free-running decoding of one trial: the EEG encoder once, then BART token by token with its cache

Trials are run one at a time, without padding. Both are conventional networks: everything multiplies.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spikeloom.accel.analysis.energy import Convention, EnergyConstants, Operations, per_inference
from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.e2t_ptr import E2TPTR, DecodingConfig
from spikeloom.bci.models.export_parts import EEGPart


def count_operations(
    model: CETMAE | E2TPTR, trials: Sequence[Tensor], decoding: DecodingConfig | None = None,
    constants: EnergyConstants | None = None,
) -> Operations:  # fmt: skip
    """Operations per trial of `trials` (EEG [L, 840] each) in evaluation mode. Raises ValueError without a trial."""
    decodes, was_training, tokens = isinstance(model, E2TPTR), model.training, 0
    model.eval()
    watched = model if decodes else EEGPart(model)
    try:
        with torch.no_grad(), OperationCounter(watched, unused_ok=True) as counter:
            for eeg in trials:
                mask = torch.ones(len(eeg), 1, dtype=torch.bool)
                if isinstance(model, E2TPTR):
                    tokens += len(model.generate(eeg[:, None], mask, decoding))
                else:
                    watched(eeg[:, None])
    finally:
        model.train(was_training)
    n = len(trials)
    return per_inference(
        counter, samples=n, steps=sum(map(len, trials)) / max(n, 1), what="trial", convention=Convention(),
        name=lambda path: path.removeprefix("front.").replace("_", " ").replace(".", " "), constants=constants,
        network=type(model).__name__, details={"tokens_written": tokens / max(n, 1)} if decodes else {},
    )  # fmt: skip
